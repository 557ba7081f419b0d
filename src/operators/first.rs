//! `row_number() over (partition by … order by …) = 1`.

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::SchemaRef;
use arrow::row::SortField;
use hashbrown::HashTable;
use std::collections::HashMap;

use super::eval::{self, Exprs};
use super::forgets::{Forgetting, Stays, kept};
use super::sharded::{Shard, materialized};
use crate::error::{Error, Result};
use crate::state::{Encoded, GroupIndex, Multiset, Presence, RowCodec, StateReader, StateWriter, canonical};
use crate::types::{SelectedBatch, SignedBatch};

/// The first row of each partition. `order` is followed by all columns, so it is total up to equal rows, of which one is
/// given out.
pub(super) struct First {
    partition: Exprs,
    order: Exprs,
    /// Of the partition's key.
    key_codec: RowCodec,
    /// Of the order's values, each with its direction, then all columns: the smallest bytes are the first row.
    row_codec: RowCodec,
    schema: SchemaRef,
    state: State,
}

enum State {
    Rows(Box<Partitions>),
    /// Over a stream: identities of the keys seen. What was given out stays.
    Seen(HashTable<u128>),
}

/// All rows of each partition, in order.
#[derive(Default)]
struct Partitions {
    keys: GroupIndex,
    rows: Vec<Multiset>,
    /// How many there are, and their bytes.
    count: usize,
    bytes: usize,
}

impl Partitions {
    fn of(keys: GroupIndex, rows: Vec<Multiset>) -> Self {
        let (count, bytes) = (rows.iter().map(Multiset::len).sum(), rows.iter().map(Multiset::heap_size).sum());
        Partitions { keys, rows, count, bytes }
    }
}

impl First {
    pub fn new(
        partition: Exprs,
        order: Exprs,
        options: &[SortOptions],
        schema: SchemaRef,
        streamed: bool,
    ) -> Result<Self> {
        let ordered = order.types.iter().zip(options).map(|(t, o)| SortField::new_with_options(t.clone(), *o));
        let columns = schema.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        Ok(First {
            key_codec: RowCodec::new(partition.types.iter().cloned())?,
            row_codec: RowCodec::ordered(ordered.chain(columns).collect())?,
            partition,
            order,
            schema,
            state: if streamed { State::Seen(HashTable::new()) } else { State::Rows(Box::default()) },
        })
    }

    /// Keys and rows of each batch, encoded.
    fn encode(&self, input: &[SignedBatch]) -> Result<Vec<(Encoded, Encoded)>> {
        let one = |batch: &SignedBatch| {
            let keys = self.key_codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
            let mut columns = self.order.evaluate(&batch.rows)?;
            columns.extend_from_slice(batch.rows.columns());
            Ok((keys, self.row_codec.encode(&columns, batch.num_rows())?))
        };
        input.iter().map(one).collect()
    }

    /// What the state alone knows, from its bytes.
    fn remembered(&self, changes: &Changes) -> Result<SignedBatch> {
        let weights = changes.old.iter().map(|_| -1).chain(changes.risen.iter().map(|_| 1));
        let weights: Int64Array = weights.collect::<Vec<i64>>().into();
        let rows = changes.old.iter().chain(&changes.risen).map(|r| &**r);
        let columns: Vec<ArrayRef> = self.row_codec.decode(rows)?.split_off(self.order.types.len());
        SignedBatch::new(eval::rows(&self.schema, columns, weights.len())?, weights)
    }
}

impl Forgetting for First {
    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()> {
        let encoded = self.encode(rows)?;
        match &mut self.state {
            State::Rows(partitions) => maintain(partitions, rows, &encoded).map(|_| ()),
            State::Seen(_) => Err(Error::internal("the keys of a stream are not forgotten")),
        }
    }

    fn forget(&mut self, stays: &Stays<'_>) -> Result<()> {
        let State::Rows(partitions) = &mut self.state else { return Ok(()) };
        let decode = |ids: &[u32]| self.key_codec.decode(ids.iter().map(|id| partitions.keys.key(*id)));
        if let Some(kept) = kept(&partitions.keys, decode, stays)? {
            let rows = kept.iter().map(|id| std::mem::take(&mut partitions.rows[*id as usize])).collect();
            **partitions = Partitions::of(partitions.keys.picked(&kept)?, rows);
        }
        Ok(())
    }
}

impl Shard for First {
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, _: bool) -> Result<Vec<SignedBatch>> {
        let input = materialized(inputs.pop())?;
        let encoded = self.encode(&input)?;
        let changes = match &mut self.state {
            State::Seen(seen) => first_seen(seen, &input, &encoded)?,
            State::Rows(partitions) => maintain(partitions, &input, &encoded)?,
        };
        let mut output = Vec::new();
        if !(changes.old.is_empty() && changes.risen.is_empty()) {
            output.push(self.remembered(&changes)?);
        }
        if !changes.arrived.is_empty() {
            let columns = gather(&input, &changes.arrived)?;
            output.push(SignedBatch::inserts(eval::rows(&self.schema, columns, changes.arrived.len())?));
        }
        Ok(output)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        match &mut self.state {
            State::Rows(partitions) => {
                partitions.keys.save(out);
                out.words("partitions", [partitions.rows.len() as u64]);
                out.multisets("partitions", &partitions.rows);
            }
            State::Seen(seen) => out.words("seen", seen.iter().copied()),
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        match &mut self.state {
            State::Rows(partitions) => {
                let keys = GroupIndex::restore(from)?;
                let count = *from.exactly::<u64>("partitions", 1)?.first().unwrap_or(&0);
                **partitions = Partitions::of(keys, from.multisets("partitions", count as usize)?);
            }
            State::Seen(seen) => {
                let keys = from.words::<u128>("seen")?;
                *seen = HashTable::with_capacity(keys.len());
                for key in keys {
                    seen.insert_unique(key as u64, key, |k| *k as u64);
                }
            }
        }
        Ok(())
    }

    fn state_rows(&self) -> usize {
        match &self.state {
            State::Rows(partitions) => partitions.count,
            State::Seen(seen) => seen.len(),
        }
    }

    fn state_bytes(&self) -> usize {
        match &self.state {
            State::Rows(partitions) => {
                let sets = partitions.rows.capacity() * size_of::<Multiset>();
                partitions.keys.heap_size() + sets + partitions.bytes
            }
            State::Seen(seen) => seen.allocation_size(),
        }
    }
}

