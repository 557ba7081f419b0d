use super::*;
use crate::error::ErrorKind;
use crate::types::{SelectedBatch, SignedBatch};
use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]))
}

pub(super) fn batch(rows: &[(i64, i64)]) -> SignedBatch {
    let n: Int64Array = rows.iter().map(|(n, _)| (*n % 7 != 0).then_some(*n)).collect();
    let s: StringArray = rows.iter().map(|(n, _)| (*n % 5 != 0).then(|| format!("text {n}"))).collect();
    let rows_batch = RecordBatch::try_new(schema(), vec![Arc::new(n), Arc::new(s)]).unwrap();
    SignedBatch::new(rows_batch, Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w))).unwrap()
}

/// What `batch` makes of `n` is one-to-one unless both columns are NULL.
fn value_of(n: i64) -> i64 {
    if n % 35 == 0 { 0 } else { n }
}

#[test]
fn a_row_store_is_a_zset() {
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut store = RowStore::new(&schema()).unwrap();
        // Value → (id, weight).
        let mut model: BTreeMap<i64, i64> = BTreeMap::new();
        let mut ids: BTreeMap<i64, u32> = BTreeMap::new();
        for _ in 0..60 {
            let mut change: Vec<(i64, i64)> =
                (0..rng.random_range(0..40)).map(|_| (rng.random_range(1..200), 1)).collect();
            let mut next = model.clone();
            change.iter().for_each(|(n, w)| *next.entry(value_of(*n)).or_default() += w);
            for (n, w) in next.iter_mut() {
                if *w > 0 && rng.random_bool(0.4) {
                    let gone = rng.random_range(1..=*w);
                    change.insert(rng.random_range(0..=change.len()), (*n, -gone));
                    *w -= gone;
                }
            }
            next.retain(|_, w| *w != 0);
            let at = rng.random_range(0..=change.len());
            let (a, b) = change.split_at(at);
            let applied = store.apply(&[batch(a), batch(b)]).unwrap();
            for ((n, _), id) in change.iter().zip(&applied.ids) {
                ids.insert(value_of(*n), *id);
            }
            let mut net: BTreeMap<u32, i64> = BTreeMap::new();
            applied.net.iter().for_each(|(id, w)| *net.entry(*id).or_default() += w);
            for (n, id) in &ids {
                let (old, new) = (model.get(n).unwrap_or(&0), next.get(n).unwrap_or(&0));
                assert_eq!(net.get(id).copied().unwrap_or(0), new - old, "seed {seed}");
                assert_eq!(applied.removed.contains(id), *old > 0 && *new == 0, "seed {seed}");
                assert_eq!(store.weight(*id), *new);
            }
            // Rows that died are still readable until they are swept.
            let all: Vec<u32> = ids.values().copied().chain([NONE]).collect();
            let column = store.column(&all, 0).unwrap();
            let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
            for (i, n) in ids.keys().enumerate() {
                assert_eq!(column.is_valid(i).then(|| column.value(i)), (n % 7 != 0).then_some(*n), "seed {seed}");
            }
            assert!(column.is_null(ids.len()));
            store.sweep().unwrap();
            ids.retain(|n, _| next.contains_key(n));
            model = next;
            assert_eq!(store.len(), model.len());
        }
        let rest: Vec<(i64, i64)> = model.iter().map(|(n, w)| (*n, -w)).collect();
        store.apply(&[batch(&rest)]).unwrap();
        store.sweep().unwrap();
        assert!(store.is_empty() && store.chunks_for_test() == 0);
    }
}

/// One holder of pooled rows, and what it should hold.
struct Holder {
    rows: PooledRows,
    /// Value → weight.
    model: BTreeMap<i64, i64>,
}

