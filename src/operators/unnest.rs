//! UNNEST: rows of lists' elements, columns of structs' fields.
//!
//! Linear: every row of a change is unfolded with its weight. Lists of one row stand beside each other, as long as the longest; shorter ones
//! are filled up with NULL. Lists in lists are unfolded from the outside in, level by level, as DataFusion's `UnnestExec` does.

use arrow::array::{Array, ArrayRef, AsArray, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::NullHandling;
use std::ops::Range;
use std::sync::Arc;

use super::eval;
use super::linear::in_parts;
use crate::error::{Error, Result};
use crate::plan::incremental::UnnestedList;
use crate::types::SignedBatch;

/// The operator. It remembers nothing.
pub(super) struct Unnest {
    pub lists: Vec<UnnestedList>,
    /// Struct columns of the input.
    pub structs: Vec<usize>,
    pub nulls: NullHandling,
    pub schema: SchemaRef,
}

impl Unnest {
    pub fn step(&self, input: Vec<SignedBatch>, threads: usize) -> Result<Vec<SignedBatch>> {
        in_parts(input, threads, |batch| match batch.is_empty() {
            true => Ok(None),
            false => Ok(self.batch(&batch)?.filter(|b| !b.is_empty())),
        })
    }

    /// None: no row has an element.
    fn batch(&self, batch: &SignedBatch) -> Result<Option<SignedBatch>> {
        let Some(unfolded) = self.unfold(batch)? else { return Ok(None) };
        let rows = unfolded.origin.as_ref().map_or(batch.num_rows(), UInt64Array::len);
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (index, column) in batch.rows.columns().iter().enumerate() {
            let mut is_list = false;
            for (list, elements) in self.lists.iter().zip(&unfolded.elements) {
                if list.column == index {
                    is_list = true;
                    columns.push(Arc::clone(elements));
                }
            }
            if is_list {
                continue;
            }
            let column = repeated(column, unfolded.origin.as_ref())?;
            if self.structs.contains(&index) {
                columns.extend(fields(&column)?);
            } else {
                columns.push(column);
            }
        }
        let weights = match (&batch.weights, &unfolded.origin) {
            (Some(weights), Some(origin)) => Some(take(weights, origin, None)?.as_primitive().clone()),
            (weights, _) => weights.clone(),
        };
        Ok(Some(SignedBatch { rows: eval::rows(&self.schema, columns, rows)?, weights }))
    }

    fn unfold(&self, batch: &SignedBatch) -> Result<Option<Unfolded>> {
        let input = |list: &UnnestedList| {
            batch.rows.columns().get(list.column).ok_or_else(|| Error::internal("an unnested column is missing"))
        };
        let mut elements = self.lists.iter().map(|l| input(l).cloned()).collect::<Result<Vec<ArrayRef>>>()?;
        let mut origin: Option<UInt64Array> = None;
        let deepest = self.lists.iter().map(|l| l.depth).max().unwrap_or(0);
        for level in (1..=deepest).rev() {
            let mut lists = Vec::new();
            for (list, elements) in self.lists.iter().zip(&mut elements) {
                // A list that begins at this level was repeated with its row until now.
                if list.depth == level {
                    *elements = repeated(input(list)?, origin.as_ref())?;
                }
                if list.depth >= level {
                    lists.push(ranges(elements)?);
                }
            }
            let rows = rows_of(&lists);
            let lengths: Vec<usize> = (0..rows)
                .map(|row| lists.iter().map(|list| self.length(list.rows[row].as_ref())).max().unwrap_or(0))
                .collect();
            if lengths.iter().all(|l| *l == 0) {
                return Ok(None);
            }
            let mut lists = lists.into_iter();
            for (list, elements) in self.lists.iter().zip(&mut elements) {
                if list.depth >= level
                    && let Some(lists) = lists.next()
                {
                    *elements = lists.elements(&lengths)?;
                }
            }
            let repeat = lengths.iter().enumerate().flat_map(|(row, times)| std::iter::repeat_n(row as u64, *times));
            let repeat = UInt64Array::from_iter_values(repeat);
            origin = Some(match origin {
                Some(origin) => take(&origin, &repeat, None)?.as_primitive().clone(),
                None => repeat,
            });
        }
        Ok(Some(Unfolded { elements, origin }))
    }

    /// Rows that a list makes on its own; None is NULL.
    fn length(&self, list: Option<&Range<usize>>) -> usize {
        match (list.map(ExactSizeIterator::len), self.nulls) {
            (None, NullHandling::Drop) => 0,
            (None, _) | (Some(0), NullHandling::PreserveAndExpandEmpty) => 1,
            (Some(length), _) => length,
        }
    }
}

struct Unfolded {
    /// Per unnested list, its element in each row of the output.
    elements: Vec<ArrayRef>,
    /// The row of the input each row of the output comes from; None: the same.
    origin: Option<UInt64Array>,
}

/// A column of lists: all elements, and where each row has its own.
struct Lists {
    values: ArrayRef,
    rows: Vec<Option<Range<usize>>>,
}

impl Lists {
    /// The elements, each row filled up with NULL to its length.
    fn elements(&self, lengths: &[usize]) -> Result<ArrayRef> {
        let mut picked = Vec::with_capacity(lengths.iter().sum());
        for (row, length) in self.rows.iter().zip(lengths) {
            let elements = row.clone().unwrap_or(0..0);
            let missing = length - elements.len();
            picked.extend(elements.map(|i| Some(i as u64)));
            picked.extend(std::iter::repeat_n(None, missing));
        }
        Ok(take(&self.values, &UInt64Array::from(picked), None)?)
    }
}

fn rows_of(lists: &[Lists]) -> usize {
    lists.first().map_or(0, |list| list.rows.len())
}

fn repeated(column: &ArrayRef, origin: Option<&UInt64Array>) -> Result<ArrayRef> {
    match origin {
        Some(origin) => Ok(take(column, origin, None)?),
        None => Ok(Arc::clone(column)),
    }
}

fn ranges(lists: &ArrayRef) -> Result<Lists> {
    let (values, range): (ArrayRef, Box<dyn Fn(usize) -> Range<usize> + '_>) = match lists.data_type() {
        DataType::List(_) => {
            let list = lists.as_list::<i32>();
            let offsets = list.value_offsets();
            (Arc::clone(list.values()), Box::new(|i| offsets[i] as usize..offsets[i + 1] as usize))
        }
        DataType::LargeList(_) => {
            let list = lists.as_list::<i64>();
            let offsets = list.value_offsets();
            (Arc::clone(list.values()), Box::new(|i| offsets[i] as usize..offsets[i + 1] as usize))
        }
        DataType::FixedSizeList(..) => {
            let list = lists.as_fixed_size_list();
            let size = list.value_length() as usize;
            // Of a slice, values begin at its first row.
            (Arc::clone(list.values()), Box::new(move |i| i * size..(i + 1) * size))
        }
        other => return Err(Error::internal(format!("{other} is no list"))),
    };
    // A NULL may hide elements.
    let rows = (0..lists.len()).map(|i| lists.is_valid(i).then(|| range(i))).collect();
    Ok(Lists { values, rows })
}

/// The fields of a struct column; those of a NULL are NULL.
fn fields(column: &ArrayRef) -> Result<Vec<ArrayRef>> {
    let fields: &StructArray =
        column.as_struct_opt().ok_or_else(|| Error::internal("an unnested column is no struct"))?;
    let Some(nulls) = fields.nulls().filter(|n| n.null_count() > 0) else { return Ok(fields.columns().to_vec()) };
    let absent = arrow::array::BooleanArray::new(!nulls.inner(), None);
    fields.columns().iter().map(|c| Ok(arrow::compute::nullif(c, &absent)?)).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    /// `lists` beside a name per row, the second row retracted.
    fn input(lists: Vec<Option<Vec<Option<i64>>>>) -> SignedBatch {
        let names = StringArray::from_iter_values((0..lists.len()).map(|i| format!("r{i}")));
        let weights: Vec<i64> = (0..lists.len()).map(|i| if i == 1 { -1 } else { 1 }).collect();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        let schema = Schema::new(vec![
            Field::new("xs", lists.data_type().clone(), true),
            Field::new("name", DataType::Utf8, true),
        ]);
        let rows =
            arrow::array::RecordBatch::try_new(Arc::new(schema), vec![Arc::new(lists), Arc::new(names)]).unwrap();
        SignedBatch::new(rows, Int64Array::from(weights)).unwrap()
    }

    fn unfolded(nulls: NullHandling, lists: Vec<Option<Vec<Option<i64>>>>) -> Vec<(Option<i64>, String, i64)> {
        let schema =
            Schema::new(vec![Field::new("x", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
        let lists_of = vec![UnnestedList { column: 0, depth: 1 }];
        let unnest = Unnest { lists: lists_of, structs: vec![], nulls, schema: Arc::new(schema) };
        let output = unnest.step(vec![input(lists)], 1).unwrap();
        let mut rows = Vec::new();
        for batch in &output {
            let (xs, names) =
                (batch.rows.column(0).as_primitive::<Int64Type>(), batch.rows.column(1).as_string::<i32>());
            rows.extend(
                (0..batch.num_rows())
                    .map(|i| (xs.is_valid(i).then(|| xs.value(i)), names.value(i).to_string(), batch.weight(i))),
            );
        }
        rows
    }

    #[test]
    fn null_and_empty_lists_go_or_leave_a_row() {
        let lists = || vec![Some(vec![Some(1), None]), Some(vec![Some(2)]), None, Some(vec![])];
        let elements = vec![(Some(1), "r0".into(), 1), (None, "r0".into(), 1), (Some(2), "r1".into(), -1)];
        assert_eq!(unfolded(NullHandling::Drop, lists()), elements);
        let with_null = [elements.clone(), vec![(None, "r2".to_string(), 1)]].concat();
        assert_eq!(unfolded(NullHandling::Preserve, lists()), with_null);
        let with_empty = [with_null, vec![(None, "r3".to_string(), 1)]].concat();
        assert_eq!(unfolded(NullHandling::PreserveAndExpandEmpty, lists()), with_empty);
        assert_eq!(unfolded(NullHandling::Drop, vec![None, Some(vec![])]), []);
    }

    #[test]
    fn elements_hidden_by_a_null_stay_hidden() {
        let mut batch = input(vec![Some(vec![Some(1)]), Some(vec![Some(2), Some(3)])]);
        let list = batch.rows.column(0).as_list::<i32>();
        let nulls = Some(arrow::buffer::NullBuffer::from(vec![true, false]));
        let hidden = ListArray::new(
            Arc::new(Field::new_list_field(DataType::Int64, true)),
            list.offsets().clone(),
            Arc::clone(list.values()),
            nulls,
        );
        let columns: Vec<ArrayRef> = vec![Arc::new(hidden), Arc::clone(batch.rows.column(1))];
        batch = batch.with_rows(arrow::array::RecordBatch::try_new(batch.schema(), columns).unwrap());
        let schema =
            Schema::new(vec![Field::new("x", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
        let lists = vec![UnnestedList { column: 0, depth: 1 }];
        let unnest = Unnest { lists, structs: vec![], nulls: NullHandling::Drop, schema: Arc::new(schema) };
        let output = unnest.step(vec![batch], 1).unwrap();
        assert_eq!(output.iter().map(SignedBatch::num_rows).collect::<Vec<_>>(), [1]);
    }
}