/// Bytes of rows, as [`First`] encodes them.
type RowBytes = Vec<Box<[u8]>>;

/// A row of the epoch's input: batch and row.
type Place = (usize, usize);

/// The first rows an epoch changes.
#[derive(Default)]
struct Changes {
    /// Were first, and are no more.
    old: RowBytes,
    /// Are first now, and were there before the epoch.
    risen: RowBytes,
    /// Are first now, and came with the epoch: their columns are at hand.
    arrived: Vec<Place>,
}

/// A partition the epoch touches.
struct Touched {
    id: u32,
    /// Its first row before.
    before: Option<Box<[u8]>>,
    /// The first of the rows the epoch adds.
    added: Option<Place>,
}

fn maintain(all: &mut Partitions, input: &[SignedBatch], encoded: &[(Encoded, Encoded)]) -> Result<Changes> {
    let Partitions { keys, rows: partitions, count: rows, bytes } = all;
    // In order of first touch, so that output does not depend on hashes.
    let mut touched: Vec<Touched> = Vec::new();
    let mut position: HashMap<u32, usize> = HashMap::new();
    // Insertions first: what comes and goes within an epoch may stand in any order.
    for retracting in [false, true] {
        for (number, (batch, (batch_keys, batch_rows))) in input.iter().zip(encoded).enumerate() {
            if retracting && !batch.has_retractions() {
                continue;
            }
            for i in 0..batch.num_rows() {
                let weight = batch.weight(i);
                if (weight < 0) != retracting {
                    continue;
                }
                let id = keys.intern_one(batch_keys.row(i))?;
                if id as usize >= partitions.len() {
                    partitions.resize_with(id as usize + 1, Multiset::default);
                }
                let partition = &mut partitions[id as usize];
                let at = *position.entry(id).or_insert_with(|| {
                    touched.push(Touched { id, before: partition.first().map(Box::from), added: None });
                    touched.len() - 1
                });
                let row = batch_rows.row(i);
                let added = &mut touched[at].added;
                if !retracting && added.is_none_or(|(b, r)| *row < *encoded[b].1.row(r)) {
                    *added = Some((number, i));
                }
                *bytes -= partition.heap_size();
                let presence = partition.add(row, weight);
                *bytes += partition.heap_size();
                match presence {
                    Presence::Appeared if weight > 0 => *rows += 1,
                    Presence::Vanished => *rows -= 1,
                    Presence::Stays(left) if left > 0 => {}
                    _ => return Err(Error::diverged("row_number: a row is retracted that is not there")),
                }
            }
        }
    }
    let mut changes = Changes::default();
    for Touched { id, before, added } in touched {
        let after = partitions[id as usize].first();
        if before.as_deref() != after {
            changes.old.extend(before);
            match (after, added) {
                (Some(after), Some((b, r))) if *encoded[b].1.row(r) == *after => changes.arrived.push((b, r)),
                (after, _) => changes.risen.extend(after.map(Box::from)),
            }
        }
        if partitions[id as usize].is_empty() {
            keys.remove(id);
        }
    }
    Ok(changes)
}

/// The first rows of keys not seen before; within the epoch the first in order.
fn first_seen(seen: &mut HashTable<u128>, input: &[SignedBatch], encoded: &[(Encoded, Encoded)]) -> Result<Changes> {
    let mut best: Vec<Place> = Vec::new();
    let mut position: HashMap<u128, usize> = HashMap::new();
    for (number, (batch, (keys, rows))) in input.iter().zip(encoded).enumerate() {
        if batch.has_retractions() {
            return Err(Error::diverged("the first row per key of a stream was retracted"));
        }
        for i in 0..batch.num_rows() {
            let key = keys.identity(i);
            if seen.find(key as u64, |k| *k == key).is_some() {
                continue;
            }
            match position.get(&key) {
                Some(at) => {
                    let (b, r) = best[*at];
                    if *rows.row(i) < *encoded[b].1.row(r) {
                        best[*at] = (number, i);
                    }
                }
                None => {
                    position.insert(key, best.len());
                    best.push((number, i));
                }
            }
        }
    }
    for key in position.into_keys() {
        seen.insert_unique(key as u64, key, |k| *k as u64);
    }
    Ok(Changes { arrived: best, ..Changes::default() })
}

/// All columns of some of the input's rows, as the state would give them back.
fn gather(input: &[SignedBatch], places: &[Place]) -> Result<Vec<ArrayRef>> {
    let columns = input.first().map_or(0, |batch| batch.rows.num_columns());
    let one = |column: usize| -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = input.iter().map(|batch| batch.rows.column(column).as_ref()).collect();
        canonical(&interleave(&arrays, places)?)
    };
    (0..columns).map(one).collect()
}
