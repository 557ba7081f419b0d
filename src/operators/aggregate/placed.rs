//! first_value, last_value and nth_value: the rows of each group in their order, and the one at a place; where nothing is ever retracted,
//! only the first or the last.

use arrow::array::{Array, ArrayRef};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::SortField;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};

use super::calls::{Change, GroupStates};
use super::extremes::decoded;
use super::kept::Kept;
use crate::error::{Error, Result};
use crate::operators::eval::Exprs;
use crate::plan::incremental::Place;
use crate::state::{RowCodec, StateReader, StateWriter};

pub(super) struct Placed {
    place: Place,
    /// IGNORE NULLS: rows whose value is NULL are none.
    skips_nulls: bool,
    /// Of the ORDER BY values, each with its direction, then the value.
    codec: RowCodec,
    /// The last of the codec's columns.
    value: usize,
    output: DataType,
    rows: Kept,
}

impl Placed {
    /// Also the expressions whose values [`GroupStates::update`] wants as arguments.
    pub fn new(
        call: &Expr,
        place: Place,
        append_only: bool,
        input: &DFSchema,
        session: &SessionState,
    ) -> Result<(Exprs, Self)> {
        let Expr::AggregateFunction(AggregateFunction { params, .. }) = call else {
            return Err(Error::internal("a place in an order is asked of no aggregate"));
        };
        let value = params.args.first().ok_or_else(|| Error::internal("a place in an order has no value"))?;
        let exprs = params.order_by.iter().map(|key| &key.expr).chain([value]);
        let exprs = Exprs::new(exprs, input, session)?;
        let options = params.order_by.iter().map(|key| SortOptions::new(!key.asc, key.nulls_first));
        let options = options.chain([SortOptions::default()]);
        let fields = exprs.types.iter().zip(options).map(|(t, o)| SortField::new_with_options(t.clone(), o));
        let state = Placed {
            place,
            skips_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
            codec: RowCodec::ordered(fields.collect())?,
            value: params.order_by.len(),
            output: exprs.types[params.order_by.len()].clone(),
            rows: match place {
                Place::First | Place::Last if append_only => Kept::best(place == Place::Last),
                _ => Kept::all(),
            },
        };
        Ok((exprs, state))
    }
}

impl Placed {
    /// The row of a group at the place.
    fn at(&self, group: u32) -> Option<&[u8]> {
        match (self.place, &self.rows) {
            (Place::First, rows) => rows.first(group),
            (Place::Last, rows) => rows.last(group),
            (Place::Nth(n), Kept::All(rows)) if n > 0 => rows.get(group).nth(n - 1),
            (Place::Nth(n), Kept::All(rows)) => rows.get(group).nth_back(-(n + 1)),
            (Place::Nth(_), Kept::Best(_)) => None,
        }
    }
}

impl GroupStates for Placed {
    fn grow(&mut self, bound: usize) {
        self.rows.grow(bound);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        let nulls = if self.skips_nulls { change.args[self.value].logical_nulls() } else { None };
        for (i, weight) in change.weights.iter().enumerate() {
            if *weight != 0 && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i)) {
                self.rows.add(change.groups[i] as usize, encoded.row(i), *weight)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let rows: Vec<Option<&[u8]>> = groups.iter().map(|group| self.at(*group)).collect();
        decoded(&rows, &self.codec, self.value, &self.output)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.rows.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.rows.keep(groups);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.heap_size()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.rows.save("placed", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.rows.restore("placed", from, bound)
    }
}
