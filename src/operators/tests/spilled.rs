//! State that memory has no room for.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::cases::Case;
use super::changes::batches;
use super::circuits::{epoch, ints};
use super::contents::Multiset;
use super::oracle::{Oracle, compiled, seeds};
use super::queries::Generator;
use super::tables::Row;
use crate::error::ErrorKind;
use crate::operators::{Circuit, Mode};

#[test]
fn state_that_cannot_be_dealt_out_counts_against_the_memory_limit() {
    let queries = [
        ("aggregate", "select count(distinct id) as n, sum(f) as f from \"src\".\"t\""),
        (
            "first row",
            "select id from (select id, k1, row_number() over (order by id) as n from \"src\".\"t\") as x where n = 1",
        ),
    ];
    for (operator, sql) in queries {
        let limit = 256 << 10;
        let oracle = Oracle::within(sql, Some(limit));
        let pool = std::sync::Arc::clone(&oracle.planner.session_state().runtime_env().memory_pool);
        let mut circuit = oracle.circuit(Mode::View);
        let some: Vec<(&str, Row, i64)> = (0..50).map(|i| ("t", ints("t", &[i, i]), 1)).collect();
        circuit.step(&epoch(&oracle, &some)).unwrap();
        assert_eq!(pool.reserved(), circuit.state_bytes(), "{operator}");
        assert!(pool.reserved() > 0, "{operator}");
        let gone: Vec<(&str, Row, i64)> = some.iter().skip(1).map(|(t, row, _)| (*t, row.clone(), -1)).collect();
        circuit.step(&epoch(&oracle, &gone)).unwrap();
        assert_eq!(pool.reserved(), circuit.state_bytes(), "{operator}");
        let many: Vec<(&str, Row, i64)> = (0..20_000).map(|i| ("t", ints("t", &[i, i]), 1)).collect();
        let error = circuit.step(&epoch(&oracle, &many)).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Environment, false), "{error:?}");
        let message = error.message();
        assert!(message.contains("the state of v ") && message.contains(operator), "{message}");
        assert!(pool.reserved() <= limit, "{operator}");
        drop(circuit);
        assert_eq!(pool.reserved(), 0, "{operator}: nothing is held for a circuit that is gone");
    }
}

