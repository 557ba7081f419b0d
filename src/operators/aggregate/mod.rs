//! GROUP BY, maintained: per group a weight and the state of each aggregate; a step emits −old +new of the groups whose
//! output changed. DISTINCT is the case without aggregates. Without group columns there is one group, which always exists.

mod state;

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use hashbrown::HashMap;

use super::expr::{self, Bound};
use crate::error::{Error, Result};
use crate::plan::incremental;
use crate::state::{RowCodec, consolidate};
use crate::types::SignedBatch;
use state::State;

pub(super) struct Aggregate {
    input_schema: SchemaRef,
    schema: SchemaRef,
    group: Vec<Bound>,
    codec: RowCodec,
    calls: Vec<Call>,
    /// Key bytes → group.
    ids: HashMap<Box<[u8]>, u32>,
    /// Per group: its key and the rows in it.
    keys: Vec<Box<[u8]>>,
    weights: Vec<i64>,
    free: Vec<u32>,
    /// The global group has been emitted.
    started: bool,
}

struct Call {
    args: Vec<Bound>,
    filter: Option<Bound>,
    state: Box<dyn State>,
}

impl Aggregate {
    pub(super) fn new(
        input: &DFSchema,
        group: &[Expr],
        aggregates: &[incremental::Aggregate],
        schema: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let group = expr::bind_all(group, input, session)?;
        let mut calls = Vec::with_capacity(aggregates.len());
        for (i, aggregate) in aggregates.iter().enumerate() {
            let output = schema.field(group.len() + i).data_type().clone();
            let filter = aggregate.filter.as_ref().map(|f| expr::bind(f, input, session)).transpose()?;
            let (args, state) = state::state(aggregate, &output, input, session)?;
            calls.push(Call { args, filter, state });
        }
        Ok(Aggregate {
            input_schema: expr::arrow_schema(input),
            schema: expr::arrow_schema(schema),
            codec: RowCodec::new(&expr::types(&group, input)?)?,
            group,
            calls,
            ids: HashMap::new(),
            keys: Vec::new(),
            weights: Vec::new(),
            free: Vec::new(),
            started: false,
        })
    }

    fn is_global(&self) -> bool {
        self.group.is_empty()
    }

    pub(super) fn step(&mut self, input: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        let change = consolidate(&self.input_schema, input)?;
        let first = self.is_global() && !std::mem::replace(&mut self.started, true);
        if change.is_empty() && !first {
            return Ok(Vec::new());
        }
        let groups = self.groups_of(&change)?;
        let touched = if first { vec![0] } else { distinct(&groups, self.keys.len()) };
        let existed: Vec<bool> = touched.iter().map(|g| !first && self.exists(*g)).collect();
        let before = self.output(&touched, &existed)?;
        self.update(&change, &groups)?;
        let exists: Vec<bool> = touched.iter().map(|g| self.exists(*g)).collect();
        let after = self.output(&touched, &exists)?;
        let out = self.difference(before, after, &existed, &exists)?;
        for (group, exists) in touched.iter().zip(&exists) {
            if !exists {
                self.forget(*group);
            }
        }
        Ok(out.into_iter().filter(|b| !b.is_empty()).collect())
    }

    fn exists(&self, group: u32) -> bool {
        self.is_global() || self.weights[group as usize] > 0
    }

    /// Group of each row; new groups are made.
    fn groups_of(&mut self, change: &SignedBatch) -> Result<Vec<u32>> {
        if self.is_global() {
            if self.keys.is_empty() {
                self.keys.push(Box::default());
                self.weights.push(0);
                self.calls.iter_mut().for_each(|c| c.state.grow(1));
            }
            return Ok(vec![0; change.num_rows()]);
        }
        let columns = expr::evaluate_all(&self.group, &change.rows)?;
        let rows = self.codec.encode(&columns)?;
        let mut groups = Vec::with_capacity(change.num_rows());
        for row in rows.iter() {
            let group = match self.ids.get(row.data()) {
                Some(group) => *group,
                None => {
                    let key: Box<[u8]> = row.data().into();
                    let group = match self.free.pop() {
                        Some(group) => {
                            self.keys[group as usize] = key.clone();
                            group
                        }
                        None => {
                            self.keys.push(key.clone());
                            self.weights.push(0);
                            (self.keys.len() - 1) as u32
                        }
                    };
                    self.ids.insert(key, group);
                    group
                }
            };
            groups.push(group);
        }
        self.calls.iter_mut().for_each(|c| c.state.grow(self.keys.len()));
        Ok(groups)
    }

