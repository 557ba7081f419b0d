//! `sum(DISTINCT x)` and `avg(DISTINCT x)`: each value with its number of rows, so that frames can slide.

use super::total::{Finish, Total};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{HashMap, Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::utils::format_state_name;
use std::sync::Arc;

/// The state column: 16 bytes per distinct value.
pub fn state_fields(name: &str) -> Vec<FieldRef> {
    vec![Arc::new(Field::new(format_state_name(name, "distinct values"), DataType::Binary, true))]
}

#[derive(Debug)]
pub struct Distinct<T: Total> {
    rows: HashMap<T::Value, i64>,
    finish: Finish,
    null: ScalarValue,
}

impl<T: Total> Distinct<T> {
    pub fn new(finish: Finish, data_type: &DataType) -> Result<Self> {
        Ok(Distinct { rows: HashMap::default(), finish, null: ScalarValue::try_from(data_type)? })
    }
}

impl<T: Total> Accumulator for Distinct<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        T::for_each(values, |_, value| *self.rows.entry(value).or_default() += 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        T::for_each(values, |_, value| {
            let rows = self.rows.entry(value).or_default();
            *rows -= 1;
            if *rows == 0 {
                self.rows.remove(&value);
            }
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.rows.is_empty() {
            return Ok(self.null.clone());
        }
        // Exact, so the map's order does not matter.
        let mut total = T::default();
        self.rows.keys().for_each(|value| total.add(*value, 1));
        total.finish(self.rows.len() as i64, &self.finish)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.capacity() * (size_of::<(T::Value, i64)>() + 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let bytes = self.rows.keys().flat_map(|value| T::value_bytes(*value)).collect();
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [states] = states else { return internal_err!("the state of a distinct sum has one column") };
        for bytes in states.as_binary::<i32>().iter().flatten() {
            let (values, rest) = bytes.as_chunks::<16>();
            if !rest.is_empty() {
                return internal_err!("the state of a distinct sum is damaged");
            }
            for value in values {
                *self.rows.entry(T::value_from_bytes(*value)).or_default() += 1;
            }
        }
        Ok(())
    }
}
