//! What a relation holds, as a multiset of rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::stock_sessions::in_stock_functions;
use crate::plan::stored::to_stored;
use crate::plan::{CompiledModel, Planner};
use crate::state::RowCodec;
use crate::types::SignedBatch;

/// Row bytes → weight.
pub type Multiset = BTreeMap<Vec<u8>, i64>;

/// Rows of one schema ↔ multisets.
pub struct Contents {
    schema: SchemaRef,
    codec: RowCodec,
}

impl Contents {
    pub fn new(schema: &SchemaRef) -> Self {
        let codec = RowCodec::new(schema.fields().iter().map(|f| f.data_type().clone())).unwrap();
        Contents { schema: Arc::clone(schema), codec }
    }

    pub fn of(&self, batches: &[RecordBatch]) -> Multiset {
        let mut total = Multiset::new();
        batches.iter().for_each(|b| self.add(&mut total, b, |_| 1));
        total
    }

    pub fn add_signed(&self, total: &mut Multiset, change: &[SignedBatch]) {
        change.iter().for_each(|b| self.add(total, &b.rows, |i| b.weight(i)));
    }

    fn add(&self, total: &mut Multiset, rows: &RecordBatch, weight: impl Fn(usize) -> i64) {
        let rows = to_stored(rows, &self.schema).unwrap();
        let encoded = self.codec.encode(rows.columns(), rows.num_rows()).unwrap();
        for i in 0..rows.num_rows() {
            *total.entry(encoded.row(i).to_vec()).or_default() += weight(i);
        }
        total.retain(|_, w| *w != 0);
    }

    /// Rows and their weights.
    pub fn decoded<'a>(&self, set: impl Iterator<Item = (&'a Vec<u8>, &'a i64)>) -> (RecordBatch, Vec<i64>) {
        let (rows, weights): (Vec<&[u8]>, Vec<i64>) = set.map(|(row, weight)| (row.as_slice(), *weight)).unzip();
        let columns = self.codec.decode(rows).unwrap();
        (RecordBatch::try_new(Arc::clone(&self.schema), columns).unwrap(), weights)
    }

    /// Both multisets where they differ, readable.
    pub fn difference(&self, got: &Multiset, expected: &Multiset) -> String {
        let shown = |set: &Multiset, other: &Multiset| {
            let (rows, weights) = self.decoded(set.iter().filter(|(r, w)| other.get(*r) != Some(*w)));
            format!("weights {weights:?}\n{}", arrow::util::pretty::pretty_format_batches(&[rows]).unwrap())
        };
        format!("maintained {}\nexpected {}", shown(got, expected), shown(expected, got))
    }
}

/// Queries that DataFusion 55.2 plans but cannot execute. There an oracle has no answer.
pub const STOCK_LIMITS: [&str; 0] = [];

/// The rows of a model computed from nothing by stock DataFusion; None where it cannot.
pub async fn stock(
    planner: &Planner,
    model: &CompiledModel,
    providers: &[Arc<dyn TableProvider>],
    clock: i64,
) -> Option<Vec<RecordBatch>> {
    let plan = planner.bind_at(model, providers, clock).unwrap();
    let (plan, _) = in_stock_functions(plan);
    let collected = match planner.execute(&plan).await {
        Ok(stream) => stream.try_collect::<Vec<RecordBatch>>().await.map_err(crate::error::Error::from),
        Err(error) => Err(error),
    };
    match collected {
        Ok(batches) => Some(batches),
        Err(error) if STOCK_LIMITS.iter().any(|limit| error.message().contains(limit)) => None,
        Err(error) => panic!("{error:?}\n{}", model.model.sql),
    }
}