    fn update(&mut self, change: &SignedBatch, groups: &[u32]) -> Result<()> {
        let weights = change.weights_array();
        for (group, weight) in groups.iter().zip(weights.values()) {
            self.weights[*group as usize] += weight;
        }
        if groups.iter().any(|g| self.weights[*g as usize] < 0) {
            return Err(Error::diverged("a retracted row is not in the state of an aggregate"));
        }
        for call in &mut self.calls {
            let args = expr::evaluate_all(&call.args, &change.rows)?;
            let counted = match &call.filter {
                None => weights.clone(),
                Some(filter) => {
                    // A row that the filter leaves out weighs nothing.
                    let mask = expr::mask(filter, &change.rows)?;
                    weights.values().iter().enumerate().map(|(i, w)| if mask.value(i) { *w } else { 0 }).collect::<Vec<_>>().into()
                }
            };
            call.state.update(groups, &args, counted.values())?;
        }
        Ok(())
    }

    /// Aggregates' values of the groups for which `exists`, as (columns, their bytes).
    fn output(&mut self, groups: &[u32], exists: &[bool]) -> Result<Vec<ArrayRef>> {
        let live: Vec<u32> = groups.iter().zip(exists).filter(|(_, e)| **e).map(|(g, _)| *g).collect();
        let mut columns = if self.is_global() {
            Vec::new()
        } else {
            self.codec.decode(live.iter().map(|g| self.keys[*g as usize].as_ref()))?
        };
        for (i, call) in self.calls.iter_mut().enumerate() {
            let wanted = self.schema.field(self.group.len() + i).data_type();
            let values = call.state.output(&live)?;
            columns.push(if values.data_type() == wanted { values } else { arrow::compute::cast(&values, wanted)? });
        }
        Ok(columns)
    }

    /// −old +new where they differ.
    fn difference(
        &self,
        before: Vec<ArrayRef>,
        after: Vec<ArrayRef>,
        existed: &[bool],
        exists: &[bool],
    ) -> Result<Vec<SignedBatch>> {
        let aggregates: Vec<_> =
            self.schema.fields()[self.group.len()..].iter().map(|f| f.data_type().clone()).collect();
        let same: Box<dyn Fn(usize, usize) -> bool> = if aggregates.is_empty() {
            Box::new(|_, _| true)
        } else {
            let codec = RowCodec::new(&aggregates)?;
            let old = codec.encode(&before[self.group.len()..])?;
            let new = codec.encode(&after[self.group.len()..])?;
            Box::new(move |a, b| old.row(a).data() == new.row(b).data())
        };
        let (mut a, mut b) = (0, 0);
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (was, is) in existed.iter().zip(exists) {
            match (was, is) {
                (true, true) if same(a, b) => {}
                _ => {
                    if *was {
                        gone.push(a as u64);
                    }
                    if *is {
                        come.push(b as u64);
                    }
                }
            }
            a += usize::from(*was);
            b += usize::from(*is);
        }
        let mut out = Vec::with_capacity(2);
        for (columns, rows, weight) in [(before, gone, -1i64), (after, come, 1)] {
            let count = rows.len();
            if count == 0 {
                continue;
            }
            let rows = UInt64Array::from(rows);
            let columns: Vec<ArrayRef> =
                columns.iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<_>>()?;
            let batch = expr::batch_of(&self.schema, columns, count)?;
            out.push(SignedBatch::new(batch, Int64Array::from(vec![weight; count]))?);
        }
        Ok(out)
    }

    fn forget(&mut self, group: u32) {
        if self.is_global() {
            return;
        }
        let key = std::mem::take(&mut self.keys[group as usize]);
        // A group touched twice in one step is forgotten once.
        if self.ids.remove(&key).is_some() {
            for call in &mut self.calls {
                call.state.reset(group);
            }
            self.free.push(group);
        }
        if self.ids.is_empty() {
            self.keys.clear();
            self.weights.clear();
            self.free.clear();
            self.calls.iter_mut().for_each(|c| c.state.grow(0));
        }
    }

    pub(super) fn state_rows(&self) -> usize {
        let groups = if self.is_global() { 0 } else { self.ids.len() };
        groups + self.calls.iter().map(|c| c.state.rows()).sum::<usize>()
    }

    pub(super) fn state_bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(|k| 2 * k.len() + 56).sum();
        keys + self.calls.iter().map(|c| c.state.bytes()).sum::<usize>()
    }
}

/// Distinct groups in order of first occurrence.
fn distinct(groups: &[u32], count: usize) -> Vec<u32> {
    let mut seen = vec![false; count];
    groups.iter().copied().filter(|g| !std::mem::replace(&mut seen[*g as usize], true)).collect()
}
