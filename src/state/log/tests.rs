use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LogKeys, MERGED, RowLog, SharedLog, SharedLogs};
use crate::error::ErrorKind;
use crate::state::tests::{batch, schema};
use crate::state::{GroupIndex, Links, NONE, PoolName, StateReader, StateWriter};
use crate::types::{SelectedBatch, SignedBatch};

fn name() -> PoolName {
    PoolName { rows: "t".into(), part: (0, 1) }
}

fn hold(logs: &SharedLogs) -> SharedLog {
    logs.hold(name(), &schema(), vec![0, 1]).unwrap()
}

/// These rows as they are, or as a selection of others.
fn selected(rows: &[(i64, i64)], rng: &mut ChaCha8Rng) -> SelectedBatch {
    if rng.random_bool(0.5) {
        return batch(rows).into();
    }
    // By turns a row and one that is not selected; or backwards.
    let backwards = rng.random_bool(0.5);
    let mut all: Vec<(i64, i64)> = rows.iter().flat_map(|row| [*row, (77, 1)]).collect();
    let mut places: Vec<u32> = (0..rows.len() as u32).map(|at| at * 2).collect();
    if backwards {
        all.reverse();
        places.iter_mut().for_each(|at| *at = all.len() as u32 - 1 - *at);
    }
    SelectedBatch::new(batch(&all), places.into())
}

/// By what a row is found; none where it has no number.
fn key_of(n: i64) -> Option<[u8; 1]> {
    (n % 7 != 0).then(|| [(n % 4) as u8])
}

/// One holder of a shared log that is indexed, and what it should hold.
struct Holder {
    rows: SharedLog,
    keys: LogKeys,
    /// Number and weight, by id.
    model: Vec<(i64, i64)>,
    /// Key → its id, of those that are needed.
    needed: BTreeMap<[u8; 1], u32>,
}

impl Holder {
    fn new(logs: &SharedLogs) -> Self {
        let rows = hold(logs);
        let keys = LogKeys::new(&rows, "n").unwrap();
        Holder { rows, keys, model: vec![], needed: BTreeMap::new() }
    }

    fn follow(&mut self) {
        if let Some(now) = self.keys.follow(&self.rows).unwrap() {
            self.needed.values_mut().for_each(|id| *id = now[*id as usize]);
        }
    }

    fn append(&mut self, new: &[(i64, i64)], rng: &mut ChaCha8Rng) {
        let (a, b) = new.split_at(rng.random_range(0..=new.len()));
        let applied = self.rows.apply(&[batch(a).into(), selected(b, rng)]).unwrap();
        let ids: Vec<u32> = (self.model.len() as u32..).take(new.len()).collect();
        assert_eq!(applied.ids, ids);
        assert!(applied.net.iter().copied().eq(ids.iter().zip(new).map(|(id, (_, weight))| (*id, *weight))));
        self.follow();
        let mut keying = self.keys.lock_mut().unwrap();
        for (id, (n, _)) in ids.iter().zip(new) {
            let key = key_of(*n);
            keying.key_of_row(*id, || key.as_ref().map(|key| &key[..])).unwrap();
        }
        drop(keying);
        ids.iter().for_each(|id| self.keys.link(*id));
        self.model.extend(new);
    }

    fn need(&mut self, rng: &mut ChaCha8Rng) {
        let key = [rng.random_range(0..6)];
        match self.needed.remove(&key) {
            None => drop(self.needed.insert(key, self.keys.lock_mut().unwrap().need(&key).unwrap())),
            Some(id) => self.keys.release(id).unwrap(),
        }
    }

    /// By way of its stored bytes; its base has the keys that it needs.
    fn restored(&self, logs: &SharedLogs) -> Self {
        let mut base = Links::new(false);
        self.needed.values().zip(0..).for_each(|(id, row)| base.link(row, *id));
        let mut out = StateWriter::new();
        self.rows.save(&mut out).unwrap();
        self.keys.save(&mut out, |out| base.save(out)).unwrap();
        let mut from = StateReader::new(out.finish(), 1);
        let mut back = Holder { model: self.model.clone(), ..Holder::new(logs) };
        back.rows.restore(&mut from).unwrap();
        back.follow();
        let stored = GroupIndex::restore(&mut from).unwrap();
        let base = Links::restore(&mut from, false).unwrap();
        let rows = Links::restore(&mut from, true).unwrap();
        let now = back.keys.restore(stored, &rows, &base).unwrap();
        let place = |id: u32| now.as_ref().map_or(id, |now| now[id as usize]);
        back.needed = self.needed.iter().map(|(key, id)| (*key, place(*id))).collect();
        back
    }

