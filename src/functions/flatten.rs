//! What Snowflake's `flatten` is made of: the values, keys and places of what a list, a map or a JSON text contains, as three lists of one
//! length, in the order they stand there.
//!
//! | | of a LIST | of a MAP | of a JSON array | of a JSON object |
//! |---|---|---|---|---|
//! | `flatten_values(x)` | its elements | its values | texts | texts |
//! | `flatten_keys(x)` | NULLs | its keys | NULLs | its keys |
//! | `flatten_indexes(x)` | 0, 1, … | NULLs | 0, 1, … | NULLs |
//!
//! A JSON value is a text as `get_json_object` gives it: a string without its quotes, `null` as NULL, anything else as JSON. Of NULL, of other JSON, and of
//! a text that is no JSON there is nothing: an empty list.

use arrow::array::UInt64Array;
use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListArray, ListBuilder, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::ops::Range;
use std::sync::Arc;

use super::json::contents;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Values,
    Keys,
    Indexes,
}

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [Part::Values, Part::Keys, Part::Indexes].into_iter().map(|part| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::from(Flatten { part, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Flatten {
    part: Part,
    signature: Signature,
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

impl ScalarUDFImpl for Flatten {
    fn name(&self) -> &str {
        match self.part {
            Part::Values => "flatten_values",
            Part::Keys => "flatten_keys",
            Part::Indexes => "flatten_indexes",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::List(_) | DataType::Map(..)] => Ok(types.to_vec()),
            [DataType::LargeList(item) | DataType::FixedSizeList(item, _)] => {
                Ok(vec![DataType::List(Arc::clone(item))])
            }
            [text] if text.is_string() || text.is_null() => Ok(vec![DataType::Utf8]),
            [other] => plan_err!("flatten takes an ARRAY, a MAP or a JSON text, not {other}"),
            _ => plan_err!("flatten takes one value"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let entry = |entries: &Field, at: usize| match entries.data_type() {
            DataType::Struct(fields) => fields.get(at).map_or(DataType::Null, |f| f.data_type().clone()),
            _ => DataType::Null,
        };
        Ok(list_of(match (self.part, types) {
            (Part::Indexes, _) => DataType::Int64,
            (Part::Values, [DataType::List(item)]) => item.data_type().clone(),
            (Part::Values, [DataType::Map(entries, _)]) => entry(entries, 1),
            (Part::Keys, [DataType::Map(entries, _)]) => entry(entries, 0),
            _ => DataType::Utf8,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return plan_err!("flatten takes one value") };
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let column = value.to_array(if constant { 1 } else { args.number_rows })?;
        let lists = match column.data_type() {
            DataType::List(_) => self.of_lists(column.as_list()),
            DataType::Map(..) => self.of_maps(&column)?,
            _ => self.of_texts(&column)?,
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?));
        }
        Ok(ColumnarValue::Array(lists))
    }
}

impl Flatten {
    fn of_lists(&self, lists: &ListArray) -> ArrayRef {
        let lengths = (0..lists.len()).map(|i| if lists.is_null(i) { 0 } else { lists.value_length(i) as usize });
        match self.part {
            Part::Values => {
                let field = Arc::new(Field::new_list_field(lists.value_type(), true));
                Arc::new(ListArray::new(
                    field,
                    lists.offsets().clone(),
                    Arc::clone(lists.values()),
                    lists.nulls().cloned(),
                ))
            }
            Part::Keys => nothing(lengths, DataType::Utf8),
            Part::Indexes => places(lengths),
        }
    }

    fn of_maps(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let maps = column.as_map();
        let of = |i: usize| -> Range<usize> {
            let offsets = maps.value_offsets();
            if maps.is_null(i) { 0..0 } else { offsets[i] as usize..offsets[i + 1] as usize }
        };
        let at = match self.part {
            Part::Values => maps.values(),
            Part::Keys => maps.keys(),
            Part::Indexes => return Ok(nothing((0..maps.len()).map(|i| of(i).len()), DataType::Int64)),
        };
        // A NULL may hide entries.
        let picked = UInt64Array::from_iter_values((0..maps.len()).flat_map(of).map(|i| i as u64));
        let offsets = OffsetBuffer::from_lengths((0..maps.len()).map(|i| of(i).len()));
        let field = Arc::new(Field::new_list_field(at.data_type().clone(), true));
        Ok(Arc::new(ListArray::new(field, offsets, take(at, &picked, None)?, None::<NullBuffer>)))
    }

    fn of_texts(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let texts = cast(column, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let all = texts.iter().map(|text| text.and_then(contents).unwrap_or_default());
        Ok(match self.part {
            Part::Indexes => {
                let mut lists = ListBuilder::new(Int64Builder::new());
                for found in all {
                    let place =
                        |(i, (key, _)): (usize, &(Option<String>, Option<String>))| key.is_none().then_some(i as i64);
                    lists.append_value(found.iter().enumerate().map(place));
                }
                Arc::new(lists.finish())
            }
            part => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for found in all {
                    lists.append_value(
                        found.into_iter().map(|(key, value)| if part == Part::Keys { key } else { value }),
                    );
                }
                Arc::new(lists.finish())
            }
        })
    }
}

/// 0, 1, … in each list.
fn places(lengths: impl Iterator<Item = usize>) -> ArrayRef {
    let mut lists = ListBuilder::new(Int64Builder::new());
    for length in lengths {
        lists.append_value((0..length as i64).map(Some));
    }
    Arc::new(lists.finish())
}

/// As many NULLs in each list.
fn nothing(lengths: impl Iterator<Item = usize>, item: DataType) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lengths);
    let count = offsets.last().map_or(0, |last| *last as usize);
    let field = Arc::new(Field::new_list_field(item.clone(), true));
    Arc::new(ListArray::new(field, offsets, arrow::array::new_null_array(&item, count), None::<NullBuffer>))
}