#[test]
fn state_beyond_the_memory_limit_is_spilled() {
    let queries = [
        "select k1, max(s) as s, sum(f) as f, count(distinct id) as n from \"src\".\"t\" group by k1",
        "select id from (select id, k1, row_number() over (partition by k1 order by id) as n from \"src\".\"t\") as x where n = 1",
        "select id, lag(id) over (partition by k1 order by id) as n from \"src\".\"t\" as x",
        "select t.id, a.an from \"src\".\"t\" as t left join \"src\".\"a\" as a on t.k1 = a.k1",
        "select id, window_start, window_end from session(\"src\".\"t\", to_timestamp_seconds(id), interval '2 hours', k1)",
    ];
    // Of these, one input is dealt out when it no longer fits, and others are copied.
    let stars = [
        "select t.id, a.an, b.av from \"src\".\"t\" as t left join \"src\".\"a\" as a on t.k1 = a.k1
           left join \"src\".\"a\" as b on t.id = b.k1",
        "select t.id, a.an from \"src\".\"t\" as t left join \"src\".\"a\" as a on abs(t.k1) = abs(a.k1) and t.id > a.k1",
        "select id, (select max(av) from \"src\".\"a\") as most from \"src\".\"t\"",
        "select id from \"src\".\"t\" where k1 not in (select k1 from \"src\".\"a\" where k1 % 100 = 7)",
    ];
    for sql in queries.into_iter().chain(stars) {
        let free = Oracle::new(sql);
        let all: Vec<(&str, Row, i64)> =
            (0..12_000).flat_map(|i| ["t", "a"].map(|t| (t, ints(t, &[i, i % 3_000]), 1))).collect();
        let mut whole = free.circuit(Mode::View);
        whole.step(&epoch(&free, &all)).unwrap();
        let limit = whole.state_bytes() / 2;
        let bounded = Oracle::within(sql, Some(limit));
        let pool = std::sync::Arc::clone(&bounded.planner.session_state().runtime_env().memory_pool);
        let (mut expected, mut circuit) = (free.circuit(Mode::View), bounded.circuit(Mode::View));
        let rows = |number: i64, weight: i64| -> Vec<(&str, Row, i64)> {
            let of = move |table: &'static str, i: i64| (table, ints(table, &[i, i % 3_000]), weight);
            (number * 2_000..number * 2_000 + 2_000).flat_map(|i| [of("t", i), of("a", i)]).collect()
        };
        let step = |circuit: &mut Circuit, rows: &[(&str, Row, i64)]| {
            let mut change = Multiset::new();
            free.contents.add_signed(&mut change, &circuit.step(&epoch(&free, rows)).unwrap());
            change
        };
        for number in 0..6 {
            assert_eq!(step(&mut circuit, &rows(number, 1)), step(&mut expected, &rows(number, 1)), "{sql}");
            assert!(pool.reserved() <= limit, "{sql}");
            assert!(stars.contains(&sql) || circuit.state_rows() == expected.state_rows(), "{sql}");
        }
        assert!(circuit.state_bytes() < expected.state_bytes(), "{sql}: something is spilled");
        // Spilled state is stored with the rest, and comes back where there is room for it and where there is none.
        let mut restored = [free.restored(&mut circuit, Mode::View), bounded.restored(&mut circuit, Mode::View)];
        for (number, weight) in [(6, 1), (1, -1), (6, -1)] {
            let change = step(&mut expected, &rows(number, weight));
            for circuit in restored.iter_mut().chain([&mut circuit]) {
                assert_eq!(step(circuit, &rows(number, weight)), change, "{sql}");
            }
        }
        drop(restored);
        for number in [0, 2, 3, 4, 5] {
            assert_eq!(step(&mut circuit, &rows(number, -1)), step(&mut expected, &rows(number, -1)), "{sql}");
        }
        // The one row of an aggregate over nothing stays.
        let copies = if stars.contains(&sql) { 16 } else { 1 };
        assert_eq!(circuit.state_rows(), expected.state_rows() * copies, "{sql}");
        // A small change finds its shard on disk.
        assert_eq!(step(&mut circuit, &rows(0, 1)[..1]), step(&mut expected, &rows(0, 1)[..1]), "{sql}");
    }
}

#[test]
fn state_that_cannot_be_spilled_comes_first() {
    let (joins, counts) = (
        "select t.id, a.an from \"src\".\"t\" as t left join \"src\".\"a\" as a on t.k1 = a.k1",
        "select count(distinct id) as n from \"src\".\"t\"",
    );
    let rows = |from: i64, to: i64| -> Vec<(&str, Row, i64)> {
        (from..to).flat_map(|i| ["t", "a"].map(|table| (table, ints(table, &[i, i % 3_000]), 1))).collect()
    };
    let (free_join, free_count) = (Oracle::new(joins), Oracle::new(counts));
    let (mut all_joined, mut all_counted) = (free_join.circuit(Mode::View), free_count.circuit(Mode::View));
    let expected = all_joined.step(&epoch(&free_join, &rows(0, 9_000))).unwrap();
    let limit = all_joined.state_bytes();

    let joined = Oracle::within(joins, Some(limit));
    let counted = Oracle { planner: std::sync::Arc::clone(&joined.planner), ..Oracle::new(counts) };
    let pool = std::sync::Arc::clone(&joined.planner.session_state().runtime_env().memory_pool);
    let (mut join, mut count) = (joined.circuit(Mode::View), counted.circuit(Mode::View));
    let contents = |oracle: &Oracle, change: &[_]| {
        let mut all = Multiset::new();
        oracle.contents.add_signed(&mut all, change);
        all
    };
    let change = join.step(&epoch(&joined, &rows(0, 9_000))).unwrap();
    assert_eq!(contents(&joined, &change), contents(&free_join, &expected));
    let held = join.state_bytes();
    assert!(held > limit / 2, "the join fills the memory");

    let mut was_over = false;
    for number in 0..4 {
        let some = rows(number * 2_000, number * 2_000 + 2_000);
        let change = count.step(&epoch(&counted, &some)).unwrap();
        let expected = all_counted.step(&epoch(&free_count, &some)).unwrap();
        assert_eq!(contents(&counted, &change), contents(&free_count, &expected));
        was_over |= pool.reserved() > limit;
        // Whoever can make room, and only then.
        count.relieve().unwrap();
        assert_eq!(count.state_bytes(), all_counted.state_bytes());
        join.relieve().unwrap();
        assert!(pool.reserved() <= limit, "{} of {limit}", pool.reserved());
        assert_eq!(pool.reserved(), join.state_bytes() + count.state_bytes());
    }
    assert!(was_over, "memory was lent");
    assert!(join.state_bytes() < held, "the join is on disk in part");
    let more = rows(9_000, 9_500);
    let change = join.step(&epoch(&joined, &more)).unwrap();
    let expected = all_joined.step(&epoch(&free_join, &more)).unwrap();
    assert_eq!(contents(&joined, &change), contents(&free_join, &expected));
    assert!(pool.reserved() <= limit, "a step makes room too");
    // What others can put away is lent, and no more.
    let error = count.step(&epoch(&counted, &rows(100_000, 300_000))).unwrap_err();
    assert!(error.message().contains("does not fit into memory_limit"), "{error:?}");
    drop(count);
    drop(join);
    assert_eq!(pool.reserved(), 0);
}

