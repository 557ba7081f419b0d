//! The first rows of each partition, where no row is ever retracted: what stands behind them can be forgotten.
//!
//! `row_number() over (partition by … order by …) <= k`. Rows are compared by the first bytes of their order's encoding, which an entry holds;
//! the whole of it, and of the row, is encoded only for rows that these do not tell apart. Columns stand in a [`RowStore`], those of
//! the first rows alone.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::SortField;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::eval::{self, Exprs};
use super::forgets::{Forgetting, Stays, kept};
use super::sharded::{Shard, materialized};
use crate::error::{Error, Result};
use crate::state::{
    Encoded, GroupIndex, NONE, Paged, RowCodec, RowStore, StateReader, StateWriter, canonical, in_pieces,
};
use crate::types::{SelectedBatch, SignedBatch};

/// The first bytes of an encoded order, filled up with zeros: what is smaller here stands before; equal ones may still differ.
type Lead = [u8; 16];

/// One of the first rows of a partition.
#[derive(Clone, Copy)]
struct Entry {
    lead: Lead,
    /// In the store.
    row: u32,
}

impl Entry {
    const ABSENT: Entry = Entry { lead: [0; 16], row: NONE };
}

/// A row of the epoch that may be one of the first.
struct Candidate {
    partition: u32,
    lead: Lead,
    batch: u32,
    row: u32,
}

/// An entry as it was, or a candidate, in the order of its partition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By its number.
    Entry(u32),
    /// By index.
    Candidate(u32),
}

/// A row of the store and its number, counted from 0.
type Numbered = (u32, u64);

pub(super) struct TopK {
    partition: Exprs,
    /// Followed by all columns it is total up to equal rows.
    order: Exprs,
    /// How many of the order's expressions are in a [`Lead`].
    leading: usize,
    key_codec: RowCodec,
    lead_codec: RowCodec,
    /// Of the order's values, each with its direction, then all columns.
    row_codec: RowCodec,
    most: usize,
    input: SchemaRef,
    /// The input's columns, then the row number as often as it is asked for.
    schema: SchemaRef,
    keys: GroupIndex,
    partitions: Partitions,
    rows: RowStore,
}

/// The entries of each partition, in order.
enum Partitions {
    /// No more than one each, as deduplication has it: without an allocation for every row. One that has no row is empty.
    One(Paged<Entry>),
    Many(Vec<Vec<Entry>>),
}

impl Partitions {
    /// None yet; `most` entries each.
    fn new(most: usize) -> Self {
        if most == 1 { Partitions::One(Paged::default()) } else { Partitions::Many(Vec::new()) }
    }

    fn len(&self) -> usize {
        match self {
            Partitions::One(entries) => entries.len(),
            Partitions::Many(entries) => entries.len(),
        }
    }

    /// Another one, after the last.
    fn push(&mut self, entries: Vec<Entry>) {
        match self {
            Partitions::One(all) => all.push(entries.first().copied().unwrap_or(Entry::ABSENT)),
            Partitions::Many(all) => all.push(entries),
        }
    }

    #[inline]
    fn of(&self, partition: u32) -> &[Entry] {
        match self {
            Partitions::One(entries) => match &entries[partition as usize] {
                Entry { row: NONE, .. } => &[],
                entry => std::slice::from_ref(entry),
            },
            Partitions::Many(entries) => &entries[partition as usize],
        }
    }

    /// Other entries for a partition; those it had.
    fn replace(&mut self, partition: u32, with: Vec<Entry>) -> Vec<Entry> {
        match self {
            Partitions::One(entries) => {
                let with = with.first().copied().unwrap_or(Entry::ABSENT);
                let old = std::mem::replace(&mut entries[partition as usize], with);
                if old.row == NONE { Vec::new() } else { vec![old] }
            }
            Partitions::Many(entries) => std::mem::replace(&mut entries[partition as usize], with),
        }
    }

    /// All partitions, in order.
    fn iter(&self) -> impl Iterator<Item = &[Entry]> {
        (0..self.len() as u32).map(|partition| self.of(partition))
    }

