//! The first row of each partition: `row_number() over (partition by … order by …) = 1`.
//!
//! Per partition all rows are kept in order (their bytes, order columns first), so that the next one is known when the first is
//! retracted. A stream only remembers which keys it has seen: the first row per key in arrival order is final.

use arrow::array::{Int64Array, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, SortExpr};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;

use super::expr::{self, Bound};
use crate::error::{Error, Result};
use crate::state::RowCodec;
use crate::types::SignedBatch;

type Bytes = Box<[u8]>;

pub(super) struct First {
    schema: SchemaRef,
    partition: Vec<Bound>,
    order: Vec<Bound>,
    partition_codec: RowCodec,
    order_codec: RowCodec,
    row_codec: RowCodec,
    state: State,
}

enum State {
    /// Per partition: (order bytes, row bytes) → weight.
    Ordered { partitions: HashMap<Bytes, BTreeMap<(Bytes, Bytes), i64>>, rows: usize, bytes: usize },
    Seen(HashSet<Bytes>),
}

impl First {
    pub(super) fn new(
        input: &DFSchema,
        partition: &[Expr],
        order: &[SortExpr],
        streams: bool,
        session: &SessionState,
    ) -> Result<Self> {
        let schema = expr::arrow_schema(input);
        let order_exprs: Vec<Expr> = order.iter().map(|s| s.expr.clone()).collect();
        let options: Vec<SortOptions> =
            order.iter().map(|s| SortOptions { descending: !s.asc, nulls_first: s.nulls_first }).collect();
        let partition = expr::bind_all(partition, input, session)?;
        let order = expr::bind_all(&order_exprs, input, session)?;
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Ok(First {
            partition_codec: RowCodec::new(&expr::types(&partition, input)?)?,
            order_codec: RowCodec::with_options(&expr::types(&order, input)?, &options)?,
            row_codec: RowCodec::new(&types)?,
            partition,
            order,
            schema,
            state: if streams {
                State::Seen(HashSet::new())
            } else {
                State::Ordered { partitions: HashMap::new(), rows: 0, bytes: 0 }
            },
        })
    }

    pub(super) fn streams(&self) -> bool {
        matches!(self.state, State::Seen(_))
    }

    pub(super) fn step(&mut self, input: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        let change = SignedBatch::concat(&self.schema, input)?;
        if change.is_empty() {
            return Ok(Vec::new());
        }
        let keys = encode(&self.partition_codec, &expr::evaluate_all(&self.partition, &change.rows)?, change.num_rows())?;
        let orders = encode(&self.order_codec, &expr::evaluate_all(&self.order, &change.rows)?, change.num_rows())?;
        match &mut self.state {
            State::Seen(seen) => step_seen(seen, &change, keys, &orders),
            State::Ordered { partitions, rows, bytes } => {
                let encoded = encode(&self.row_codec, change.rows.columns(), change.num_rows())?;
                // First rows of touched partitions, before and after, in order of first touch.
                let mut before: Vec<(Bytes, Option<Bytes>)> = Vec::new();
                let mut touched: HashSet<Bytes> = HashSet::new();
                for (i, ((key, order), row)) in keys.into_iter().zip(orders).zip(encoded).enumerate() {
                    let partition = partitions.entry(key.clone()).or_default();
                    if touched.insert(key.clone()) {
                        before.push((key, partition.first_key_value().map(|((_, row), _)| row.clone())));
                    }
                    let size = order.len() + row.len() + 48;
                    match partition.entry((order, row)) {
                        std::collections::btree_map::Entry::Vacant(vacant) => {
                            vacant.insert(change.weight(i));
                            *rows += 1;
                            *bytes += size;
                        }
                        std::collections::btree_map::Entry::Occupied(mut entry) => {
                            *entry.get_mut() += change.weight(i);
                            if *entry.get() == 0 {
                                entry.remove();
                                *rows -= 1;
                                *bytes -= size;
                            }
                        }
                    }
                }
                let mut out_rows: Vec<Bytes> = Vec::new();
                let mut weights: Vec<i64> = Vec::new();
                for (key, old) in before {
                    let Some(partition) = partitions.get(&key) else { continue };
                    if partition.values().any(|w| *w < 0) {
                        return Err(Error::diverged("a retracted row is not in the state of a first-row node"));
                    }
                    let new = partition.first_key_value().map(|((_, row), _)| row.clone());
                    if partition.is_empty() {
                        partitions.remove(&key);
                    }
                    if old == new {
                        continue;
                    }
                    if let Some(old) = old {
                        out_rows.push(old);
                        weights.push(-1);
                    }
                    if let Some(new) = new {
                        out_rows.push(new);
                        weights.push(1);
                    }
                }
                if out_rows.is_empty() {
                    return Ok(Vec::new());
                }
                let columns = self.row_codec.decode(out_rows.iter().map(|r| r.as_ref()))?;
                let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
                Ok(vec![SignedBatch::new(rows, Int64Array::from(weights))?])
            }
        }
    }

    pub(super) fn state_rows(&self) -> usize {
        match &self.state {
            State::Seen(seen) => seen.len(),
            State::Ordered { rows, .. } => *rows,
        }
    }

    pub(super) fn state_bytes(&self) -> usize {
        match &self.state {
            State::Seen(seen) => seen.iter().map(|k| k.len() + 24).sum(),
            State::Ordered { bytes, partitions, .. } => bytes + partitions.len() * 64,
        }
    }
}

/// New keys only: the first of their rows in order.
fn step_seen(
    seen: &mut HashSet<Bytes>,
    change: &SignedBatch,
    keys: Vec<Bytes>,
    orders: &[Bytes],
) -> Result<Vec<SignedBatch>> {
    let mut best: HashMap<Bytes, usize> = HashMap::new();
    for (i, key) in keys.into_iter().enumerate() {
        if change.weight(i) <= 0 || seen.contains(&key) {
            continue;
        }
        best.entry(key)
            .and_modify(|at| {
                if orders[i] < orders[*at] {
                    *at = i;
                }
            })
            .or_insert(i);
    }
    let mut winners: Vec<u64> = best.values().map(|i| *i as u64).collect();
    winners.sort_unstable();
    seen.extend(best.into_keys());
    if winners.is_empty() {
        return Ok(Vec::new());
    }
    let rows = arrow::compute::take_record_batch(&change.rows, &UInt64Array::from(winners))?;
    Ok(vec![SignedBatch::inserts(rows)])
}

fn encode(codec: &RowCodec, columns: &[arrow::array::ArrayRef], rows: usize) -> Result<Vec<Bytes>> {
    if columns.is_empty() {
        return Ok(vec![Bytes::default(); rows]);
    }
    Ok(codec.encode(columns)?.iter().map(|r| Bytes::from(r.data())).collect())
}