/// What became of a random query.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// It is not maintained, or keeps nothing.
    Nothing,
    /// Part of it cannot be dealt out, and does not fit.
    Refused,
    Fits,
    Spilled,
}

/// Steps a circuit beside one that has a third of the memory which that one took at most.
fn beside_bounded(case: &Case) -> Outcome {
    let model = compiled(&case.sql, &case.append_only);
    if model.incremental.is_err() {
        return Outcome::Nothing;
    }
    let free = Oracle::of(std::sync::Arc::clone(&model), None);
    let steps: Vec<_> = case
        .epochs
        .iter()
        .map(|epoch| {
            let inputs = free.tables.iter().zip(&model.inputs);
            inputs.map(|(table, input)| batches(table, &input.schema, &epoch.changes)).collect::<Vec<_>>()
        })
        .collect();
    let mut circuit = free.circuit(Mode::View);
    let expected: Vec<(Multiset, usize)> = steps
        .iter()
        .map(|inputs| {
            let mut change = Multiset::new();
            free.contents.add_signed(&mut change, &circuit.step(inputs).unwrap());
            (change, circuit.state_bytes())
        })
        .collect();
    let limit = expected.iter().map(|(_, bytes)| bytes / 3).max().unwrap_or(0);
    if limit == 0 {
        return Outcome::Nothing;
    }
    let bounded = Oracle::of(model, Some(limit));
    let mut small = bounded.circuit(Mode::View);
    let mut outcome = Outcome::Fits;
    for (number, (inputs, (expected, bytes))) in steps.iter().zip(expected).enumerate() {
        let output = match small.step(inputs) {
            Ok(output) => output,
            Err(error) => {
                assert!(error.message().contains("does not fit into memory_limit"), "{error:?}");
                return Outcome::Refused;
            }
        };
        let mut change = Multiset::new();
        bounded.contents.add_signed(&mut change, &output);
        assert!(change == expected, "epoch {number}: {}", bounded.contents.difference(&change, &expected));
        if bytes > limit {
            outcome = Outcome::Spilled;
        }
    }
    outcome
}

#[test]
fn random_queries_give_the_same_rows_with_a_third_of_the_memory() {
    let (mut spilled, mut refused) = (0, 0);
    for seed in seeds("0..150") {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5111_0000);
        let sql = match seed % 3 {
            0 => Generator::new(&mut rng).chain().sql,
            1 => Generator::new(&mut rng).correlated().0.sql,
            _ => Generator::new(&mut rng).query(1).sql,
        };
        let case = Case::of(seed, sql, &mut rng);
        println!("{seed}: {}", case.sql);
        match beside_bounded(&case) {
            Outcome::Spilled => spilled += 1,
            Outcome::Refused => refused += 1,
            Outcome::Fits | Outcome::Nothing => {}
        }
    }
    println!("{spilled} were spilled, {refused} refused");
    assert!(spilled > refused, "{spilled} were spilled, {refused} refused");
}
