//! Snapshots run by run, against what dbt's documentation says of each strategy.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use crate::operators::{Followed, History};
use crate::plan::CompiledSnapshot;
use crate::project::{HardDeletes, SnapshotColumns};
use crate::types::SignedBatch;

/// (key, value, updated_at).
type Row = (i64, &'static str, i64);

struct Table {
    snapshot: CompiledSnapshot,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    several: bool,
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn table(check: Option<Vec<usize>>, hard_deletes: HardDeletes) -> Table {
    let query: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("at", instant(), true),
    ]));
    let snapshot = CompiledSnapshot {
        query: Arc::clone(&query),
        key: vec![0],
        updated_at: check.is_none().then_some(2),
        check,
        hard_deletes,
        names: SnapshotColumns::default(),
        valid_to_current: None,
    };
    let fields: Vec<Field> = query.fields().iter().map(|f| f.as_ref().clone()).chain(snapshot.added()).collect();
    Table { snapshot, schema: Arc::new(Schema::new(fields)), rows: Vec::new(), several: false }
}

impl Table {
    /// One run; the table then, as `id city from..to` (and `deleted`) per version, and how many rows the run retracted and inserted.
    fn run(&mut self, rows: &[Row], at: i64) -> Result<(Vec<String>, usize, usize), String> {
        let change = self.history().change(&self.rows, &[self.batch(rows)], at).map_err(|e| e.message().to_string())?;
        Ok(self.apply(&change))
    }

    fn batch(&self, rows: &[Row]) -> RecordBatch {
        RecordBatch::try_new(
            Arc::clone(&self.snapshot.query),
            vec![
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))) as ArrayRef,
                Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.2)).with_timezone("UTC")),
            ],
        )
        .unwrap()
    }

    fn history(&self) -> History<'_> {
        History { name: "cities", snapshot: &self.snapshot, table: Arc::clone(&self.schema), several: self.several }
    }

    fn apply(&mut self, change: &[SignedBatch]) -> (Vec<String>, usize, usize) {
        let mut all = lines(&concat_batches(&self.schema, &self.rows).unwrap());
        let (mut retracted, mut inserted) = (0, 0);
        let mut kept = self.rows.clone();
        for batch in change {
            for (row, line) in lines(&batch.rows).into_iter().enumerate() {
                if batch.weight(row) > 0 {
                    inserted += 1;
                    all.push(line);
                } else {
                    retracted += 1;
                    let found = all.iter().position(|l| *l == line).expect("what is retracted is there");
                    all.remove(found);
                    kept = without(&self.schema, &kept, &line);
                }
            }
            if !batch.has_retractions() {
                kept.push(batch.rows.clone());
            }
        }
        self.rows = kept;
        all.sort();
        let shown = all.iter().map(|l| l.split_once('#').unwrap().1.to_string()).collect();
        (shown, retracted, inserted)
    }
}

fn without(schema: &SchemaRef, rows: &[RecordBatch], line: &str) -> Vec<RecordBatch> {
    let all = concat_batches(schema, rows).unwrap();
    let keep: arrow::array::BooleanArray = lines(&all).iter().map(|l| Some(l != line)).collect();
    vec![arrow::compute::filter_record_batch(&all, &keep).unwrap()]
}