    /// It has its rows, and finds them and no others.
    fn check(&mut self, seed: u64) {
        let all: Vec<u32> = (0..self.model.len() as u32).chain([NONE]).collect();
        assert_eq!((self.rows.len(), self.rows.is_empty()), (self.model.len(), self.model.is_empty()));
        let numbers = self.rows.columns(&all, &[0]).unwrap().remove(0);
        let numbers = numbers.as_primitive::<Int64Type>();
        for (id, (n, weight)) in self.model.iter().enumerate() {
            assert_eq!(numbers.is_valid(id).then(|| numbers.value(id)), (n % 7 != 0).then_some(*n), "seed {seed}");
            assert_eq!(self.rows.weight(id as u32), *weight, "seed {seed}");
        }
        assert!(numbers.is_null(self.model.len()));
        for key in 0..6u8 {
            let found = self.keys.lock_mut().unwrap().find(&[key]).unwrap();
            assert!(self.needed.get(&[key]).is_none_or(|id| *id == found), "seed {seed}");
            let of_key = |id: &usize| key_of(self.model[*id].0) == Some([key]);
            let expected: Vec<u32> = (0..self.model.len()).filter(of_key).map(|id| id as u32).collect();
            let keyed = self.keys.lock().unwrap();
            let linked = keyed.linked().unwrap();
            let rows: Vec<u32> = if found == NONE { vec![] } else { linked.of(found).collect() };
            assert_eq!(rows, expected, "seed {seed}, key {key}");
            assert_eq!(linked.has(found), !expected.is_empty());
            assert!(expected.iter().all(|row| linked.key(*row) == found));
        }
        let keyed = self.keys.lock().unwrap();
        assert!(keyed.linked().unwrap().iter().map(|(row, _)| row).eq(0..self.model.len() as u32), "seed {seed}");
        drop(keyed);
        assert!(!self.keys.contains(self.model.len() as u32));
    }
}

#[test]
fn holders_of_a_shared_log_have_their_own_rows() {
    for seed in 0..80 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let logs = SharedLogs::default();
        let mut history: Vec<(i64, i64)> = Vec::new();
        for _ in 0..400 {
            history.push((rng.random_range(1..500), if rng.random_bool(0.02) { rng.random_range(1..400) } else { 1 }));
        }
        let mut holders: Vec<Holder> = (0..4).map(|_| Holder::new(&logs)).collect();
        for _ in 0..150 {
            let at = rng.random_range(0..holders.len());
            let holder = &mut holders[at];
            match rng.random_range(0..20) {
                0 => *holder = Holder::new(&logs),
                1 | 2 => *holder = holder.restored(&logs),
                3 => drop(holder.restored(&SharedLogs::default())),
                4 => {
                    // Rows in another order, or others.
                    let from = rng.random_range(0..300);
                    holder.append(&history[from..from + rng.random_range(0..20)], &mut rng);
                }
                5..9 => holder.need(&mut rng),
                _ => {
                    let from = holder.model.len().min(history.len());
                    let to = (from + rng.random_range(0..25)).min(history.len());
                    holder.append(&history[from..to], &mut rng);
                }
            }
            holders.iter_mut().for_each(|holder| holder.check(seed));
        }
        // A log is as long as its longest holder.
        holders.sort_by_key(|holder| holder.model.len());
        while let Some(longest) = holders.pop() {
            assert!(longest.rows.seat.lock().unwrap().rows.len() == longest.model.len(), "seed {seed}");
            drop(longest);
            holders.iter_mut().for_each(|holder| holder.check(seed));
        }
        let mut alone = Holder::new(&logs);
        alone.append(&history[..50], &mut rng);
        let mut fresh = Holder::new(&SharedLogs::default());
        fresh.append(&history[..50], &mut rng);
        let bytes = |holder: &Holder| holder.rows.heap_size() + holder.keys.heap_size();
        assert!(bytes(&alone) < bytes(&fresh) * 5 / 4, "seed {seed}: rows are left");
    }
}

