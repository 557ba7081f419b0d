//! Which rows each shard gets: of a change, and of what one shard kept so far.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt32Array};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::operators::linear::cut;
use crate::plan::incremental::Routes;
use crate::state::{Relation, dealt_out, in_threads};
use crate::types::{SelectedBatch, SignedBatch};

/// A change, and by input and batch whose its rows are; None: everybody's.
pub(super) struct Deal {
    inputs: Vec<Vec<(SignedBatch, Option<Dealt>)>>,
}

impl Deal {
    /// Deals rows out to `count` shards by the columns of `routes`; so many threads do it.
    pub fn new(inputs: Vec<Vec<SignedBatch>>, routes: &Routes, count: usize, threads: usize) -> Result<Self> {
        let with_columns = inputs.into_iter().zip(&routes.0).enumerate();
        let batches = with_columns.flat_map(|(input, (batches, columns))| {
            cut(batches).into_iter().map(move |batch| (input, batch, columns.as_slice()))
        });
        let deal = |lot: Vec<(usize, SignedBatch, &[usize])>| {
            let one = |(input, batch, columns): (usize, SignedBatch, &[usize])| {
                let dealt = (!columns.is_empty()).then(|| Dealt::new(&batch, columns, count as u32)).transpose()?;
                Ok((input, batch, dealt))
            };
            lot.into_iter().map(one).collect::<Result<Vec<_>>>()
        };
        let mut dealt = match threads {
            0 | 1 => vec![deal(batches.collect())?.into_iter()],
            _ => {
                let lots = in_threads(dealt_out(batches, threads), deal)?.into_iter();
                lots.map(|lot| Ok(lot?.into_iter())).collect::<Result<Vec<_>>>()?
            }
        };
        let mut inputs: Vec<Vec<(SignedBatch, Option<Dealt>)>> = routes.0.iter().map(|_| Vec::new()).collect();
        // In turn, as they were dealt out to threads: batches stay in order.
        let (mut turn, lots) = (0, dealt.len());
        while let Some((input, batch, dealt)) = dealt.get_mut(turn % lots.max(1)).and_then(Iterator::next) {
            inputs[input].push((batch, dealt));
            turn += 1;
        }
        Ok(Deal { inputs })
    }

    /// What shard `number` gets, by input.
    pub fn part(&self, number: usize) -> Vec<Vec<SelectedBatch>> {
        let part = |(batch, dealt): &(SignedBatch, Option<Dealt>)| match dealt {
            Some(dealt) => dealt.part(batch, number),
            None => Some(batch.clone().into()),
        };
        let of_input = |batches: &Vec<_>| batches.iter().filter_map(part).collect();
        self.inputs.iter().map(of_input).collect()
    }
}

/// Rows that were kept together, as ids by shard.
pub(super) struct Parted {
    /// None: all of them, whatever the shard.
    by_shard: Option<Vec<Vec<u32>>>,
    all: Vec<u32>,
}

/// Rows whose columns are looked at at once.
const LOT: usize = 1 << 16;

impl Parted {
    /// `rows` dealt out to `count` shards by `columns`, if there are any.
    pub fn new(rows: &Relation, columns: &[usize], count: usize) -> Result<Self> {
        let all = rows.ids();
        if columns.is_empty() {
            return Ok(Parted { by_shard: None, all });
        }
        let mut by_shard = vec![Vec::new(); count];
        for lot in all.chunks(LOT) {
            let Dealt { rows, starts } = Dealt::new(&rows.rows(lot)?, columns, count as u32)?;
            for (ids, place) in by_shard.iter_mut().zip(starts.windows(2)) {
                ids.extend(rows.values()[place[0]..place[1]].iter().map(|row| lot[*row as usize]));
            }
        }
        Ok(Parted { by_shard: Some(by_shard), all: vec![] })
    }

    /// Ids of the rows of shard `number`.
    pub fn part(&self, number: usize) -> &[u32] {
        self.by_shard.as_ref().map_or(&self.all, |by_shard| &by_shard[number])
    }
}

/// The rows of a batch, by shard.
struct Dealt {
    rows: UInt32Array,
    /// Where those of each shard begin among `rows`, and their end.
    starts: Vec<usize>,
}

