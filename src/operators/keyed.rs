//! Streaming tables over keyed changelogs: upserts and deletes by key → signed rows.
//!
//! 1. [`Keyed::last_per_key`] reduces an epoch's changelog to the last record of each key: the order of records decides, and
//!    only here.
//! 2. The runtime runs the upserts among them through the model's circuit, which filters and projects.
//! 3. [`Keyed::apply`] replaces the rows of all touched keys by what came out: a key that was deleted, or whose new record the
//!    query filters out, has none.
//!
//! The state is the table itself, key → row: after a restart [`Keyed::load`] takes it from there.

use arrow::array::{BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::state::{GroupIndex, Multiset, RowCodec, StateReader, StateWriter};
use crate::types::SignedBatch;

/// Current row by key of one streaming table.
pub struct Keyed {
    schema: SchemaRef,
    /// The key's columns in the table.
    key: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    keys: GroupIndex,
    /// Encoded row by key id; empty box: none (encoded rows are never empty).
    rows: Vec<Box<[u8]>>,
    row_bytes: usize,
}

/// The last record of each key of one epoch.
#[derive(Debug)]
pub struct Latest {
    /// Key columns of all touched keys.
    pub keys: RecordBatch,
    /// The records of those that were upserted, in the input's schema.
    pub upserts: SignedBatch,
}

impl Keyed {
    /// A table of `schema`, which holds the key in the columns `key`, in the order the source declares them.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self> {
        let type_of = |c: &usize| schema.field(*c).data_type().clone();
        Ok(Keyed {
            key_codec: RowCodec::new(key.iter().map(type_of))?,
            row_codec: RowCodec::new(schema.fields().iter().map(|f| f.data_type().clone()))?,
            schema,
            key,
            keys: GroupIndex::new(),
            rows: Vec::new(),
            row_bytes: 0,
        })
    }

    /// The last record of each key: +1 is an upsert, −1 a delete. `key` are columns of the records.
    pub fn last_per_key(records: &[SignedBatch], schema: &SchemaRef, key: &[usize]) -> Result<Latest> {
        let all = SignedBatch::concat(schema, records)?;
        let types: Vec<DataType> = key.iter().map(|c| schema.field(*c).data_type().clone()).collect();
        let columns: Vec<_> = key.iter().map(|c| all.rows.column(*c).clone()).collect();
        let keys = RowCodec::new(types)?.encode(&columns, all.num_rows())?;
        let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(all.num_rows());
        (0..all.num_rows()).for_each(|i| {
            last.insert(keys.row(i), i);
        });
        let mut touched: Vec<u64> = last.into_values().map(|i| i as u64).collect();
        touched.sort_unstable();
        let upserts: Vec<u64> = touched.iter().copied().filter(|i| all.weight(*i as usize) > 0).collect();
        Ok(Latest {
            keys: take_record_batch(&all.rows.project(key)?, &UInt64Array::from(touched))?,
            upserts: SignedBatch::inserts(take_record_batch(&all.rows, &UInt64Array::from(upserts))?),
        })
    }

    /// Replaces the rows of the keys in `touched` by `rows`, which have no other keys. Returns −old and +new where they differ.
    pub fn apply(&mut self, touched: &RecordBatch, rows: &[RecordBatch]) -> Result<Vec<SignedBatch>> {
        let mut next: HashMap<u32, Option<Box<[u8]>>> = HashMap::with_capacity(touched.num_rows());
        let mut order: Vec<u32> = Vec::with_capacity(touched.num_rows());
        let keys = self.key_codec.encode(&self.key_columns(touched)?, touched.num_rows())?;
        for i in 0..touched.num_rows() {
            let id = self.intern(keys.row(i))?;
            if next.insert(id, None).is_none() {
                order.push(id);
            }
        }
        for batch in rows {
            let columns: Vec<_> = self.key.iter().map(|c| batch.column(*c).clone()).collect();
            let keys = self.key_codec.encode(&columns, batch.num_rows())?;
            let encoded = self.row_codec.encode(batch.columns(), batch.num_rows())?;
            for i in 0..batch.num_rows() {
                let slot = next.get_mut(&self.keys.find_one(keys.row(i)));
                let slot = slot.ok_or_else(|| Error::internal("a keyed row has a key that no record touched"))?;
                if slot.replace(encoded.row(i).into()).is_some() {
                    return Err(Error::user(
                        "duplicate-key",
                        "the query gives several rows for one key of its changelog",
                    ));
                }
            }
        }
        let (mut changed, mut weights) = (Vec::new(), Vec::new());
        for id in order {
            let new = next.remove(&id).flatten().unwrap_or_default();
            let old = std::mem::replace(&mut self.rows[id as usize], new.clone());
            if old != new {
                for (row, weight) in [(old, -1), (new.clone(), 1)] {
                    // Bytes of no row are empty.
                    if !row.is_empty() {
                        let size = Multiset::value_size(row.len());
                        self.row_bytes = if weight > 0 { self.row_bytes + size } else { self.row_bytes - size };
                        changed.push(row);
                        weights.push(weight);
                    }
                }
            }
            if new.is_empty() {
                self.keys.remove(id);
            }
        }
        if changed.is_empty() {
            return Ok(vec![]);
        }
        let columns = self.row_codec.decode(changed.iter().map(|r| &**r))?;
        let rows = super::eval::rows(&self.schema, columns, weights.len())?;
        Ok(vec![SignedBatch::new(rows, Int64Array::from(weights))?])
    }

    /// Takes the table's rows as they are after a restart.
    pub fn load(&mut self, rows: &[RecordBatch]) -> Result<()> {
        let all = concat_batches(&self.schema, rows)?;
        let fresh = Keyed::new(self.schema.clone(), self.key.clone())?;
        *self = fresh;
        let keys = all.project(&self.key)?;
        self.apply(&keys, &[all]).map(|_| ())
    }

    /// Writes the current rows.
    pub fn save(&mut self, out: &mut StateWriter) {
        self.keys.save(out);
        out.strings("keyed", self.rows.iter().map(|row| &**row));
    }

    /// Becomes what [`Keyed::save`] wrote.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.keys = GroupIndex::restore(from)?;
        let rows = from.strings("keyed")?;
        self.rows = rows.iter().map(Box::from).collect();
        let sizes = self.rows.iter().filter(|row| !row.is_empty()).map(|row| Multiset::value_size(row.len()));
        self.row_bytes = sizes.sum();
        Ok(())
    }

    /// The table's own rows changed by this: what was committed after the state was stored.
    pub fn follow(&mut self, change: &[SignedBatch]) -> Result<()> {
        if change.iter().all(SignedBatch::is_empty) {
            return Ok(());
        }
        let (mut inserted, mut keys) = (Vec::new(), Vec::new());
        for batch in change {
            keys.push(batch.rows.project(&self.key)?);
            let mask: BooleanArray = (0..batch.num_rows()).map(|i| Some(batch.weight(i) > 0)).collect();
            inserted.push(filter_record_batch(&batch.rows, &mask)?);
        }
        let keys = concat_batches(&keys[0].schema(), &keys)?;
        self.apply(&keys, &inserted).map(|_| ())
    }

    /// Keys with a row.
    pub fn state_rows(&self) -> usize {
        self.keys.len()
    }

    /// Bytes they take.
    pub fn state_bytes(&self) -> usize {
        self.keys.heap_size() + self.rows.capacity() * 16 + self.row_bytes
    }

    fn key_columns(&self, touched: &RecordBatch) -> Result<Vec<arrow::array::ArrayRef>> {
        let types = self.key.iter().map(|c| self.schema.field(*c).data_type());
        let cast = |(c, t)| {
            if arrow::array::Array::data_type(c) == t {
                Ok(std::sync::Arc::clone(c))
            } else {
                arrow::compute::cast(c, t)
            }
        };
        touched.columns().iter().zip(types).map(|pair| Ok(cast(pair)?)).collect()
    }

    fn intern(&mut self, key: &[u8]) -> Result<u32> {
        let id = self.keys.intern_one(key)?;
        if id as usize >= self.rows.len() {
            self.rows.resize(id as usize + 1, Box::default());
        }
        Ok(id)
    }
}