    /// Writes what each entry has: how many each partition has, and of each its row and lead.
    fn save(&mut self, out: &mut StateWriter) {
        let kept: Arc<Self> = Arc::new(match self {
            Partitions::One(entries) => Partitions::One(entries.share()),
            Partitions::Many(entries) => Partitions::Many(entries.clone()),
        });
        let (lengths, rows) = (Arc::clone(&kept), Arc::clone(&kept));
        out.shared("top.lengths", move |put: &mut dyn FnMut(&[u32])| {
            in_pieces(lengths.iter().map(|entries| entries.len() as u32), put);
        });
        out.shared("top.rows", move |put: &mut dyn FnMut(&[u32])| in_pieces(rows.iter().flatten().map(|e| e.row), put));
        out.shared("top.leads", move |put: &mut dyn FnMut(&[u128])| {
            in_pieces(kept.iter().flatten().map(|e| u128::from_le_bytes(e.lead)), put);
        });
    }

    fn heap_size(&self) -> usize {
        match self {
            Partitions::One(entries) => entries.heap_size(),
            Partitions::Many(all) => {
                let entries: usize = all.iter().map(Vec::capacity).sum();
                entries * size_of::<Entry>() + all.capacity() * size_of::<Vec<Entry>>()
            }
        }
    }
}

/// Whole encodings of what leads do not tell apart.
#[derive(Default)]
struct Ties {
    candidates: HashMap<u32, usize>,
    entries: HashMap<u32, usize>,
    of_candidates: Option<Encoded>,
    of_entries: Option<Encoded>,
}

impl Ties {
    /// Among sorted candidates and the entries of their partitions.
    fn new(node: &TopK, input: &[SignedBatch], candidates: &[Candidate]) -> Result<Self> {
        let mut ties = Ties::default();
        let (mut tied, mut entries): (Vec<&Candidate>, Vec<u32>) = (vec![], vec![]);
        for (first, run) in runs(candidates) {
            let there = node.partitions.of(run[0].partition);
            let mut index = first;
            for same in run.chunk_by(|a, b| a.lead == b.lead) {
                let lead = same[0].lead;
                let at = there.partition_point(|entry| entry.lead < lead);
                let equal = there[at..].iter().take_while(|entry| entry.lead == lead);
                let before = entries.len();
                entries.extend(equal.map(|entry| entry.row));
                if same.len() > 1 || entries.len() > before {
                    for candidate in same.iter().zip(index..) {
                        ties.candidates.insert(candidate.1, tied.len());
                        tied.push(candidate.0);
                    }
                }
                index += same.len() as u32;
            }
        }
        if !tied.is_empty() {
            ties.of_candidates = Some(node.encode(&gather(input, &tied, &node.input)?)?);
        }
        if !entries.is_empty() {
            let columns = node.rows.columns(&entries, &(0..node.input.fields().len()).collect::<Vec<_>>())?;
            ties.of_entries = Some(node.encode(&eval::rows(&node.input, columns, entries.len())?)?);
            ties.entries = entries.into_iter().zip(0..).collect();
        }
        Ok(ties)
    }

    fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    fn of_candidate(&self, index: u32) -> &[u8] {
        of(&self.of_candidates, self.candidates.get(&index))
    }

    fn of_entry(&self, row: u32) -> &[u8] {
        of(&self.of_entries, self.entries.get(&row))
    }
}

fn of<'a>(encoded: &'a Option<Encoded>, at: Option<&usize>) -> &'a [u8] {
    match (encoded, at) {
        (Some(encoded), Some(at)) => encoded.row(*at),
        _ => &[],
    }
}

impl TopK {
    /// `order` comes with a direction for each of its expressions.
    pub fn new(
        partition: Exprs,
        order: Exprs,
        options: &[SortOptions],
        most: usize,
        input: SchemaRef,
        schema: SchemaRef,
    ) -> Result<Self> {
        let field = |(t, o): (&DataType, &SortOptions)| SortField::new_with_options(t.clone(), *o);
        let ordered: Vec<SortField> = order.types.iter().zip(options).map(field).collect();
        let leading = leading(&order.types);
        let columns = input.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        Ok(TopK {
            key_codec: RowCodec::new(partition.types.iter().cloned())?,
            lead_codec: RowCodec::ordered(ordered[..leading].to_vec())?,
            row_codec: RowCodec::ordered(ordered.into_iter().chain(columns).collect())?,
            rows: RowStore::unindexed(&input),
            partition,
            order,
            leading,
            most,
            input,
            schema,
            keys: GroupIndex::new(),
            partitions: Partitions::new(most),
        })
    }