/// `scd_id#id city from..to`.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let text = |name: &str, row: usize| {
        batch.column_by_name(name).map_or(String::new(), |c| array_value_to_string(c, row).unwrap())
    };
    let micros = |name: &str, row: usize| {
        let column = batch.column_by_name(name).unwrap();
        let column = column.as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
        arrow::array::Array::is_valid(column, row).then(|| column.value(row))
    };
    (0..batch.num_rows())
        .map(|row| {
            assert_eq!(micros("dbt_updated_at", row), micros("dbt_valid_from", row));
            let to = micros("dbt_valid_to", row).map_or(String::new(), |m| m.to_string());
            let deleted = if text("dbt_is_deleted", row) == "True" { " deleted" } else { "" };
            let from = micros("dbt_valid_from", row).unwrap();
            format!("{}#{} {} {from}..{to}{deleted}", text("dbt_scd_id", row), text("id", row), text("city", row))
        })
        .collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn check_makes_a_version_of_every_change_and_repeats_nothing() {
    let mut table = table(Some(vec![1]), HardDeletes::Ignore);
    let (first, ..) = table.run(&[(1, "Cairo", 0), (2, "Giza", 0)], 10).unwrap();
    assert_eq!(sorted(first), ["1 Cairo 10..", "2 Giza 10.."]);
    // Another `at` is no change: only `city` is checked.
    let second = table.run(&[(1, "Cairo", 5), (2, "Luxor", 0), (3, "Aswan", 0)], 20).unwrap();
    let expected = ["1 Cairo 10..", "2 Giza 10..20", "2 Luxor 20..", "3 Aswan 20.."];
    assert_eq!((sorted(second.0), second.1, second.2), (expected.map(String::from).to_vec(), 1, 3));
    let again = table.run(&[(1, "Cairo", 5), (2, "Luxor", 0), (3, "Aswan", 0)], 20).unwrap();
    assert_eq!((sorted(again.0), again.1, again.2), (expected.map(String::from).to_vec(), 0, 0));
    // Rows that are gone stay current.
    let gone = table.run(&[], 30).unwrap();
    assert_eq!((gone.1, gone.2), (0, 0));
}

#[test]
fn timestamp_takes_its_times_from_the_rows() {
    let mut table = table(None, HardDeletes::Invalidate);
    table.run(&[(1, "Cairo", 3), (2, "Giza", 4)], 10).unwrap();
    // Another city with the same time is no change.
    let (second, ..) = table.run(&[(1, "Luxor", 3), (2, "Luxor", 7)], 20).unwrap();
    assert_eq!(sorted(second), ["1 Cairo 3..", "2 Giza 4..7", "2 Luxor 7.."]);
    let (third, ..) = table.run(&[(2, "Luxor", 7)], 30).unwrap();
    assert_eq!(sorted(third), ["1 Cairo 3..30", "2 Giza 4..7", "2 Luxor 7.."]);
    // It comes back: a new version, the old ones stay.
    let (fourth, ..) = table.run(&[(1, "Cairo", 3), (2, "Luxor", 7)], 40).unwrap();
    assert_eq!(sorted(fourth), ["1 Cairo 3..30", "1 Cairo 40..", "2 Giza 4..7", "2 Luxor 7.."]);
}

#[test]
fn deleted_rows_can_be_recorded() {
    let mut table = table(Some(vec![1]), HardDeletes::NewRecord);
    table.run(&[(1, "Cairo", 0), (2, "Giza", 0)], 10).unwrap();
    let (second, ..) = table.run(&[(2, "Giza", 0)], 20).unwrap();
    assert_eq!(sorted(second), ["1 Cairo 10..20", "1 Cairo 20.. deleted", "2 Giza 10.."]);
    let third = table.run(&[(2, "Giza", 0)], 30).unwrap();
    assert_eq!((third.1, third.2), (0, 0), "it is deleted once");
    let (fourth, ..) = table.run(&[(1, "Cairo", 0), (2, "Giza", 0)], 40).unwrap();
    assert_eq!(sorted(fourth), ["1 Cairo 10..20", "1 Cairo 20..40 deleted", "1 Cairo 40..", "2 Giza 10.."]);
}

