//! Window functions: `… over (partition by … order by …)`.
//!
//! The rows of every partition are kept in order. A change reaches some rows: those whose frame it falls into ([`Reach`]). They are
//! evaluated by DataFusion's own functions as they were and as they are, with as many neighbours as their frames want, and those that
//! differ are given out. So every function and every frame is maintained; what it costs is what it reaches. Frames from the first row
//! on ([`running`]) go on from a checkpoint near the change. Where only the first
//! ranks are asked for ([`Visible`]), nothing behind them is looked at: a top-k.

mod evaluate;
mod order;
mod region;
mod running;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::SortField;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, SortExpr};
use std::cmp::Ordering;
use std::ops::Range;

use self::evaluate::{Calls, Values};
use self::order::Order;
use self::region::{Region, Span, first_seen, regions, span};
use self::running::{Checkpoint, EVERY, State, Stretch};
use super::eval::{self, Exprs, arrow_schema};
use super::forgets::{Forgetting, Stays, kept};
use super::sharded::{Shard, materialized};
use crate::error::{Error, Result};
use crate::plan::incremental::{Reach, Visible};
use crate::plan::reach::reach_between_checkpoints;
use crate::state::{GroupIndex, Multiset, Presence, RowCodec, StateReader, StateWriter};
use crate::types::{SelectedBatch, SignedBatch, Weight};

/// What [`Window::new`] is told of a plan node.
pub(super) struct Spec<'a> {
    pub partition: &'a [Expr],
    pub order: &'a [SortExpr],
    /// They share `partition` and `order`.
    pub calls: &'a [Expr],
    pub reach: Reach,
    pub visible: Option<Visible>,
}

pub(super) struct Window {
    partition: Exprs,
    order: Exprs,
    ordering: Order,
    calls: Calls,
    reach: Reach,
    /// What is looked at besides the rows behind a checkpoint. None: there are no checkpoints.
    near: Option<Reach>,
    visible: Option<Visible>,
    /// Of the partition's key.
    key_codec: RowCodec,
    /// Of the order's values, then all columns: bytes order as rows do, and equal bytes are equal rows.
    row_codec: RowCodec,
    input: SchemaRef,
    schema: SchemaRef,
    keys: GroupIndex,
    /// Rows by partition: their bytes, and how many of these their order takes ([`peers`]).
    partitions: Vec<Multiset>,
    /// By partition, in order: a cache.
    checkpoints: Vec<Vec<Checkpoint>>,
    rows: usize,
    bytes: usize,
}

/// Bytes behind a row that say how many bytes of it are its order's.
const TAIL: usize = size_of::<u32>();

/// The order's bytes of a row: equal for its peers, and no other row begins with them.
fn peers(row: &[u8]) -> &[u8] {
    let (columns, tail) = row.split_at(row.len() - TAIL);
    let length = tail.try_into().map_or(0, u32::from_le_bytes);
    &columns[..length as usize]
}

/// A row's bytes, as the codec knows them.
fn columns(row: &[u8]) -> &[u8] {
    &row[..row.len() - TAIL]
}

/// What an epoch does to the rows of one partition: bytes ascending, no weight is 0.
struct Touched {
    partition: u32,
    changes: Vec<(Box<[u8]>, Weight)>,
}

/// Rows of some regions, with what the functions make of them.
struct Computed<R> {
    /// Region and bytes of each row.
    rows: Vec<(u32, R)>,
    batch: RecordBatch,
    /// Checkpoints that were passed, by partition.
    passed: Vec<(u32, Vec<Checkpoint>)>,
}

impl Window {
    /// Over rows of `input`. Output: the input's columns, then one for every call.
    pub fn new(input: &DFSchema, spec: &Spec<'_>, schema: &DFSchema, session: &SessionState) -> Result<Self> {
        let rows = arrow_schema(input);
        let partition = Exprs::new(spec.partition, input, session)?;
        let order = Exprs::new(spec.order.iter().map(|o| &o.expr), input, session)?;
        let options = |o: &SortExpr| SortOptions { descending: !o.asc, nulls_first: o.nulls_first };
        let options: Vec<SortOptions> = spec.order.iter().map(options).collect();
        let ordered = order.types.iter().zip(&options).map(|(t, o)| SortField::new_with_options(t.clone(), *o));
        let ordered: Vec<SortField> = ordered.collect();
        let all = rows.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        Ok(Window {
            key_codec: RowCodec::new(partition.types.iter().cloned())?,
            ordering: Order::new(order.types.clone(), &options)?,
            row_codec: RowCodec::ordered(ordered.into_iter().chain(all).collect())?,
            calls: Calls::new(spec.calls, input, session)?,
            reach: spec.reach,
            near: reach_between_checkpoints(spec.calls).filter(|_| spec.visible.is_none()),
            visible: spec.visible,
            partition,
            order,
            input: rows,
            schema: arrow_schema(schema),
            keys: GroupIndex::new(),
            partitions: Vec::new(),
            checkpoints: Vec::new(),
            rows: 0,
            bytes: 0,
        })
    }