    /// The rows that stand before the last of a full partition, by their leads.
    fn candidates(&mut self, input: &[SignedBatch]) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for (batch, number) in input.iter().zip(0..) {
            if batch.has_retractions() {
                return Err(Error::diverged("row_number: a row of append-only input is retracted"));
            }
            let keys = self.key_codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
            let leads = self.order.evaluate_first(self.leading, &batch.rows)?;
            let leads = self.lead_codec.encode(&leads, batch.num_rows())?;
            for row in 0..batch.num_rows() {
                let partition = self.keys.intern_one(keys.row(row))?;
                if partition as usize >= self.partitions.len() {
                    self.partitions.push(Vec::new());
                }
                let lead = lead(leads.row(row));
                let first = self.partitions.of(partition);
                if first.len() == self.most && first.last().is_some_and(|last| last.lead < lead) {
                    continue;
                }
                let copies = usize::try_from(batch.weight(row)).unwrap_or(0).min(self.most);
                let copy = || Candidate { partition, lead, batch: number, row: row as u32 };
                candidates.extend(std::iter::repeat_with(copy).take(copies));
            }
        }
        Ok(candidates)
    }

    /// Of sorted candidates, those that enough of the same partition stand before.
    fn drop_hopeless(&self, candidates: &mut Vec<Candidate>) {
        let (mut partition, mut before, mut last) = (None, 0, Lead::default());
        candidates.retain(|c| {
            if partition != Some(c.partition) {
                (partition, before) = (Some(c.partition), 0);
            }
            let keep = before < self.most || c.lead == last;
            before += 1;
            if keep {
                last = c.lead;
            }
            keep
        });
    }

    /// The first rows of a partition, of its entries and of `run`, which begins at candidate `first`.
    fn merged(&self, partition: u32, first: u32, run: &[Candidate], all: &[Candidate], ties: &Ties) -> Vec<Place> {
        let entries = self.partitions.of(partition);
        let mut order: Vec<u32> = (first..first + run.len() as u32).collect();
        if !ties.is_empty() {
            order.sort_by(|a, b| {
                let leads = all[*a as usize].lead.cmp(&all[*b as usize].lead);
                leads.then_with(|| ties.of_candidate(*a).cmp(ties.of_candidate(*b)))
            });
        }
        let mut merged = Vec::with_capacity(self.most.min(entries.len() + run.len()));
        let (mut i, mut j) = (0, 0);
        while merged.len() < self.most && (i < entries.len() || j < order.len()) {
            let before = match (entries.get(i), order.get(j)) {
                (Some(entry), Some(candidate)) => {
                    let leads = entry.lead.cmp(&all[*candidate as usize].lead);
                    // Of equal rows the one that is there stays where it is.
                    leads.then_with(|| ties.of_entry(entry.row).cmp(ties.of_candidate(*candidate))) != Ordering::Greater
                }
                (entry, _) => entry.is_some(),
            };
            if before {
                merged.push(Place::Entry(i as u32));
                i += 1;
            } else {
                merged.push(Place::Candidate(order[j]));
                j += 1;
            }
        }
        merged
    }

    /// Makes the changed partitions what they are now, and gives out how their rows and numbers differ.
    fn replace(
        &mut self,
        input: &[SignedBatch],
        candidates: &[Candidate],
        changed: &[(u32, Vec<Place>)],
    ) -> Result<Vec<SignedBatch>> {
        let places = changed.iter().flat_map(|(_, merged)| merged);
        let arrived: Vec<u32> = places
            .filter_map(|place| match place {
                Place::Candidate(index) => Some(*index),
                Place::Entry(_) => None,
            })
            .collect();
        if arrived.is_empty() {
            return Ok(vec![]);
        }
        let arrived: Vec<&Candidate> = arrived.iter().map(|index| &candidates[*index as usize]).collect();
        let new = gather(input, &arrived, &self.input)?;
        let ids = self.rows.apply(&[SignedBatch::inserts(new.clone())])?.ids;
        let mut ids = ids.into_iter();
        // Rows and numbers that are no more, and that are new.
        let (mut gone, mut come): (Vec<Numbered>, Vec<Numbered>) = (vec![], vec![]);
        let numbered = self.schema.fields().len() > self.input.fields().len();
        let mut forgotten: Vec<u32> = Vec::new();
        for (partition, merged) in changed {
            let old = self.partitions.replace(*partition, Vec::new());
            let mut stays = vec![false; old.len()];
            let mut entries = Vec::with_capacity(merged.len());
            for (place, number) in merged.iter().zip(0u32..) {
                let (entry, moved) = match place {
                    Place::Entry(at) => {
                        stays[*at as usize] = true;
                        (old[*at as usize], numbered && *at != number)
                    }
                    Place::Candidate(index) => {
                        let row = ids.next().ok_or_else(|| Error::internal("a row was not stored"))?;
                        (Entry { lead: candidates[*index as usize].lead, row }, true)
                    }
                };
                if let (Place::Entry(at), true) = (place, moved) {
                    gone.push((entry.row, u64::from(*at)));
                }
                if moved {
                    come.push((entry.row, u64::from(number)));
                }
                entries.push(entry);
            }
            for (entry, number) in old.iter().zip(0u64..).filter(|(_, at)| !stays[*at as usize]) {
                gone.push((entry.row, number));
                forgotten.push(entry.row);
            }
            self.partitions.replace(*partition, entries);
        }
        let mut output = Vec::with_capacity(2);
        if !gone.is_empty() {
            output.push(SignedBatch::retracts(self.output(&gone, None)?));
        }
        output.push(SignedBatch::inserts(self.output(&come, (!numbered).then_some(new))?));
        forgotten.into_iter().for_each(|row| self.rows.remove(row));
        self.rows.sweep()?;
        Ok(output)
    }

    /// Rows with their numbers, counted from 0; `columns` are those of the rows where they are at hand.
    fn output(&self, rows: &[Numbered], columns: Option<RecordBatch>) -> Result<RecordBatch> {
        let width = self.input.fields().len();
        let mut columns = match columns {
            Some(rows) => rows.columns().to_vec(),
            None => {
                let ids: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
                self.rows.columns(&ids, &(0..width).collect::<Vec<_>>())?
            }
        };
        let number: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, n)| n + 1)));
        columns.resize(self.schema.fields().len(), number);
        eval::rows(&self.schema, columns, rows.len())
    }

    /// Order and columns of rows, encoded.
    fn encode(&self, rows: &RecordBatch) -> Result<Encoded> {
        let mut columns = self.order.evaluate(rows)?;
        columns.extend_from_slice(rows.columns());
        self.row_codec.encode(&columns, rows.num_rows())
    }

    /// Applies an epoch's rows: what changes of the first of each partition.
    fn change(&mut self, input: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        if self.most == 0 {
            return Ok(vec![]);
        }
        let mut candidates = self.candidates(input)?;
        candidates.sort_unstable_by_key(|c| (c.partition, c.lead, c.batch, c.row));
        self.drop_hopeless(&mut candidates);
        let ties = Ties::new(self, input, &candidates)?;
        // By partition: what was there, and what is.
        let mut changed: Vec<(u32, Vec<Place>)> = Vec::new();
        for (first, run) in runs(&candidates) {
            let partition = run[0].partition;
            let merged = self.merged(partition, first, run, &candidates, &ties);
            let old = self.partitions.of(partition).len();
            if merged.len() != old || merged.iter().zip(0..).any(|(place, at)| *place != Place::Entry(at)) {
                changed.push((partition, merged));
            }
        }
        self.replace(input, &candidates, &changed)
    }
}