#[test]
fn a_key_names_one_row() {
    let mut cities = table(Some(vec![1]), HardDeletes::Ignore);
    let message = cities.run(&[(1, "Cairo", 0), (1, "Giza", 0)], 10).unwrap_err();
    assert_eq!(message, "snapshot cities: its query returns several rows with id = 1");
    // Continuously, by timestamp, they are versions one after the other, whatever their order.
    let mut table = table(None, HardDeletes::Ignore);
    table.several = true;
    let (first, ..) = table.run(&[(1, "Luxor", 7), (1, "Cairo", 3), (1, "Giza", 5)], 10).unwrap();
    assert_eq!(sorted(first), ["1 Cairo 3..5", "1 Giza 5..7", "1 Luxor 7.."]);
    let (second, ..) = table.run(&[(1, "Luxor", 7), (1, "Aswan", 9), (1, "Cairo", 3), (1, "Giza", 5)], 20).unwrap();
    assert_eq!(sorted(second), ["1 Aswan 9..", "1 Cairo 3..5", "1 Giza 5..7", "1 Luxor 7..9"]);
}

#[test]
fn ids_are_those_of_key_and_time() {
    let mut table = table(Some(vec![1]), HardDeletes::Ignore);
    table.run(&[(1, "Cairo", 0)], 1_768_183_200_000_000).unwrap();
    let id = array_value_to_string(table.rows[0].column_by_name("dbt_scd_id").unwrap(), 0).unwrap();
    use md5::{Digest, Md5};
    let expected = Md5::digest(b"1|2026-01-12 02:00:00.000000");
    assert_eq!(id, expected.iter().map(|b| format!("{b:02x}")).collect::<String>());
}

/// Rows of a query that changes at random; by strategy `timestamp` a key may have several.
struct Cities {
    rows: Vec<Row>,
    several: bool,
}

impl Cities {
    /// The rows that go and those that come.
    fn step(&mut self, rng: &mut ChaCha8Rng, epoch: i64) -> (Vec<Row>, Vec<Row>) {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(0..5) {
            let id = rng.random_range(0..6);
            let at = self.rows.iter().position(|row| row.0 == id);
            if let (Some(at), true) = (at, !self.several || rng.random_bool(0.3)) {
                gone.push(self.rows.swap_remove(at));
            }
            if rng.random_bool(0.7) {
                let city = ["Cairo", "Giza", "Luxor"][rng.random_range(0..3)];
                let row = (id, city, rng.random_range(0..10) + epoch * rng.random_range(0..2));
                self.rows.push(row);
                come.push(row);
            }
        }
        (gone, come)
    }
}

#[test]
fn following_changes_makes_the_versions_that_reading_everything_makes() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let check = rng.random_bool(0.5).then(|| vec![1]);
        let deletes = [HardDeletes::Ignore, HardDeletes::Invalidate, HardDeletes::NewRecord][rng.random_range(0..3)];
        let several = check.is_none() && rng.random_bool(0.5);
        let mut read = Table { several, ..table(check.clone(), deletes) };
        let mut followed = Table { several, ..table(check, deletes) };
        let mut cities = Cities { rows: Vec::new(), several };
        let mut state: Option<Followed> = None;
        for epoch in 1..20 {
            let at = 100 * epoch;
            let (gone, come) = cities.step(&mut rng, epoch);
            // Read in any order.
            let mut all = cities.rows.clone();
            all.sort_by_key(|row| (row.0.wrapping_mul(seed as i64 | 1) % 7, row.1, row.2));
            let expected = read.run(&all, at).unwrap();
            let change = match &mut state {
                Some(state) => {
                    let delta =
                        [SignedBatch::retracts(followed.batch(&gone)), SignedBatch::inserts(followed.batch(&come))];
                    state.change(&followed.history(), &delta, at).unwrap()
                }
                None => {
                    let mut new = Followed::new(&followed.history()).unwrap().unwrap();
                    let rows = [SignedBatch::inserts(followed.batch(&cities.rows))];
                    let change = new.begin(&followed.history(), &followed.rows, &rows, at).unwrap();
                    state = Some(new);
                    change
                }
            };
            let got = followed.apply(&change);
            assert_eq!(got, expected, "seed {seed}, epoch {epoch}: {gone:?} {come:?}");
            // Whoever followed is killed.
            state = state.filter(|_| rng.random_bool(0.8));
        }
    }
}