    /// The partitions of an epoch's rows, and what becomes of each; what comes and goes within the epoch is nothing.
    fn touched(&mut self, input: &[SignedBatch]) -> Result<Vec<Touched>> {
        let mut all: Vec<(u32, Box<[u8]>, Weight)> = Vec::with_capacity(input.iter().map(SignedBatch::num_rows).sum());
        for batch in input {
            let keys = self.key_codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
            let keys = self.keys.intern(&keys)?;
            let mut columns = self.order.evaluate(&batch.rows)?;
            let order = self.ordering.encode(&columns, batch.num_rows())?;
            columns.extend_from_slice(batch.rows.columns());
            let rows = self.row_codec.encode(&columns, batch.num_rows())?;
            for (i, key) in keys.into_iter().enumerate() {
                let length = (order.row(i).len() as u32).to_le_bytes();
                all.push((key, [rows.row(i), &length].concat().into(), batch.weight(i)));
            }
        }
        if self.keys.bound() > self.partitions.len() {
            self.partitions.resize_with(self.keys.bound(), Multiset::default);
            self.checkpoints.resize_with(self.keys.bound(), Vec::new);
        }
        all.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut touched: Vec<Touched> = Vec::new();
        for (partition, row, weight) in all {
            if touched.last().is_none_or(|t| t.partition != partition) {
                touched.push(Touched { partition, changes: vec![] });
            }
            let Some(Touched { changes, .. }) = touched.last_mut() else { continue };
            match changes.last_mut() {
                Some((last, sum)) if *last == row => *sum += weight,
                _ => changes.push((row, weight)),
            }
        }
        touched.iter_mut().for_each(|t| t.changes.retain(|(_, weight)| *weight != 0));
        Ok(touched)
    }

    fn apply(&mut self, partition: u32, changes: &[(Box<[u8]>, Weight)]) -> Result<()> {
        let rows = &mut self.partitions[partition as usize];
        for (row, weight) in changes {
            self.bytes -= rows.heap_size();
            let presence = rows.add(row, *weight);
            self.bytes += rows.heap_size();
            match presence {
                Presence::Appeared if *weight > 0 => self.rows += 1,
                Presence::Vanished => self.rows -= 1,
                Presence::Stays(left) if left > 0 => {}
                _ => return Err(Error::diverged("window: a row is retracted that is not there")),
            }
        }
        Ok(())
    }