impl Forgetting for TopK {
    /// The first of all rows that come again are those that were there.
    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()> {
        self.change(rows).map(|_| ())
    }

    fn forget(&mut self, stays: &Stays<'_>) -> Result<()> {
        let decode = |ids: &[u32]| self.key_codec.decode(ids.iter().map(|id| self.keys.key(*id)));
        let Some(kept) = kept(&self.keys, decode, stays)? else { return Ok(()) };
        let old: Vec<u32> = kept.iter().flat_map(|id| self.partitions.of(*id)).map(|entry| entry.row).collect();
        let mut rows = RowStore::unindexed(&self.input);
        let mut new = Vec::new();
        if !old.is_empty() {
            let columns = self.rows.columns(&old, &(0..self.input.fields().len()).collect::<Vec<_>>())?;
            new = rows.apply(&[SignedBatch::inserts(eval::rows(&self.input, columns, old.len())?)])?.ids;
            rows.sweep()?;
        }
        let mut partitions = Partitions::new(self.most);
        let mut new = new.into_iter();
        for id in &kept {
            let moved = self.partitions.of(*id).iter().zip(&mut new).map(|(entry, row)| Entry { row, ..*entry });
            partitions.push(moved.collect());
        }
        (self.keys, self.partitions, self.rows) = (self.keys.picked(&kept)?, partitions, rows);
        Ok(())
    }
}