impl Holder {
    fn change(&mut self, rng: &mut ChaCha8Rng) {
        let mut change: Vec<(i64, i64)> = (0..rng.random_range(0..30)).map(|_| (rng.random_range(1..120), 1)).collect();
        let mut next = self.model.clone();
        change.iter().for_each(|(n, w)| *next.entry(value_of(*n)).or_default() += w);
        for (n, w) in next.iter_mut() {
            if rng.random_bool(0.4) {
                change.push((*n, -*w));
                *w = 0;
            }
        }
        let applied = self.rows.apply(&[batch(&change)]).unwrap();
        let mut net: BTreeMap<u32, i64> = BTreeMap::new();
        applied.net.iter().for_each(|(id, w)| *net.entry(*id).or_default() += w);
        let mut ids: BTreeMap<i64, u32> = BTreeMap::new();
        ids.extend(change.iter().zip(&applied.ids).map(|((n, _), id)| (value_of(*n), *id)));
        for (n, id) in &ids {
            let (old, new) = (self.model.get(n).unwrap_or(&0), next[n]);
            assert_eq!(net.get(id).copied().unwrap_or(0), new - old);
            assert_eq!(applied.removed.contains(id), *old > 0 && new == 0);
            assert_eq!(self.rows.weight(*id), new);
        }
        // What it lost is there until it is swept, whoever else has it.
        let all: Vec<u32> = ids.values().copied().collect();
        let column = self.rows.columns(&all, &[0]).unwrap().remove(0);
        let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
        for (i, n) in ids.keys().enumerate() {
            assert_eq!(column.is_valid(i).then(|| column.value(i)), (n % 7 != 0).then_some(*n));
        }
        self.rows.sweep().unwrap();
        next.retain(|_, w| *w != 0);
        self.model = next;
        assert_eq!(self.rows.len(), self.model.len());
    }

    /// What it holds, by id.
    fn held(&self) -> BTreeMap<u32, (Option<i64>, i64)> {
        let own: Vec<u32> = (0..400).filter(|id| self.rows.weight(*id) != 0).collect();
        let column = self.rows.columns(&own, &[0]).unwrap().remove(0);
        let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
        let value = |i: usize| column.is_valid(i).then(|| column.value(i));
        own.iter().enumerate().map(|(i, id)| (*id, (value(i), self.rows.weight(*id)))).collect()
    }

    fn stored(&self) -> StateReader {
        let mut out = StateWriter::new();
        self.rows.save(&mut out).unwrap();
        StateReader::new(out.finish(), 1)
    }
}

#[test]
fn pooled_rows_are_those_of_each_holder() {
    let name = || PoolName { rows: "t".into(), part: (0, 1) };
    for seed in 0..60 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let pools = RowPools::default();
        let new = || Holder { rows: pools.hold(name(), &schema(), vec![0, 1]).unwrap(), model: BTreeMap::new() };
        let mut holders: Vec<Holder> = (0..3).map(|_| new()).collect();
        for _ in 0..80 {
            let at = rng.random_range(0..holders.len());
            match rng.random_range(0..12) {
                0 => holders[at] = new(),
                1 => {
                    // It comes back beside the others, or alone, under its ids or others.
                    let Holder { rows, model } = &holders[at];
                    let (mut from, before) = (holders[at].stored(), holders[at].held());
                    let alone = !rows.is_empty() && rng.random_bool(0.3);
                    let mut back = Holder { model: model.clone(), ..new() };
                    if alone {
                        back.rows = RowPools::default().hold(name(), &schema(), vec![0, 1]).unwrap();
                    }
                    let now = back.rows.restore(&mut from).unwrap();
                    let place = |id: u32| now.as_ref().map_or(id, |now| now[id as usize]);
                    let moved: BTreeMap<u32, _> = before.iter().map(|(id, held)| (place(*id), *held)).collect();
                    assert_eq!((back.held(), back.rows.len()), (moved, rows.len()), "seed {seed}");
                    if !alone {
                        holders[at] = back;
                    }
                }
                2 => {
                    // A store of its own writes the same, and reads it.
                    let mut alone = RowStore::new(&schema()).unwrap();
                    alone.restore(&mut holders[at].stored()).unwrap();
                    assert_eq!(alone.len(), holders[at].model.len());
                    let gone: Vec<(i64, i64)> = holders[at].model.iter().map(|(n, w)| (*n, -w)).collect();
                    alone.apply(&[batch(&gone)]).unwrap();
                    alone.sweep().unwrap();
                    assert!(alone.is_empty());
                }
                _ => holders[at].change(&mut rng),
            }
            // A row that several have has one id.
            let mut ids: BTreeMap<Option<i64>, u32> = BTreeMap::new();
            for holder in &holders {
                for (id, (n, weight)) in holder.held() {
                    assert!(weight > 0 && n.is_none_or(|n| holder.model[&n] == weight));
                    if n.is_some() {
                        assert_eq!(*ids.entry(n).or_insert(id), id, "seed {seed}");
                    }
                }
            }
        }
        for holder in &mut holders {
            let rest: Vec<(i64, i64)> = holder.model.iter().map(|(n, w)| (*n, -w)).collect();
            holder.rows.apply(&[batch(&rest)]).unwrap();
            holder.rows.sweep().unwrap();
            assert!(holder.rows.is_empty());
        }
        assert!(holders[0].rows.apply(&[batch(&[(1, -1)])]).is_err());
        assert_eq!(holders[1].rows.heap_size(), new().rows.heap_size(), "seed {seed}: rows are left in the pool");
    }
}