    /// The rows of `regions` as they are now.
    fn compute(&self, regions: &[Region]) -> Result<Computed<&[u8]>> {
        // Rows with their neighbours, region by region; which of them are the region's own.
        let mut all: Vec<&[u8]> = Vec::new();
        let mut spans: Vec<Span> = Vec::with_capacity(regions.len());
        let mut starts: Vec<Option<&Checkpoint>> = Vec::with_capacity(regions.len());
        for region in regions {
            let rows = &self.partitions[region.partition as usize];
            let start = self.checkpoint_before(region, rows);
            let resumed = start.map(|start| &*start.at);
            spans.push(span(region, rows, self.reach, self.visible, &self.ordering, resumed, &mut all));
            starts.push(start);
        }
        let columns = self.row_codec.decode(all.iter().map(|row| columns(row)))?.split_off(self.order.types.len());
        let batch = eval::rows(&self.input, columns, all.len())?;

        let peers: Vec<Vec<Range<usize>>> = match self.calls.any_running() {
            true => spans.iter().map(|span| ranges_of_peers(&all[span.shown.clone()])).collect(),
            false => vec![vec![]; spans.len()],
        };
        let marks: Vec<Vec<usize>> = match self.near {
            Some(_) => {
                let marks = |((region, span), peers): ((&Region, &Span), &Vec<_>)| {
                    self.marks(region, &all[span.shown.clone()], peers)
                };
                regions.iter().zip(&spans).zip(&peers).map(marks).collect()
            }
            None => vec![vec![]; spans.len()],
        };
        let stretches: Vec<Stretch> = (starts.into_iter().zip(&peers).zip(&marks))
            .map(|((start, peers), marks)| Stretch { start, peers, marks })
            .collect();
        let Values { columns: values, states } = self.calls.evaluate(&batch, &spans, &stretches)?;
        let mut passed = Vec::new();
        for (number, ((region, span), stretch)) in regions.iter().zip(&spans).zip(&stretches).enumerate() {
            let states = states.iter().map(|of_call| of_call[number].as_slice()).collect::<Vec<_>>();
            passed.push((region.partition, checkpoints(stretch, &all[span.shown.clone()], &states)));
        }

        let mut rows = Vec::new();
        let mut own: Vec<u32> = Vec::new();
        for (number, span) in spans.iter().enumerate() {
            rows.extend(all[span.own.clone()].iter().map(|row| (number as u32, *row)));
            own.extend(span.own.clone().map(|at| at as u32));
        }
        let all: Vec<ArrayRef> = batch.columns().iter().cloned().chain(values).collect();
        let batch = eval::rows(&self.schema, all, batch.num_rows())?;
        let batch =
            if own.len() == batch.num_rows() { batch } else { take_record_batch(&batch, &UInt32Array::from(own))? };
        Ok(Computed { rows, batch, passed })
    }

    /// The last checkpoint from which all is seen that the frames of `region` see.
    fn checkpoint_before(&self, region: &Region, rows: &Multiset) -> Option<&Checkpoint> {
        let first = first_seen(region, rows, self.near?.before, &self.ordering)?;
        let checkpoints = &self.checkpoints[region.partition as usize];
        let before = checkpoints.partition_point(|checkpoint| *checkpoint.at <= *first);
        checkpoints.get(before.checked_sub(1)?)
    }

    /// Before which `peers` of a stretch of `rows` new checkpoints are due: behind the last one, [`EVERY`] so many rows, and where they hold values
    /// no fewer than those.
    fn marks(&self, region: &Region, rows: &[&[u8]], peers: &[Range<usize>]) -> Vec<usize> {
        let last = self.checkpoints[region.partition as usize].last();
        let grows = self.calls.keep_distinct();
        // At most, of the one before.
        let mut held = last.filter(|_| grows).map_or(0, Checkpoint::values);
        let last = last.map(|checkpoint| &*checkpoint.at);
        let mut marks = Vec::new();
        let mut since = 0;
        for (group, range) in peers.iter().enumerate() {
            let at = self::peers(rows[range.start]);
            if last.is_some_and(|last| at <= last) {
                since = 0;
            } else if since >= EVERY.max(held) {
                marks.push(group);
                held += if grows { since } else { 0 };
                since = 0;
            }
            since += range.len();
        }
        marks
    }

    fn keep(&mut self, passed: Vec<(u32, Vec<Checkpoint>)>) {
        for (partition, checkpoints) in passed {
            self.bytes += checkpoints.iter().map(Checkpoint::size).sum::<usize>();
            self.checkpoints[partition as usize].extend(checkpoints);
        }
    }

    /// Drops the checkpoints of `partition` that a change of the row `first`, or of one behind it, is in.
    fn drop_behind(&mut self, partition: u32, first: &[u8]) {
        let checkpoints = &mut self.checkpoints[partition as usize];
        let valid = checkpoints.partition_point(|checkpoint| *checkpoint.at <= *first);
        self.bytes -= checkpoints.drain(valid..).map(|checkpoint| checkpoint.size()).sum::<usize>();
    }
}

