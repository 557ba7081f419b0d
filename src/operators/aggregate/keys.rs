//! Keys of groups: what GROUP BY says of each row, once for each grouping set.

use arrow::array::{ArrayRef, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::operators::eval::Exprs;
use crate::plan::incremental::GroupingSet;
use crate::state::{Encoded, RowCodec};

/// A key is the group expressions' values. Under grouping sets, those that a set rolls up are NULL, and the set's number stands behind
/// them: a NULL of the data is another key.
pub(super) struct Keys {
    exprs: Exprs,
    sets: Vec<GroupingSet>,
    codec: RowCodec,
    /// Types of a key's columns.
    types: Vec<DataType>,
}

impl Keys {
    /// `number` is the type of a set's number.
    pub fn new(
        group: &[Expr],
        sets: &[GroupingSet],
        number: Option<&DataType>,
        input: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let exprs = Exprs::new(group, input, session)?;
        let mut types = exprs.types.clone();
        if !sets.is_empty() {
            types.extend([number.ok_or_else(|| Error::internal("grouping sets without a number"))?.clone()]);
        }
        Ok(Keys { exprs, sets: sets.to_vec(), codec: RowCodec::new(types.iter().cloned())?, types })
    }

    /// Columns of a key.
    pub fn width(&self) -> usize {
        self.types.len()
    }

    /// The keys of all rows, by grouping set.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Encoded>> {
        let columns = self.exprs.evaluate(rows)?;
        if self.sets.is_empty() {
            return Ok(vec![self.codec.encode(&columns, rows.num_rows())?]);
        }
        self.sets.iter().map(|set| self.of_set(set, &columns, rows.num_rows())).collect()
    }

    fn of_set(&self, set: &GroupingSet, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        let column = |((column, rolled_up), data_type): ((&ArrayRef, &bool), &DataType)| match rolled_up {
            true => new_null_array(data_type, rows),
            false => Arc::clone(column),
        };
        let mut key: Vec<ArrayRef> = columns.iter().zip(&set.rolled_up).zip(&self.types).map(column).collect();
        let number: ArrayRef = Arc::new(UInt64Array::from(vec![set.number; rows]));
        key.push(cast(&number, &self.types[columns.len()])?);
        self.codec.encode(&key, rows)
    }

    /// Keys of the groups that are there without any row: the one of a global aggregate, of every empty grouping set.
    pub fn permanent(&self) -> Result<Vec<Vec<u8>>> {
        if self.types.is_empty() {
            return Ok(vec![vec![]]);
        }
        let nulls: Vec<ArrayRef> = self.exprs.types.iter().map(|t| new_null_array(t, 1)).collect();
        let empty = self.sets.iter().filter(|set| set.rolled_up.iter().all(|rolled_up| *rolled_up));
        empty.map(|set| Ok(self.of_set(set, &nulls, 1)?.row(0).to_vec())).collect()
    }

    /// The columns of encoded keys.
    pub fn decode<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.codec.decode(keys)
    }
}
