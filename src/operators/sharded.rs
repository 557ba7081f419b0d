//! A stateful operator as several of its kind, each with a part of the keys.
//!
//! Rows go to a shard by a hash of columns that its key contains, so what belongs together meets in one. Shards know nothing of each other:
//! a large epoch steps them in threads of their own, a small one one after the other. Their outputs are never of the same key.
//!
//! Where memory is bounded there are more of them: one after the other is brought to memory and stepped, and those that there is no room for
//! are spilled to local disk ([`Spilled`]). Beside what fits, one shard is in memory.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt64Array};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{DiskManager, SessionState};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::StateMemory;
use super::spill::Spilled;
use crate::error::{Error, Result};
use crate::plan::incremental::Routes;
use crate::state::{StateReader, StateWriter, dealt_out, in_threads};
use crate::types::SignedBatch;

/// Rows of an epoch from which on threads are worth starting. Tests start them for a few.
const LARGE: usize = if cfg!(test) { 24 } else { 1 << 13 };
/// The section that says how many shards follow; one alone stands without it.
const SECTION: &str = "shards";

/// One of several operators of a kind.
pub(super) trait Shard: Send {
    /// The change of the output for the changes of all inputs. `first`: it is the circuit's first step.
    fn step(&mut self, inputs: Vec<Vec<SignedBatch>>, first: bool) -> Result<Vec<SignedBatch>>;
    fn save(&self, out: &mut StateWriter) -> Result<()>;
    fn restore(&mut self, from: &mut StateReader) -> Result<()>;
    fn state_rows(&self) -> usize;
    fn state_bytes(&self) -> usize;
}

/// One shard's place: its number, and of how many.
pub(super) type Part = (usize, usize);

/// Makes one without state.
type Make<T> = Box<dyn Fn(Part) -> Result<T> + Send + Sync>;

/// Where the state of a shard is.
enum Slot<T> {
    Here(T),
    Away(Spilled),
}

impl<T> Slot<T> {
    fn here(&self) -> Option<&T> {
        match self {
            Slot::Here(shard) => Some(shard),
            Slot::Away(_) => None,
        }
    }
}

/// What shards may use.
pub(super) struct Means {
    /// Threads of a large epoch.
    pub threads: usize,
    /// Where state goes that memory has no room for; None where memory is not bounded.
    pub disk: Option<Arc<DiskManager>>,
}

/// Shards where memory is bounded: what is brought back to memory at once is a part of that size.
const SPILLED: usize = 16;

impl Means {
    pub fn of(session: &SessionState) -> Self {
        let runtime = session.runtime_env();
        let bounded = matches!(runtime.memory_pool.memory_limit(), MemoryLimit::Finite(_));
        Means {
            threads: session.config().target_partitions(),
            disk: bounded.then(|| Arc::clone(&runtime.disk_manager)),
        }
    }
}

pub(super) struct Sharded<T> {
    shards: Vec<Slot<T>>,
    /// None: there is one shard, whatever is asked for.
    routes: Option<Routes>,
    means: Means,
    make: Make<T>,
}

impl<T: Shard> Sharded<T> {
    /// As many as there are means for, if its rows can be dealt out.
    pub fn new(
        means: Means,
        routes: Option<Routes>,
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::in_parts(means, routes, move |_| make())
    }

    /// The same, of shards that ask which part of the rows they have.
    pub fn in_parts(
        means: Means,
        routes: Option<Routes>,
        make: impl Fn(Part) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let count = match (&routes, &means.disk) {
            (None, _) => 1,
            (Some(_), None) => means.threads.max(1),
            (Some(_), Some(_)) => SPILLED,
        };
        let shards = (0..count).map(|number| Ok(Slot::Here(make((number, count))?))).collect::<Result<_>>()?;
        Ok(Sharded { shards, routes, means, make: Box::new(make) })
    }