impl Dealt {
    /// Dealt out to `count` shards by `columns`.
    fn new(batch: &SignedBatch, columns: &[usize], count: u32) -> Result<Self> {
        let mut hashes = vec![0u64; batch.num_rows()];
        columns.iter().try_for_each(|column| add_hashes(batch.rows.column(*column), &mut hashes))?;
        // The upper bits of a product depend on all bits.
        let shard = |hash: &u64| (((hash >> 32) * u64::from(count)) >> 32) as usize;
        let mut starts = vec![0; count as usize + 1];
        hashes.iter().for_each(|hash| starts[shard(hash) + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let (mut rows, mut next) = (vec![0u32; hashes.len()], starts.clone());
        for (hash, row) in hashes.iter().zip(0..) {
            let place = &mut next[shard(hash)];
            rows[*place] = row;
            *place += 1;
        }
        Ok(Dealt { rows: rows.into(), starts })
    }

    /// The rows of `batch` that shard `number` gets.
    fn part(&self, batch: &SignedBatch, number: usize) -> Option<SelectedBatch> {
        let (start, end) = (self.starts[number], self.starts[number + 1]);
        match end - start {
            0 => None,
            all if all == batch.num_rows() => Some(batch.clone().into()),
            some => Some(SelectedBatch::new(batch.clone(), self.rows.slice(start, some))),
        }
    }
}

#[inline]
fn mixed(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The same in every process and on every machine: stored state depends on it.
fn add_hashes(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    fn add<P: ArrowPrimitiveType>(values: &PrimitiveArray<P>, hashes: &mut [u64]) {
        let bits = |value: P::Native| value.to_isize().map_or(0, |value| value as u64);
        match values.nulls() {
            None => values.values().iter().zip(hashes).for_each(|(value, hash)| *hash = mixed(*hash, bits(*value))),
            Some(_) => {
                let value = |i: usize| if values.is_null(i) { 1 } else { bits(values.value(i)) };
                hashes.iter_mut().enumerate().for_each(|(i, hash)| *hash = mixed(*hash, value(i)));
            }
        }
    }
    let bytes = |value: Option<&[u8]>| value.map_or(1, xxh3_64);
    match column.data_type() {
        DataType::Int64 => add(column.as_primitive::<Int64Type>(), hashes),
        DataType::Int32 => add(column.as_primitive::<Int32Type>(), hashes),
        DataType::Int16 => add(column.as_primitive::<Int16Type>(), hashes),
        DataType::Int8 => add(column.as_primitive::<Int8Type>(), hashes),
        DataType::UInt64 => add(column.as_primitive::<UInt64Type>(), hashes),
        DataType::UInt32 => add(column.as_primitive::<UInt32Type>(), hashes),
        DataType::UInt16 => add(column.as_primitive::<UInt16Type>(), hashes),
        DataType::UInt8 => add(column.as_primitive::<UInt8Type>(), hashes),
        DataType::Date32 => add(column.as_primitive::<Date32Type>(), hashes),
        DataType::Timestamp(TimeUnit::Second, _) => add(column.as_primitive::<TimestampSecondType>(), hashes),
        DataType::Timestamp(TimeUnit::Millisecond, _) => add(column.as_primitive::<TimestampMillisecondType>(), hashes),
        DataType::Timestamp(TimeUnit::Microsecond, _) => add(column.as_primitive::<TimestampMicrosecondType>(), hashes),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => add(column.as_primitive::<TimestampNanosecondType>(), hashes),
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            let value = |i: usize| bytes(values.is_valid(i).then(|| values.value(i).as_bytes()));
            hashes.iter_mut().enumerate().for_each(|(i, hash)| *hash = mixed(*hash, value(i)));
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            let value = |i: usize| bytes(values.is_valid(i).then(|| values.value(i)));
            hashes.iter_mut().enumerate().for_each(|(i, hash)| *hash = mixed(*hash, value(i)));
        }
        other => return Err(Error::internal(format!("rows are dealt out by a column of type {other}"))),
    }
    Ok(())
}