#[test]
fn rows_of_another_are_not_retracted() {
    let pools = RowPools::default();
    let name = |part| PoolName { rows: "t".into(), part };
    let mut one = pools.hold(name((0, 1)), &schema(), vec![0, 1]).unwrap();
    let mut other = pools.hold(name((0, 1)), &schema(), vec![0, 1]).unwrap();
    one.apply(&[batch(&[(1, 1), (2, 3)])]).unwrap();
    assert_eq!(other.apply(&[batch(&[(1, -1)])]).unwrap_err().kind(), ErrorKind::Diverged);
    drop(other);
    assert_eq!((one.len(), one.weight(1)), (2, 3));
    // One alone does not keep less.
    let bytes = one.heap_size();
    let mut again = pools.hold(name((0, 1)), &schema(), vec![0, 1]).unwrap();
    again.apply(&[batch(&[(1, 1), (2, 3)])]).unwrap();
    assert!(one.heap_size() + again.heap_size() < bytes + bytes / 4);
    // Another part of the keys is another pool.
    let mut part = pools.hold(name((1, 2)), &schema(), vec![1]).unwrap();
    assert_eq!(part.apply(&[batch(&[(5, 1)])]).unwrap().ids, [0]);
}

/// A few rows under a few keys, which they come to and leave all the time, as others' rows do.
fn holds_its_keys(mut rows: PooledRows, mut keys: PooledKeys, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let key_of = |n: i64| [n as u8 % 3];
    // Value → row and key; key → its id, of those that are needed.
    let mut held: BTreeMap<i64, (u32, u32)> = BTreeMap::new();
    let mut needed: BTreeMap<u8, u32> = BTreeMap::new();
    for _ in 0..4_000 {
        let n = rng.random_range(1..6);
        match held.remove(&n) {
            None => {
                let row = rows.apply(&[batch(&[(n, 1)])]).unwrap().ids[0];
                let key = key_of(n);
                let key = keys.lock_mut().unwrap().key_of_row(row, || Some(&key)).unwrap();
                keys.link(row);
                held.insert(n, (row, key));
            }
            Some((row, _)) => {
                rows.apply(&[batch(&[(n, -1)])]).unwrap();
                keys.unlink(row);
                rows.sweep().unwrap();
            }
        }
        let [key] = key_of(rng.random_range(0..3));
        match needed.remove(&key) {
            None => drop(needed.insert(key, keys.lock_mut().unwrap().need(&[key]).unwrap())),
            Some(id) => keys.release(id).unwrap(),
        }
        let mut keying = keys.lock_mut().unwrap();
        for (n, (_, id)) in &held {
            assert_eq!(keying.find(&key_of(*n)).unwrap(), *id, "seed {seed}");
        }
        for (key, id) in &needed {
            assert_eq!(keying.find(&[*key]).unwrap(), *id, "seed {seed}");
        }
        drop(keying);
        let keyed = keys.lock().unwrap();
        let linked = keyed.linked().unwrap();
        assert!(held.values().all(|(row, key)| linked.of(*key).any(|of| of == *row)), "seed {seed}");
        assert!(linked.iter().eq(held.values().copied().collect::<BTreeMap<_, _>>()), "seed {seed}");
    }
}

#[test]
fn keys_stay_while_other_threads_let_go_of_them() {
    let pools = RowPools::default();
    let name = || PoolName { rows: "t".into(), part: (0, 1) };
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let rows = pools.hold(name(), &schema(), vec![0, 1]).unwrap();
            let keys = PooledKeys::new(&rows, "n").unwrap();
            scope.spawn(move || holds_its_keys(rows, keys, seed));
        }
    });
}