    /// `memory` is that of all shards.
    pub fn step(
        &mut self,
        mut inputs: Vec<Vec<SignedBatch>>,
        first: bool,
        memory: &mut StateMemory,
    ) -> Result<Vec<SignedBatch>> {
        inputs.iter_mut().for_each(|batches| batches.retain(|batch| !batch.is_empty()));
        let rows: usize = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
        let (Some(Routes(routes)), 2..) = (&self.routes, self.shards.len()) else {
            return match self.shards.first_mut() {
                Some(Slot::Here(only)) => {
                    let output = only.step(inputs, first)?;
                    memory.resize(only.state_bytes())?;
                    Ok(output)
                }
                _ => Err(Error::internal("an operator without shards")),
            };
        };
        if rows == 0 && !first {
            return Ok(vec![]);
        }
        let count = self.shards.len() as u32;
        let mut dealt: Vec<Vec<Dealt>> = Vec::with_capacity(inputs.len());
        for (batches, columns) in inputs.iter().zip(routes) {
            dealt.push(batches.iter().map(|batch| Dealt::new(batch, columns, count)).collect::<Result<_>>()?);
        }
        let own = |number: usize| -> Result<Vec<Vec<SignedBatch>>> {
            let mut own = Vec::with_capacity(inputs.len());
            for (batches, dealt) in inputs.iter().zip(&dealt) {
                let part = batches.iter().zip(dealt).map(|(batch, dealt)| dealt.part(batch, number));
                own.push(part.filter_map(Result::transpose).collect::<Result<_>>()?);
            }
            Ok(own)
        };
        if self.means.disk.is_none() && rows >= LARGE {
            let step = |(number, shard): (usize, &mut Slot<T>)| match shard {
                Slot::Here(shard) => shard.step(own(number)?, first),
                Slot::Away(_) => Err(Error::internal("state was spilled though memory is not bounded")),
            };
            // Stored state can have more shards than there are threads.
            let lots = dealt_out(self.shards.iter_mut().enumerate(), self.means.threads);
            let work = |lot: Vec<_>| lot.into_iter().map(step).collect::<Result<Vec<_>>>();
            let outputs = in_threads(lots, work)?.into_iter().collect::<Result<Vec<_>>>()?;
            memory.resize(self.state_bytes())?;
            return Ok(outputs.concat().concat());
        }
        let mut output = Vec::new();
        let mut last = None;
        for number in 0..self.shards.len() {
            let own = own(number)?;
            if first || own.iter().any(|batches| !batches.is_empty()) {
                output.extend(self.bring_back(number)?.step(own, first)?);
                self.make_room(number, last, memory)?;
                last = Some(number);
            }
        }
        Ok(output)
    }

