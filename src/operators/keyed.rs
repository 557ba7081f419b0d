//! Streaming tables over keyed changelogs: "the row with this key is now this row" becomes −old +new.

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashMap;

use crate::error::{Error, Result};
use crate::state::{RowCodec, consolidate};
use crate::types::SignedBatch;

/// Key → current output row. The table itself is its durable form.
pub struct Keyed {
    schema: SchemaRef,
    /// Indices of the key columns in the output.
    key: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    rows: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Keyed {
    /// An empty table of `schema`, keyed by the columns at `key`.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let key_types: Vec<DataType> = key.iter().map(|k| types[*k].clone()).collect();
        Ok(Keyed {
            key_codec: RowCodec::new(&key_types)?,
            row_codec: RowCodec::new(&types)?,
            rows: HashMap::new(),
            key,
            schema,
        })
    }

    /// Takes the table's rows as the current ones.
    pub fn load(&mut self, rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            self.apply(&SignedBatch::inserts(batch.clone()), None)?;
        }
        Ok(())
    }

    /// Applies records in order: `change` holds the output row of each record, +1 for "is now", −1 for "is gone" (only its
    /// key columns count). `kept` says which rows the model's filters let through: a row that is filtered out is gone.
    /// Returns the table's change.
    pub fn apply(&mut self, change: &SignedBatch, kept: Option<&arrow::array::BooleanArray>) -> Result<SignedBatch> {
        if change.is_empty() {
            return Ok(SignedBatch::empty(self.schema.clone()));
        }
        let keys: Vec<ArrayRef> = self.key.iter().map(|k| change.rows.column(*k).clone()).collect();
        if keys.iter().any(|k| k.null_count() > 0) {
            return Err(Error::user("null-key", "a change event has NULL in its primary key")
                .with_hint("check the source's `primary_key` against its records"));
        }
        let keys = self.key_codec.encode(&keys)?;
        let rows = self.row_codec.encode(change.rows.columns())?;
        let mut out: Vec<(Box<[u8]>, i64)> = Vec::with_capacity(change.num_rows() * 2);
        for i in 0..change.num_rows() {
            let here = change.weight(i) > 0 && kept.is_none_or(|k| k.is_valid(i) && k.value(i));
            let key = keys.row(i).data();
            let old = if here {
                let row: Box<[u8]> = rows.row(i).data().into();
                out.push((row.clone(), 1));
                self.rows.insert(key.into(), row)
            } else {
                self.rows.remove(key)
            };
            if let Some(old) = old {
                out.push((old, -1));
            }
        }
        let columns = self.row_codec.decode(out.iter().map(|(row, _)| row.as_ref()))?;
        let weights: Int64Array = out.iter().map(|(_, w)| *w).collect::<Vec<_>>().into();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(out.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        consolidate(&self.schema, &[SignedBatch::new(batch, weights)?])
    }

    /// Rows held.
    pub fn state_rows(&self) -> usize {
        self.rows.len()
    }

    /// Bytes held, roughly.
    pub fn state_bytes(&self) -> usize {
        self.rows.iter().map(|(k, r)| k.len() + r.len() + 40).sum()
    }
}