#[test]
fn a_row_log_gives_back_what_was_appended() {
    for seed in 0..12 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut log = RowLog::new(&schema());
        let mut all: Vec<(i64, i64)> = Vec::new();
        let largest = [30, 3_000, 150_000][seed as usize % 3];
        for _ in 0..12 {
            let heavy = rng.random_bool(0.2);
            let one = |rng: &mut ChaCha8Rng| {
                (rng.random_range(1..1_000_000), if heavy { rng.random_range(1..300) } else { 1 })
            };
            let rows: Vec<(i64, i64)> = (0..rng.random_range(0..largest)).map(|_| one(&mut rng)).collect();
            // A slice of something larger, or some rows of it.
            let whole = batch(&rows);
            let from = rng.random_range(0..=rows.len());
            let (part, rows): (SelectedBatch, Vec<(i64, i64)>) = if rng.random_bool(0.5) {
                (whole.slice(from, rows.len() - from).into(), rows[from..].to_vec())
            } else {
                let picked: Vec<u32> = (0..rows.len() as u32).filter(|_| rng.random_bool(0.6)).collect();
                let rows = picked.iter().map(|at| rows[*at as usize]).collect();
                (SelectedBatch::new(whole, picked.into()), rows)
            };
            let applied = log.apply(&[part]).unwrap();
            assert_eq!(applied.ids, (all.len() as u32..(all.len() + rows.len()) as u32).collect::<Vec<_>>());
            all.extend(rows);
            assert_eq!(applied.net, applied.ids.iter().map(|id| (*id, all[*id as usize].1)).collect::<Vec<_>>());
            if rng.random_bool(0.3) {
                let mut out = StateWriter::new();
                log.save(&mut out).unwrap();
                log = RowLog::new(&schema());
                log.restore(&mut StateReader::new(out.finish(), 1)).unwrap();
            }
            assert_eq!(log.len(), all.len());
            // Any rows, and some that follow each other.
            let some = (0..50).filter(|_| !all.is_empty()).map(|_| rng.random_range(0..all.len()) as u32);
            let mut some: Vec<u32> = some.collect();
            if rng.random_bool(0.5) {
                some.push(NONE);
            }
            let start = rng.random_range(0..=all.len());
            let run: Vec<u32> = (start..all.len().min(start + rng.random_range(0..50))).map(|id| id as u32).collect();
            for ids in [some, run] {
                let columns = log.columns(&ids, &[1, 0]).unwrap();
                for (i, id) in ids.iter().enumerate() {
                    let expected = all.get(*id as usize).map(|row| batch(&[*row]));
                    let expected = expected.map_or_else(
                        || arrow::array::new_null_array(&DataType::Utf8, 1),
                        |b| Arc::clone(b.rows.column(1)),
                    );
                    assert_eq!(&columns[0].slice(i, 1), &expected, "seed {seed}");
                    assert_eq!(columns[1].is_null(i), *id == NONE || all[*id as usize].0 % 7 == 0);
                }
                ids.iter().filter(|id| **id != NONE).for_each(|id| assert_eq!(log.weight(*id), all[*id as usize].1));
            }
        }
        assert!(log.apply(&[batch(&[(1, 1), (1, -1)]).into()]).is_err());
    }
}

#[test]
fn what_is_not_there_cannot_be_retracted() {
    let mut store = RowStore::new(&schema()).unwrap();
    assert_eq!(store.apply(&[batch(&[(1, -1)])]).unwrap_err().kind(), ErrorKind::Diverged);
    let mut store = RowStore::new(&schema()).unwrap();
    assert_eq!(store.apply(&[batch(&[(1, 1), (1, -2)])]).unwrap_err().kind(), ErrorKind::Diverged);
}

#[test]
fn ids_of_removed_keys_are_reused() {
    let mut index = GroupIndex::new();
    let ids: Vec<u32> = ["a", "b", "", "a"].iter().map(|k| index.intern_one(k.as_bytes()).unwrap()).collect();
    assert_eq!(ids, [0, 1, 2, 0]);
    index.remove(1);
    assert_eq!((index.len(), index.find_one(b"b"), index.find_one(b"")), (2, NONE, 2));
    assert_eq!(index.intern_one(b"c").unwrap(), 1);
    assert_eq!(index.key(1), b"c");
}

