//! The lake as a whole. Each file is one promise.

mod commits;
mod crashes;
mod follow;
mod maintenance;
mod oracle;
mod other_engines;
mod own_tables;
mod scans;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, Int64Builder, ListBuilder,
    MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::env::{Env, FaultPlan, FaultyStore};
use crate::error::Result;
use crate::types::SignedBatch;

/// Key → how often the row of that key is in a relation. All columns of a row follow from its key.
pub type Model = BTreeMap<i64, i64>;

pub fn rows(keys: &[i64]) -> RecordBatch {
    let name = |k: &i64| match k % 7 {
        0 => None,
        1 => Some("x".repeat(70)),
        n => Some(format!("name{n}")),
    };
    let float = |k: &i64| match k % 5 {
        0 => Some(f64::NAN),
        1 => Some(-0.0),
        2 => None,
        3 => Some(f64::INFINITY),
        _ => Some(*k as f64 / 3.0),
    };
    let mut tags = ListBuilder::new(StringBuilder::new());
    let mut attributes = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for k in keys {
        for i in 0..k % 3 {
            tags.values().append_option((i != 1).then(|| format!("t{i}")));
            attributes.keys().append_value(format!("a{i}"));
            attributes.values().append_option((i != 1).then_some(*k));
        }
        tags.append(k % 4 != 0);
        attributes.append(true).unwrap();
    }
    let inner: ArrayRef = Arc::new(keys.iter().map(|k| (k % 2 == 0).then_some(*k as i32)).collect::<Int32Array>());
    let nulls = arrow::buffer::NullBuffer::from(keys.iter().map(|k| k % 6 != 5).collect::<Vec<_>>());
    let fields = vec![Field::new("x", arrow::datatypes::DataType::Int32, true)].into();
    let decimals: Decimal128Array = keys.iter().map(|k| Some(i128::from(*k) * 9_007_199_254_740_993 / 7)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(keys.to_vec()))),
        ("name", Arc::new(keys.iter().map(name).collect::<StringArray>())),
        ("ratio", Arc::new(keys.iter().map(float).collect::<Float64Array>())),
        ("day", Arc::new(keys.iter().map(|k| (k % 3 != 0).then_some((*k % 4) as i32)).collect::<Date32Array>())),
        (
            "at",
            Arc::new(
                keys.iter().map(|k| Some(k * 1001 - 500)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
            ),
        ),
        ("amount", Arc::new(decimals.with_precision_and_scale(20, 2).unwrap())),
        ("tags", Arc::new(tags.finish())),
        ("attributes", Arc::new(attributes.finish())),
        ("inner", Arc::new(StructArray::new(fields, vec![inner], Some(nulls)))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, a)| a).collect()).unwrap()
}

pub fn row_schema() -> SchemaRef {
    rows(&[]).schema()
}

pub fn signed(changes: &[(i64, i64)]) -> SignedBatch {
    let keys: Vec<i64> = changes.iter().map(|(k, _)| *k).collect();
    SignedBatch::new(rows(&keys), Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w))).unwrap()
}

/// Checks every column of `batches`, and returns how often each key is there.
pub fn model_of(batches: &[RecordBatch]) -> Model {
    let mut model = Model::new();
    for batch in batches {
        let keys = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
        let expected = super::schema::conform_batch(&rows(&keys), &batch.schema()).unwrap();
        let hasher = super::hash::RowHasher::new(&batch.schema()).unwrap();
        assert_eq!(hasher.hash(batch).unwrap(), hasher.hash(&expected).unwrap(), "a column changed:\n{batch:?}");
        for key in keys {
            *model.entry(key).or_default() += 1;
        }
    }
    model
}

pub async fn content(table: &Table) -> Model {
    let batches: Vec<RecordBatch> = table.snapshot().rows().try_collect().await.unwrap();
    let model = model_of(&batches);
    assert_eq!(model.values().sum::<i64>() as u64, table.row_count());
    model
}

pub fn stream(batches: Vec<RecordBatch>) -> futures::stream::BoxStream<'static, Result<RecordBatch>> {
    futures::stream::iter(batches.into_iter().map(Ok)).boxed()
}

pub struct World {
    pub env: Env,
    pub store: FaultyStore,
    /// Of data files. Where it is small, the few rows of a file are as many as compaction joins without decoding them.
    pub target_file_size: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let store = FaultyStore::new(FaultPlan::default());
        // The in-memory store stamps objects with the real time: simulated time starts there.
        let env = Env::simulated(seed, Env::real().now_micros(), BTreeMap::new(), store.clone());
        let target_file_size = if seed % 2 == 1 { 64 << 10 } else { LakeOptions::default().target_file_size };
        World { env, store, target_file_size }
    }

    /// The same store seen by a process that crashes at `point`.
    pub fn crashing_at(&self, seed: u64, point: &str) -> Env {
        let vars = BTreeMap::from([(crate::env::CRASH_ENV.to_string(), point.to_string())]);
        Env::simulated(seed, self.env.now_micros(), vars, self.store.clone())
    }

    pub fn lake(&self) -> Lake {
        self.lake_of(&self.env)
    }

    /// Whose locators may take so many bytes of memory each.
    pub fn lake_with(&self, locator_memory: usize) -> Lake {
        let options = LakeOptions { locator_memory, ..self.options() };
        Lake::open(&self.env, "memory://lake", options).unwrap()
    }

    pub fn lake_of(&self, env: &Env) -> Lake {
        Lake::open(env, "memory://lake", self.options()).unwrap()
    }

    fn options(&self) -> LakeOptions {
        LakeOptions { put_retries: 1, target_file_size: self.target_file_size, ..LakeOptions::default() }
    }
}

pub fn spec(deletion_vectors: bool) -> TableSpec {
    TableSpec::new(row_schema(), deletion_vectors)
}

pub fn instance(number: i64) -> CommitRequest {
    CommitRequest { txns: vec![(INSTANCE.to_string(), number)], ..CommitRequest::default() }
}