#[test]
fn equal_rows_are_stored_once_and_only_as_long_as_they_come_in_one_order() {
    let logs = SharedLogs::default();
    let rows =
        |numbers: std::ops::Range<i64>| -> SelectedBatch { batch(&numbers.map(|n| (n, 1)).collect::<Vec<_>>()).into() };
    let (mut one, mut two, mut three) = (hold(&logs), hold(&logs), hold(&logs));
    let large = MERGED as i64 * 20 + 50_000;
    one.apply(&[rows(0..large)]).unwrap();
    let alone = one.heap_size();
    two.apply(&[rows(0..1_000), rows(1_000..large - 1_000)]).unwrap();
    assert!(one.heap_size() + two.heap_size() < alone * 11 / 10);
    two.apply(&[rows(large - 1_000..large + 1_000)]).unwrap();
    three.apply(&[rows(5..1_000)]).unwrap();
    assert!(two.seat.is_beside(&one.seat) && !three.seat.is_beside(&one.seat));
    assert_eq!((one.len(), two.len()), (large as usize, large as usize + 1_000));
    // Another row: it goes on alone, with the pieces that are settled.
    one.apply(&[rows(7..9)]).unwrap();
    assert!(!two.seat.is_beside(&one.seat));
    let piece = |of: &SharedLog, at: usize| of.seat.lock().unwrap().rows.pieces[at].columns[1].to_data();
    assert!(piece(&one, 0).ptr_eq(&piece(&two, 0)));
    for (holder, last) in [(&one, 8), (&two, large + 999)] {
        let number = holder.columns(&[holder.len() as u32 - 1], &[0]).unwrap().remove(0);
        assert_eq!(number.as_primitive::<Int64Type>().value(0), last);
    }
    // Who goes takes with it what it alone had.
    let (mut short, other) = (hold(&logs), hold(&logs));
    short.apply(&[rows(0..100)]).unwrap();
    assert!(short.seat.is_beside(&one.seat) || short.seat.is_beside(&two.seat));
    drop((one, two, other));
    assert_eq!(short.seat.lock().unwrap().rows.len(), 100);
    assert!(short.heap_size() < alone / 100);
    // Another part of the keys has other logs, and a retraction is for nobody.
    let mut part = logs.hold(PoolName { part: (1, 2), ..name() }, &schema(), vec![1]).unwrap();
    part.apply(&[rows(0..100)]).unwrap();
    assert!(!part.seat.is_beside(&short.seat));
    assert_eq!(short.apply(&[batch(&[(1, -1)]).into()]).unwrap_err().kind(), ErrorKind::Diverged);
    assert_eq!(short.len(), 100);
}

#[test]
fn a_shared_log_is_stored_as_a_log_is() {
    let logs = SharedLogs::default();
    let rows = |numbers: std::ops::Range<i64>| -> SelectedBatch {
        batch(&numbers.map(|n| (n, 1 + n % 2)).collect::<Vec<_>>()).into()
    };
    let (mut longer, mut shared) = (hold(&logs), hold(&logs));
    longer.apply(&[rows(0..300)]).unwrap();
    shared.apply(&[rows(0..200)]).unwrap();
    let mut out = StateWriter::new();
    shared.save(&mut out).unwrap();
    let sections = out.finish();
    let mut log = RowLog::new(&schema());
    log.restore(&mut StateReader::new(sections, 1)).unwrap();
    assert_eq!((log.len(), log.weight(3), log.weight(4)), (200, 2, 1));
    let mut out = StateWriter::new();
    log.save(&mut out).unwrap();
    let mut back = hold(&logs);
    back.restore(&mut StateReader::new(out.finish(), 1)).unwrap();
    assert!(back.seat.is_beside(&longer.seat));
    assert_eq!((back.len(), back.weight(3), back.weight(4)), (200, 2, 1));
    let ids: Vec<u32> = (0..200).collect();
    assert_eq!(back.columns(&ids, &[0, 1]).unwrap(), log.columns(&ids, &[0, 1]).unwrap());
}

#[test]
fn floats_are_compared_by_their_bits() {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    let rows = |floats: Vec<Option<f64>>| {
        let column = Arc::new(Float64Array::from(floats));
        SignedBatch::inserts(RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap())
    };
    let logs = SharedLogs::default();
    let new = |floats: Vec<Option<f64>>| {
        let mut holder = logs.hold(name(), &schema, vec![0]).unwrap();
        holder.apply(&[rows(floats).into()]).unwrap();
        holder
    };
    let first = new(vec![Some(f64::NAN), Some(0.0), None, Some(1.5)]);
    let same = new(vec![Some(-f64::NAN), Some(-0.0), None, Some(1.5)]);
    let null = new(vec![Some(f64::NAN), None, None, Some(1.5)]);
    let other = new(vec![Some(f64::NAN), Some(0.0), None, Some(1.5000000000000002)]);
    assert!(same.seat.is_beside(&first.seat));
    assert!(!null.seat.is_beside(&first.seat) && !other.seat.is_beside(&first.seat));
}

#[test]
fn holders_may_append_at_once() {
    let logs = SharedLogs::default();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let history: Vec<(i64, i64)> = (0..3_000).map(|_| (rng.random_range(1..500), 1)).collect();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (logs, history) = (&logs, &history);
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let mut holder = Holder::new(logs);
                for round in 0..600 {
                    let from = holder.model.len();
                    if from > 400 || rng.random_bool(0.01) {
                        holder = Holder::new(logs);
                        continue;
                    }
                    let from = if rng.random_bool(0.02) { from + 1 } else { from };
                    holder.append(&history[from..from + rng.random_range(0..20)], &mut rng);
                    holder.need(&mut rng);
                    if round % 50 == 49 {
                        holder = holder.restored(logs);
                    }
                    holder.check(seed);
                }
            });
        }
    });
}