#[test]
fn keys_keep_their_ids_whatever_their_lengths() {
    for seed in 0..60 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut index = GroupIndex::new();
        let mut ids: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        // Of one length for long, or for ever; the longest ones are freed in pieces that are worth closing.
        let (width, odd) = (rng.random_range(0..40), if seed % 2 == 0 { 0.0 } else { 0.01 });
        for _ in 0..2_000 {
            let n = rng.random_range(0..400u32);
            let mut key = n.to_le_bytes().repeat(width / 4 + 1);
            if rng.random_bool(odd) {
                key.truncate(rng.random_range(0..key.len()));
                key.extend(vec![7; if rng.random_bool(0.2) { 3_000 } else { 0 }]);
            }
            match ids.get(&key).copied() {
                Some(id) if rng.random_bool(0.5) => {
                    index.remove(id);
                    ids.remove(&key);
                }
                known => {
                    let id = index.intern_one(&key).unwrap();
                    assert!(known.is_none_or(|known| known == id), "seed {seed}");
                    ids.insert(key, id);
                }
            }
            if rng.random_bool(0.005) {
                let mut out = StateWriter::new();
                index.save(&mut out);
                index = GroupIndex::restore(&mut StateReader::new(out.finish(), 1)).unwrap();
            }
            assert_eq!(index.len(), ids.len());
        }
        for (key, id) in &ids {
            assert_eq!(index.find_one(key), *id, "seed {seed}");
            assert_eq!(index.key(*id), key, "seed {seed}");
        }
    }
}

#[test]
fn links_chain_the_rows_of_a_key() {
    let mut links = Links::new(false);
    for (row, key) in [(0, 5), (1, 5), (2, 6), (3, 5), (4, NONE)] {
        links.link(row, key);
    }
    links.unlink(1);
    links.unlink(4);
    assert_eq!(links.rows(5).collect::<Vec<_>>(), [3, 0]);
    assert!(links.contains(0) && !links.contains(1) && !links.contains(4) && !links.contains(99));
    links.unlink(3);
    links.unlink(0);
    assert_eq!(links.head(5), NONE);
    assert_eq!(links.rows(6).collect::<Vec<_>>(), [2]);
    assert_eq!(links.head(77), NONE);
}

#[test]
fn a_multiset_orders_its_values_small_and_large() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut set = Multiset::default();
    let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for round in 0..5000 {
        let growing = round / 500 % 2 == 0;
        let value = vec![rng.random_range(0..60u8), 1];
        let weight = if growing == rng.random_bool(0.9) { 1 } else { -model.get(&value).copied().unwrap_or(0).min(1) };
        if weight == 0 {
            continue;
        }
        let presence = set.add(&value, weight);
        let entry = model.entry(value.clone()).or_default();
        let old = *entry;
        *entry += weight;
        let now = *entry;
        model.retain(|_, w| *w != 0);
        assert_eq!(
            presence,
            match (old, now) {
                (0, _) => Presence::Appeared,
                (_, 0) => Presence::Vanished,
                (_, now) => Presence::Stays(now),
            }
        );
        assert_eq!(set.first(), model.first_key_value().map(|(v, _)| &v[..]));
        assert_eq!(set.last(), model.last_key_value().map(|(v, _)| &v[..]));
        assert_eq!(set.len(), model.len());
    }
    assert!(set.iter().eq(model.iter().map(|(v, w)| (&v[..], *w))));
}

#[test]
fn zeros_and_nans_are_one_value_each() {
    let codec = RowCodec::new([DataType::Float64]).unwrap();
    let odd_nan = f64::from_bits(0xfff8_0000_0000_0001);
    let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, odd_nan]));
    let rows = codec.encode(&[column], 4).unwrap();
    assert_eq!(rows.row(0), rows.row(1));
    assert_eq!(rows.row(2), rows.row(3));
    let back = codec.decode([rows.row(1), rows.row(3)]).unwrap();
    let back = back[0].as_any().downcast_ref::<Float64Array>().unwrap();
    assert_eq!((back.value(0).to_bits(), back.value(1).to_bits()), (0, f64::NAN.to_bits()));
}

#[test]
fn rows_of_no_columns_are_all_equal() {
    let codec = RowCodec::new([]).unwrap();
    let rows = codec.encode(&[], 3).unwrap();
    assert_eq!((rows.len(), rows.row(0), rows.row(2)), (3, &[][..], &[][..]));
}
