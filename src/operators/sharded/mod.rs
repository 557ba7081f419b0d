//! A stateful operator as several of its kind, each with a part of the keys.
//!
//! Rows go to a shard by a hash of columns that its key contains, so what belongs together meets in one. Shards know nothing of each other:
//! a large epoch steps them in threads of their own, a small one one after the other. Their outputs are never of the same key.
//!
//! Where memory is bounded there are more of them: one after the other is brought to memory and stepped, and those that there is no room for
//! are spilled to local disk ([`Place`]). Beside what fits, one shard is in memory.
//!
//! Where some inputs would be copied to every shard ([`Routes::copies`]), there is one as long as memory has room for it; then what it has kept is dealt out.

mod deal;

use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{DiskManager, SessionState};
use std::sync::Arc;

use self::deal::{Deal, Parted};
use super::spill::Place;
use crate::error::{Error, Result};
use crate::plan::incremental::Routes;
use crate::state::{Relation, StateMemory, StateReader, StateWriter, dealt_out, in_threads};
use crate::types::{SelectedBatch, SignedBatch};

/// Rows of an epoch from which on threads are worth starting. Tests start them for a few.
const LARGE: usize = if cfg!(test) { 24 } else { 1 << 13 };
/// The section that says how many shards follow; one alone stands without it.
const SECTION: &str = "shards";

/// One of several operators of a kind.
pub(super) trait Shard: Send {
    /// The change of the output for the changes of all inputs. `first`: it is the circuit's first step.
    fn step(&mut self, inputs: Vec<Vec<SelectedBatch>>, first: bool) -> Result<Vec<SignedBatch>>;
    /// Writes its state, which may change afterwards: what is shared is copied then.
    fn save(&mut self, out: &mut StateWriter) -> Result<()>;
    fn restore(&mut self, from: &mut StateReader) -> Result<()>;
    /// The rows that it keeps of every input, if what it keeps follows from them.
    fn kept(&self) -> Vec<&Relation> {
        vec![]
    }
    fn state_rows(&self) -> usize;
    fn state_bytes(&self) -> usize;
}

/// The rows of an input, side by side.
pub(super) fn materialized(input: Option<Vec<SelectedBatch>>) -> Result<Vec<SignedBatch>> {
    input.iter().flatten().map(SelectedBatch::materialize).collect()
}

/// One shard's place: its number, and of how many.
pub(super) type Part = (usize, usize);

/// Makes one without state.
type Make<T> = Box<dyn Fn(Part) -> Result<T> + Send + Sync>;

/// Where the state of a shard is.
enum State<T> {
    Here(T),
    /// In its slot's place on disk.
    Away {
        rows: usize,
    },
}

struct Slot<T> {
    state: State<T>,
    /// Where the shard has been away.
    place: Option<Place>,
}

impl<T: Shard> Slot<T> {
    fn new(shard: T) -> Self {
        Slot { state: State::Here(shard), place: None }
    }

    fn here(&self) -> Option<&T> {
        match &self.state {
            State::Here(shard) => Some(shard),
            State::Away { .. } => None,
        }
    }

    fn here_mut(&mut self) -> Option<&mut T> {
        match &mut self.state {
            State::Here(shard) => Some(shard),
            State::Away { .. } => None,
        }
    }

    /// Puts the shard on disk, where it is not yet.
    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<()> {
        let State::Here(shard) = &mut self.state else { return Ok(()) };
        let place = match &mut self.place {
            Some(place) => place,
            none => none.insert(Place::new(disk)?),
        };
        place.write(shard)?;
        self.state = State::Away { rows: shard.state_rows() };
        Ok(())
    }

    /// Puts the state that is on disk into `shard`, which has none.
    fn read(&self, shard: &mut T) -> Result<()> {
        let place = self.place.as_ref().ok_or_else(|| Error::internal("a shard is away, but nowhere"))?;
        place.read(shard)
    }
}