    /// The shard of what cannot be dealt out.
    pub fn only(&self) -> Option<&T> {
        match self.shards.as_slice() {
            [Slot::Here(shard)] => Some(shard),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn only_mut(&mut self) -> Option<&mut T> {
        match self.shards.as_mut_slice() {
            [Slot::Here(shard)] => Some(shard),
            _ => None,
        }
    }

    /// Does `with` to every shard, one after the other.
    pub fn each(&mut self, memory: &mut StateMemory, mut with: impl FnMut(&mut T) -> Result<()>) -> Result<()> {
        for number in 0..self.shards.len() {
            with(self.bring_back(number)?)?;
            self.make_room(number, number.checked_sub(1), memory)?;
        }
        Ok(())
    }

    /// Does `with` to every shard that gets some of `rows`, which are of the only input.
    pub fn each_with(
        &mut self,
        rows: &[SignedBatch],
        memory: &mut StateMemory,
        mut with: impl FnMut(&mut T, Vec<SignedBatch>) -> Result<()>,
    ) -> Result<()> {
        let count = self.shards.len() as u32;
        let dealt = match &self.routes {
            Some(Routes(routes)) if count > 1 => {
                let columns = routes.first().map_or(&[][..], Vec::as_slice);
                rows.iter().map(|batch| Dealt::new(batch, columns, count)).collect::<Result<Vec<_>>>()?
            }
            _ => rows.iter().map(|batch| Dealt::by(&vec![0; batch.num_rows()], 1)).collect(),
        };
        let mut last = None;
        for number in 0..self.shards.len() {
            let part = rows.iter().zip(&dealt).map(|(batch, dealt)| dealt.part(batch, number));
            let own = part.filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
            if !own.is_empty() {
                with(self.bring_back(number)?, own)?;
                self.make_room(number, last, memory)?;
                last = Some(number);
            }
        }
        Ok(())
    }

    fn bring_back(&mut self, number: usize) -> Result<&mut T> {
        let count = self.shards.len();
        let slot = &mut self.shards[number];
        if let Slot::Away(spilled) = slot {
            let mut shard = (self.make)((number, count))?;
            spilled.read(&mut shard)?;
            *slot = Slot::Here(shard);
        }
        match slot {
            Slot::Here(shard) => Ok(shard),
            Slot::Away(_) => Err(Error::internal("state was not brought back")),
        }
    }

    /// Spills shards until the others fit. An epoch that goes through all of them finds most there the next time if those go that were
    /// stepped last: first the one before `number`, which was.
    fn make_room(&mut self, number: usize, last: Option<usize>, memory: &mut StateMemory) -> Result<()> {
        let mut victims =
            last.into_iter().chain((0..self.shards.len()).rev().filter(|at| *at != number)).chain([number]);
        loop {
            let Err(error) = memory.resize(self.state_bytes()) else { return Ok(()) };
            let Some(disk) = self.means.disk.as_ref().filter(|_| self.routes.is_some()) else { return Err(error) };
            let held = |at: &usize| self.shards[*at].here().is_some_and(|shard| shard.state_bytes() > 0);
            let Some(victim) = victims.find(held) else { return Err(error) };
            if let Slot::Here(shard) = &self.shards[victim] {
                self.shards[victim] = Slot::Away(Spilled::write(shard, disk)?);
            }
        }
    }

    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        if self.shards.len() > 1 {
            out.words(SECTION, [self.shards.len() as u32]);
        }
        let count = self.shards.len();
        self.shards.iter().enumerate().try_for_each(|(number, slot)| match slot {
            Slot::Here(shard) => shard.save(out),
            Slot::Away(spilled) => {
                let mut shard = (self.make)((number, count))?;
                spilled.read(&mut shard)?;
                shard.save(out)
            }
        })
    }

    /// As many shards as were saved, whatever there would be otherwise.
    pub fn restore(&mut self, from: &mut StateReader, memory: &mut StateMemory) -> Result<()> {
        let count = if from.is_next(SECTION) { *from.exactly::<u32>(SECTION, 1)?.first().unwrap_or(&1) } else { 1 };
        if self.routes.is_none() && count != 1 {
            return Err(Error::internal("stored state has more shards than its operator can have"));
        }
        self.shards.clear();
        for number in 0..count as usize {
            let mut shard = (self.make)((number, count as usize))?;
            shard.restore(from)?;
            self.shards.push(Slot::Here(shard));
            self.make_room(number, number.checked_sub(1), memory)?;
        }
        Ok(())
    }

    /// Rows, groups and values, spilled ones included.
    pub fn state_rows(&self) -> usize {
        let rows = |slot: &Slot<T>| match slot {
            Slot::Here(shard) => shard.state_rows(),
            Slot::Away(spilled) => spilled.rows,
        };
        self.shards.iter().map(rows).sum()
    }

    /// Bytes in memory.
    pub fn state_bytes(&self) -> usize {
        self.shards.iter().filter_map(Slot::here).map(T::state_bytes).sum()
    }
}

/// The rows of a batch, by shard.
struct Dealt {
    rows: UInt64Array,
    /// Where those of each shard begin among `rows`, and their end.
    starts: Vec<usize>,
}

impl Dealt {
    /// Dealt out to `count` shards by `columns`.
    fn new(batch: &SignedBatch, columns: &[usize], count: u32) -> Result<Self> {
        Ok(Self::by(&shards_of(batch, columns, count)?, count))
    }

    /// By the shard of each row.
    fn by(shards: &[u32], count: u32) -> Self {
        let mut starts = vec![0; count as usize + 1];
        shards.iter().for_each(|shard| starts[*shard as usize + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let (mut rows, mut next) = (vec![0u64; shards.len()], starts.clone());
        for (shard, row) in shards.iter().zip(0..) {
            let place = &mut next[*shard as usize];
            rows[*place] = row;
            *place += 1;
        }
        Dealt { rows: rows.into(), starts }
    }

    /// The rows of `batch` that shard `number` gets.
    fn part(&self, batch: &SignedBatch, number: usize) -> Result<Option<SignedBatch>> {
        let (start, end) = (self.starts[number], self.starts[number + 1]);
        match end - start {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch.clone())),
            some => Ok(Some(batch.take(&self.rows.slice(start, some))?)),
        }
    }
}

/// The shard of every row.
fn shards_of(batch: &SignedBatch, columns: &[usize], count: u32) -> Result<Vec<u32>> {
    let mut hashes = vec![0u64; batch.num_rows()];
    columns.iter().try_for_each(|column| add_hashes(batch.rows.column(*column), &mut hashes))?;
    // The upper bits of a product depend on all bits.
    Ok(hashes.into_iter().map(|hash| (((hash >> 32) * u64::from(count)) >> 32) as u32).collect())
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