/// Rows that the order does not tell apart, by their places.
fn ranges_of_peers(rows: &[&[u8]]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        match ranges.last_mut() {
            Some(last) if peers(rows[last.start]) == peers(row) => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// The checkpoints at the marks of a stretch of `rows`; `states` by running function and mark.
fn checkpoints(stretch: &Stretch<'_>, rows: &[&[u8]], states: &[&[State]]) -> Vec<Checkpoint> {
    let (before, groups) = stretch.start.map_or((0, 0), |start| (start.rows, start.groups));
    let checkpoint = |(mark, group): (usize, &usize)| {
        let start = stretch.peers[*group].start;
        Checkpoint {
            at: peers(rows[start]).into(),
            rows: before + start,
            groups: groups + group,
            states: states.iter().map(|states| states[mark].clone()).collect(),
        }
    };
    stretch.marks.iter().enumerate().map(checkpoint).collect()
}

impl Forgetting for Window {
    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()> {
        for Touched { partition, changes } in self.touched(rows)? {
            self.apply(partition, &changes)?;
            if let Some((first, _)) = changes.first() {
                self.drop_behind(partition, first);
            }
        }
        Ok(())
    }

    fn forget(&mut self, stays: &Stays<'_>) -> Result<()> {
        let decode = |ids: &[u32]| self.key_codec.decode(ids.iter().map(|id| self.keys.key(*id)));
        let Some(kept) = kept(&self.keys, decode, stays)? else { return Ok(()) };
        self.keys = self.keys.picked(&kept)?;
        self.partitions = kept.iter().map(|id| std::mem::take(&mut self.partitions[*id as usize])).collect();
        self.checkpoints = kept.iter().map(|id| std::mem::take(&mut self.checkpoints[*id as usize])).collect();
        self.rows = self.partitions.iter().map(Multiset::len).sum();
        let of_checkpoints: usize = self.checkpoints.iter().flatten().map(Checkpoint::size).sum();
        self.bytes = self.partitions.iter().map(Multiset::heap_size).sum::<usize>() + of_checkpoints;
        Ok(())
    }
}

impl Shard for Window {
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, _: bool) -> Result<Vec<SignedBatch>> {
        let input = materialized(inputs.pop())?;
        let touched = self.touched(&input)?;
        if touched.is_empty() {
            return Ok(vec![]);
        }
        let mut reached: Vec<Region> = Vec::new();
        for Touched { partition, changes } in &touched {
            let rows = &self.partitions[*partition as usize];
            reached.extend(regions(*partition, rows, changes, self.reach, self.visible, &self.ordering));
        }
        let Computed { rows, batch, passed } = self.compute(&reached)?;
        // They will not be there any more.
        let rows = rows.into_iter().map(|(region, row)| (region, Box::from(row))).collect();
        let before: Computed<Box<[u8]>> = Computed { rows, batch, passed: vec![] };
        self.keep(passed);
        for Touched { partition, changes } in &touched {
            self.apply(*partition, changes)?;
            if let Some((first, _)) = changes.first() {
                self.drop_behind(*partition, first);
            }
        }
        let mut after = self.compute(&reached)?;
        let passed = std::mem::take(&mut after.passed);
        let output = difference(&before, &after, self.input.fields().len())?;
        self.keep(passed);
        for Touched { partition, .. } in &touched {
            if self.partitions[*partition as usize].is_empty() {
                self.drop_behind(*partition, &[]);
                self.keys.remove(*partition);
            }
        }
        Ok(output)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.keys.save(out);
        out.words("partitions", [self.partitions.len() as u64]);
        out.multisets("partitions", &self.partitions);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.keys = GroupIndex::restore(from)?;
        let count = *from.exactly::<u64>("partitions", 1)?.first().unwrap_or(&0);
        self.partitions = from.multisets("partitions", count as usize)?;
        self.checkpoints = (0..count).map(|_| Vec::new()).collect();
        self.rows = self.partitions.iter().map(Multiset::len).sum();
        self.bytes = self.partitions.iter().map(Multiset::heap_size).sum();
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.rows
    }

    fn state_bytes(&self) -> usize {
        self.keys.heap_size()
            + self.partitions.capacity() * size_of::<Multiset>()
            + self.checkpoints.capacity() * size_of::<Vec<Checkpoint>>()
            + self.bytes
    }
}

/// −old and +new of the rows that are not the same before and after, of which the columns from `width` on are computed. Equal rows are
/// compared in turn, so that one that only has more like it changes as little as can be.
fn difference(before: &Computed<Box<[u8]>>, after: &Computed<&[u8]>, width: usize) -> Result<Vec<SignedBatch>> {
    let compare = (width..before.batch.num_columns())
        .map(|c| Ok(make_comparator(before.batch.column(c), after.batch.column(c), SortOptions::default())?))
        .collect::<Result<Vec<_>>>()?;
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < before.rows.len() || j < after.rows.len() {
        let order = match (before.rows.get(i), after.rows.get(j)) {
            (Some((region, row)), Some((of, other))) => (region, &**row).cmp(&(of, *other)),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let (old, new) = (order.is_le(), order.is_ge());
        if !(old && new && compare.iter().all(|compare| compare(i, j).is_eq())) {
            gone.extend(old.then_some(i as u32));
            come.extend(new.then_some(j as u32));
        }
        i += usize::from(old);
        j += usize::from(new);
    }
    let mut output = Vec::with_capacity(2);
    if !gone.is_empty() {
        output.push(SignedBatch::retracts(take_record_batch(&before.batch, &UInt32Array::from(gone))?));
    }
    if !come.is_empty() {
        output.push(SignedBatch::inserts(take_record_batch(&after.batch, &UInt32Array::from(come))?));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, new_null_array};
    use std::sync::Arc;

    use super::*;
    use crate::operators::make;
    use crate::operators::tests::oracle::Oracle;
    use crate::plan::incremental::Node;

    /// How many rows are looked at for one that comes behind a thousand.
    fn looked_at(call: &str) -> usize {
        looked_at_after(call, 0)
    }

    /// The same when so many have come one by one.
    fn looked_at_after(call: &str, more: i64) -> usize {
        let oracle = Oracle::new(&format!(r#"select id, {call} as c from "src"."t" as t"#));
        let mut node = oracle.model.incremental.as_ref().unwrap();
        while !matches!(node, Node::Window { .. }) {
            node = node.below()[0];
        }
        let input = arrow_schema(node.below()[0].schema());
        let ids = |ids: Range<i64>| {
            let id = |name: &str, t| match name {
                "id" => Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef,
                _ => new_null_array(t, ids.clone().count()),
            };
            let columns = input.fields().iter().map(|f| id(f.name(), f.data_type())).collect();
            SignedBatch::inserts(RecordBatch::try_new(Arc::clone(&input), columns).unwrap())
        };
        let mut window = make::window(node, oracle.planner.session_state()).unwrap();
        window.step(vec![vec![ids(0..1_000).into()]], true).unwrap();
        let end = 1_000 + more;
        for id in 1_000..end {
            assert!(!window.step(vec![vec![ids(id..id + 1).into()]], false).unwrap().is_empty());
        }
        let touched = window.touched(&[ids(end..end + 1)]).unwrap();
        let changes = &touched[0].changes;
        let regions = regions(0, &window.partitions[0], changes, window.reach, None, &window.ordering);
        window.apply(0, changes).unwrap();
        let rows = &window.partitions[0];
        let start = window.checkpoint_before(&regions[0], rows).map(|start| &*start.at);
        span(&regions[0], rows, window.reach, None, &window.ordering, start, &mut vec![]).shown.len()
    }

    #[test]
    fn a_row_at_the_end_of_a_partition_looks_no_further_than_its_frame_or_a_checkpoint() {
        for call in [
            "sum(id) over (order by id)",
            "rank() over (order by id)",
            "avg(id) over (order by id rows unbounded preceding)",
        ] {
            assert!(looked_at(call) <= 2 * EVERY, "{call}: {}", looked_at(call));
        }
        assert_eq!(looked_at("lag(id) over (order by id)"), 2);
        assert_eq!(looked_at("count(*) over (order by id range between 10 preceding and current row)"), 11);
        assert_eq!(looked_at("count(*) over (order by id groups between 7 preceding and current row)"), 8);
        for call in [
            "sum(id) filter (where id % 3 = 0) over (order by id)",
            "first_value(id) over (order by id)",
            "nth_value(id, 700) over (order by id rows unbounded preceding)",
            "last_value(id) over (order by id)",
            "max(distinct id) over (order by id)",
        ] {
            assert!(looked_at(call) <= 2 * EVERY, "{call}: {}", looked_at(call));
        }
        // Behind as many rows as it holds values, at most.
        assert!((2..600).contains(&looked_at("count(distinct id) over (order by id)")));
        let few = looked_at_after("count(distinct id % 3) over (order by id)", 12);
        assert!(few <= 4 * EVERY, "{few}");
        // What cannot go on from where it stood.
        assert_eq!(
            looked_at(
                "count(distinct id) filter (where id > 3) over (order by id rows between unbounded preceding and 1 following)"
            ),
            1_001
        );
        assert_eq!(looked_at("nth_value(id, -1) over (order by id)"), 1_001);
        assert_eq!(looked_at("ntile(3) over (order by id)"), 1_001);
    }
}