impl Shard for TopK {
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, _: bool) -> Result<Vec<SignedBatch>> {
        self.change(&materialized(inputs.pop())?)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.keys.save(out);
        self.partitions.save(out);
        self.rows.save(out)
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.keys = GroupIndex::restore(from)?;
        let lengths = from.exactly::<u32>("top.lengths", self.keys.bound())?;
        let count = lengths.iter().map(|length| *length as usize).sum();
        let rows = from.exactly::<u32>("top.rows", count)?;
        let leads = from.exactly::<u128>("top.leads", count)?;
        let entry = |(row, lead): (u32, u128)| Entry { lead: lead.to_le_bytes(), row };
        let mut entries = rows.into_iter().zip(leads).map(entry);
        if lengths.iter().any(|length| *length as usize > self.most) {
            return Err(Error::internal("a stored partition has more rows than were asked for"));
        }
        self.partitions = Partitions::new(self.most);
        for length in lengths {
            self.partitions.push(entries.by_ref().take(length as usize).collect());
        }
        self.rows.restore(from)?;
        match self.rows.len() == count && self.partitions.iter().flatten().all(|e| self.rows.contains(e.row)) {
            true => Ok(()),
            false => Err(Error::internal("stored rows are not those of the partitions")),
        }
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }

    fn state_bytes(&self) -> usize {
        self.keys.heap_size() + self.partitions.heap_size() + self.rows.heap_size()
    }
}

/// How many expressions fill a [`Lead`], the first of variable length being the last.
fn leading(types: &[DataType]) -> usize {
    let mut bytes = 0;
    let has_room = |data_type: &&DataType| {
        let has_room = bytes < size_of::<Lead>();
        // A byte more says whether it is NULL.
        bytes += data_type.primitive_width().map_or(size_of::<Lead>(), |width| width + 1);
        has_room
    };
    types.iter().take_while(has_room).count()
}

fn lead(bytes: &[u8]) -> Lead {
    let mut lead = Lead::default();
    let length = bytes.len().min(lead.len());
    lead[..length].copy_from_slice(&bytes[..length]);
    lead
}

/// Candidates by partition, each with the index of its first.
fn runs(candidates: &[Candidate]) -> impl Iterator<Item = (u32, &[Candidate])> {
    let mut first = 0;
    candidates.chunk_by(|a, b| a.partition == b.partition).map(move |run| {
        let start = first;
        first += run.len() as u32;
        (start, run)
    })
}

/// The columns of some of the input's rows.
fn gather(input: &[SignedBatch], rows: &[&Candidate], schema: &SchemaRef) -> Result<RecordBatch> {
    let places: Vec<(usize, usize)> = rows.iter().map(|c| (c.batch as usize, c.row as usize)).collect();
    let column = |c: usize| -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = input.iter().map(|batch| batch.rows.column(c).as_ref()).collect();
        canonical(&interleave(&arrays, &places)?)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    eval::rows(schema, columns, rows.len())
}