/// So many shards without state.
fn slots<T: Shard>(count: usize, make: &dyn Fn(Part) -> Result<T>) -> Result<Vec<Slot<T>>> {
    (0..count).map(|number| Ok(Slot::new(make((number, count))?))).collect()
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
            (Some(routes), _) if routes.copies() => 1,
            (Some(_), None) => means.threads.max(1),
            (Some(_), Some(_)) => SPILLED,
        };
        Ok(Sharded { shards: slots(count, &make)?, routes, means, make: Box::new(make) })
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
        let (Some(routes), 2..) = (&self.routes, self.shards.len()) else {
            let only = self.only_mut().ok_or_else(|| Error::internal("an operator without shards"))?;
            let all = |batches: Vec<SignedBatch>| batches.into_iter().map(SelectedBatch::from).collect();
            let output = only.step(inputs.into_iter().map(all).collect(), first)?;
            self.relieve(memory)?;
            return Ok(output);
        };
        if rows == 0 && !first {
            return Ok(vec![]);
        }
        let in_parallel = self.means.disk.is_none() && rows >= LARGE;
        let threads = if in_parallel { self.means.threads } else { 1 };
        let deal = Deal::new(inputs, routes, self.shards.len(), threads)?;
        if in_parallel {
            let step = |(number, slot): (usize, &mut Slot<T>)| match slot.here_mut() {
                Some(shard) => shard.step(deal.part(number), first),
                None => Err(Error::internal("state was spilled though memory is not bounded")),
            };
            // Stored state can have more shards than there are threads.
            let lots = dealt_out(self.shards.iter_mut().enumerate(), self.means.threads);
            let work = |lot: Vec<_>| lot.into_iter().map(step).collect::<Result<Vec<_>>>();
            let outputs = in_threads(lots, work)?.into_iter().collect::<Result<Vec<_>>>()?;
            memory.resize(self.state_bytes())?;
            return Ok(outputs.concat().concat());
        }
        // Of what stays where it is, no shard would hold its part alone.
        let copied = |batches: Vec<SelectedBatch>| batches.iter().map(|b| Ok(b.materialize()?.into())).collect();
        let mut output = Vec::new();
        let mut last = None;
        for number in 0..self.shards.len() {
            let own = deal.part(number);
            if first || own.iter().any(|batches| !batches.is_empty()) {
                let own = own.into_iter().map(copied).collect::<Result<_>>()?;
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
            [slot] => slot.here(),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn only_mut(&mut self) -> Option<&mut T> {
        match self.shards.as_mut_slice() {
            [slot] => slot.here_mut(),
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
        let (Some(routes), 2..) = (&self.routes, self.shards.len()) else {
            with(self.bring_back(0)?, rows.to_vec())?;
            return self.make_room(0, None, memory);
        };
        let deal = Deal::new(vec![rows.to_vec()], routes, self.shards.len(), 1)?;
        let mut last = None;
        for number in 0..self.shards.len() {
            let own = materialized(deal.part(number).pop())?;
            if !own.is_empty() {
                with(self.bring_back(number)?, own)?;
                self.make_room(number, last, memory)?;
                last = Some(number);
            }
        }
        Ok(())
    }

    /// Whether what its one shard keeps can be dealt out to several.
    fn parts(&self) -> bool {
        let bounded = self.means.disk.is_some() && self.routes.is_some();
        bounded && self.only().is_some_and(|whole| !whole.kept().is_empty())
    }

    /// Deals out to several what one shard has kept so far. Until it is done, it stands beside them.
    fn deal_out(&mut self, memory: &mut StateMemory) -> Result<()> {
        let (Some(routes), Some(Slot { state: State::Here(whole), .. })) = (&self.routes, self.shards.pop()) else {
            return Err(Error::internal("state is dealt out that cannot be"));
        };
        let kept = whole.kept();
        let parted = kept.iter().zip(&routes.0).map(|(rows, columns)| Parted::new(rows, columns, SPILLED));
        let parted = parted.collect::<Result<Vec<_>>>()?;
        self.shards = slots(SPILLED, &self.make)?;
        for number in 0..SPILLED {
            let own = |(rows, parted): (&&Relation, &Parted)| match parted.part(number) {
                [] => Ok(vec![]),
                ids => Ok(vec![rows.rows(ids)?.into()]),
            };
            let mut shard = (self.make)((number, SPILLED))?;
            // What this gives out was given out before.
            shard.step(kept.iter().zip(&parted).map(own).collect::<Result<_>>()?, true)?;
            self.shards[number] = Slot::new(shard);
            self.make_room(number, number.checked_sub(1), memory)?;
        }
        Ok(())
    }

    fn bring_back(&mut self, number: usize) -> Result<&mut T> {
        let count = self.shards.len();
        let slot = &mut self.shards[number];
        if slot.here().is_none() {
            let mut shard = (self.make)((number, count))?;
            slot.read(&mut shard)?;
            slot.state = State::Here(shard);
        }
        slot.here_mut().ok_or_else(|| Error::internal("state was not brought back"))
    }

    /// Puts away what there is no room for. State that cannot be put away is an error then.
    pub fn relieve(&mut self, memory: &mut StateMemory) -> Result<()> {
        let bytes = self.state_bytes();
        match self.only() {
            None => self.spill((0..self.shards.len()).rev(), memory),
            Some(_) if self.parts() => memory.fit(bytes).or_else(|_| self.deal_out(memory)),
            Some(_) => memory.resize(bytes),
        }
    }

    /// Makes room for shard `number`. An epoch that goes through all of them finds most there the next time if those go that were stepped
    /// last: first the one before it, which was.
    fn make_room(&mut self, number: usize, last: Option<usize>, memory: &mut StateMemory) -> Result<()> {
        if self.only().is_some() {
            return self.relieve(memory);
        }
        let others = (0..self.shards.len()).rev().filter(|at| *at != number);
        self.spill(last.into_iter().chain(others).chain([number]), memory)
    }

    /// Spills `shards`, one after the other, until what is left fits.
    fn spill(&mut self, mut shards: impl Iterator<Item = usize>, memory: &mut StateMemory) -> Result<()> {
        let Some(disk) = &self.means.disk else { return memory.resize(self.state_bytes()) };
        while memory.fit(self.state_bytes()).is_err() {
            let is_held = |slot: &Slot<T>| slot.here().is_some_and(|shard| shard.state_bytes() > 0);
            match shards.find(|at| is_held(&self.shards[*at])) {
                Some(victim) => self.shards[victim].spill(disk)?,
                // It is others who hold too much.
                None => break,
            }
        }
        Ok(())
    }

    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        if self.shards.len() > 1 {
            out.words(SECTION, [self.shards.len() as u32]);
        }
        let count = self.shards.len();
        for (number, slot) in self.shards.iter_mut().enumerate() {
            match slot.here_mut() {
                Some(shard) => shard.save(out)?,
                None => {
                    let mut shard = (self.make)((number, count))?;
                    slot.read(&mut shard)?;
                    shard.save(out)?;
                }
            }
        }
        Ok(())
    }

    /// As many shards as were saved, whatever there would be otherwise.
    pub fn restore(&mut self, from: &mut StateReader, memory: &mut StateMemory) -> Result<()> {
        let count = if from.is_next(SECTION) { *from.exactly::<u32>(SECTION, 1)?.first().unwrap_or(&1) } else { 1 };
        if self.routes.is_none() && count != 1 {
            return Err(Error::internal("stored state has more shards than its operator can have"));
        }
        self.shards = slots(count as usize, &self.make)?;
        for number in 0..count as usize {
            let mut shard = (self.make)((number, count as usize))?;
            shard.restore(from)?;
            self.shards[number] = Slot::new(shard);
            self.make_room(number, number.checked_sub(1), memory)?;
        }
        Ok(())
    }

    /// Rows, groups and values, spilled ones included.
    pub fn state_rows(&self) -> usize {
        let rows = |slot: &Slot<T>| match &slot.state {
            State::Here(shard) => shard.state_rows(),
            State::Away { rows } => *rows,
        };
        self.shards.iter().map(rows).sum()
    }

    /// Bytes in memory.
    pub fn state_bytes(&self) -> usize {
        self.shards.iter().filter_map(Slot::here).map(T::state_bytes).sum()
    }
}
