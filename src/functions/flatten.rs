//! What Snowflake's `flatten` is made of: what a list, a map or a JSON text contains, as lists of one length, in the order it stands there.
//!
//! | | of a LIST | of a MAP | of a JSON array | of a JSON object |
//! |---|---|---|---|---|
//! | `flatten_values(x)` | its elements | its values | texts | texts |
//! | `flatten_keys(x)` | NULLs | its keys | NULLs | its keys |
//! | `flatten_indexes(x)` | 0, 1, … | NULLs | 0, 1, … | NULLs |
//! | `flatten_paths(x)` | `[0]`, `[1]`, … | `k`, … | `[0]`, `[1]`, … | `k`, … |
//! | `flatten_this(x)` | the list | the map | the array | the object |
//!
//! A JSON value is a text as `get_json_object` gives it: a string without its quotes, `null` as NULL, anything else as JSON. Of NULL, of other JSON, and of
//! a text that is no JSON there is nothing: an empty list.
//!
//! Three constants may follow: what is looked into (`both`, `array`, `object`), whether also in what is found (JSON texts only: each value stands before what it
//! contains), and the path that `x` itself has.

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListArray, ListBuilder, StringBuilder, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::ops::Range;
use std::sync::Arc;

use super::json::{contents, plain};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Values,
    Keys,
    Indexes,
    Paths,
    This,
}

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [Part::Values, Part::Keys, Part::Indexes, Part::Paths, Part::This].into_iter().map(|part| {
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
            Part::Paths => "flatten_paths",
            Part::This => "flatten_this",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some((value, constants)) = types.split_first() else { return plan_err!("flatten takes a value") };
        let value = match value {
            DataType::List(_) | DataType::Map(..) => value.clone(),
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(Arc::clone(item)),
            text if text.is_string() || text.is_null() => DataType::Utf8,
            other => return plan_err!("flatten takes an ARRAY, a MAP or a JSON text, not {other}"),
        };
        let constants = [DataType::Utf8, DataType::Boolean, DataType::Utf8].into_iter().take(constants.len());
        Ok(std::iter::once(value).chain(constants).collect())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let recursive = matches!(args.scalar_arguments.get(2), Some(Some(ScalarValue::Boolean(Some(true)))));
        if recursive && !types.first().is_some_and(|t| t.is_string() || t.is_null()) {
            return plan_err!(
                "flatten looks into what it finds in JSON texts only: give it `to_json(x)`, or flatten each level"
            );
        }
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let entry = |entries: &Field, at: usize| match entries.data_type() {
            DataType::Struct(fields) => fields.get(at).map_or(DataType::Null, |f| f.data_type().clone()),
            _ => DataType::Null,
        };
        Ok(list_of(match (self.part, types) {
            (Part::Indexes, _) => DataType::Int64,
            (Part::Values, [DataType::List(item), ..]) => item.data_type().clone(),
            (Part::Values, [DataType::Map(entries, _), ..]) => entry(entries, 1),
            (Part::Keys, [DataType::Map(entries, _), ..]) => entry(entries, 0),
            (Part::This, [value, ..]) => value.clone(),
            _ => DataType::Utf8,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((value, constants)) = args.args.split_first() else { return plan_err!("flatten takes a value") };
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let column = value.to_array(if constant { 1 } else { args.number_rows })?;
        let look = Look::of(constants);
        let lists = match column.data_type() {
            DataType::List(_) => self.of_lists(column.as_list(), &look)?,
            DataType::Map(..) => self.of_maps(&column, &look)?,
            _ => self.of_texts(&column, &look)?,
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?));
        }
        Ok(ColumnarValue::Array(lists))
    }
}

/// What the constants behind the value say.
struct Look {
    arrays: bool,
    objects: bool,
    recursive: bool,
    path: String,
}

impl Look {
    fn of(constants: &[ColumnarValue]) -> Self {
        let text = |i: usize| match constants.get(i) {
            Some(ColumnarValue::Scalar(value)) => value.try_as_str().flatten().unwrap_or_default().to_string(),
            _ => String::new(),
        };
        let mode = text(0).to_lowercase();
        let recursive = matches!(constants.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        Look { arrays: mode != "object", objects: mode != "array", recursive, path: text(2) }
    }
}

/// A value in a JSON text.
struct Element<'a> {
    key: Option<String>,
    index: Option<i64>,
    path: String,
    value: &'a str,
    /// What it stands in.
    this: &'a str,
}

/// The path of a member: `a.b`, `a['b c']`.
fn member(path: &str, key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
    match (plain, path) {
        (true, "") => key.to_string(),
        (true, path) => format!("{path}.{key}"),
        (false, path) => format!("{path}['{key}']"),
    }
}

/// What `text` contains, in its order; with `recursive` each value before what it contains itself.
fn elements<'a>(text: &'a str, path: &str, look: &Look, found: &mut Vec<Element<'a>>) {
    for (i, (key, value)) in contents(text).unwrap_or_default().into_iter().enumerate() {
        let (looked, path) = match &key {
            Some(key) => (look.objects, member(path, key)),
            None => (look.arrays, format!("{path}[{i}]")),
        };
        if !looked {
            return;
        }
        let index = key.is_none().then_some(i as i64);
        found.push(Element { key, index, path: path.clone(), value, this: text });
        if look.recursive {
            elements(value, &path, look, found);
        }
    }
}

impl Flatten {
    fn of_lists(&self, lists: &ListArray, look: &Look) -> Result<ArrayRef> {
        let lengths: Vec<usize> = (0..lists.len())
            .map(|i| if lists.is_null(i) || !look.arrays { 0 } else { lists.value_length(i) as usize })
            .collect();
        Ok(match self.part {
            Part::Values if !look.arrays => nothing(lengths, lists.value_type()),
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
            Part::Paths => texts(lengths.into_iter().map(|n| (0..n).map(|i| format!("{}[{i}]", look.path)))),
            Part::This => repeated(lists, &lengths)?,
        })
    }

    fn of_maps(&self, column: &ArrayRef, look: &Look) -> Result<ArrayRef> {
        let maps = column.as_map();
        let of = |i: usize| -> Range<usize> {
            let offsets = maps.value_offsets();
            if maps.is_null(i) || !look.objects { 0..0 } else { offsets[i] as usize..offsets[i + 1] as usize }
        };
        let lengths: Vec<usize> = (0..maps.len()).map(|i| of(i).len()).collect();
        let at = match self.part {
            Part::Values => maps.values(),
            Part::Keys => maps.keys(),
            Part::Indexes => return Ok(nothing(lengths, DataType::Int64)),
            Part::Paths => {
                let keys = cast(maps.keys(), &DataType::Utf8)?;
                let keys = keys.as_string::<i32>();
                return Ok(texts((0..maps.len()).map(|i| of(i).map(|at| member(&look.path, keys.value(at))))));
            }
            Part::This => return repeated(column, &lengths),
        };
        // A NULL may hide entries.
        let picked = UInt64Array::from_iter_values((0..maps.len()).flat_map(of).map(|i| i as u64));
        let field = Arc::new(Field::new_list_field(at.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::new(field, offsets, take(at, &picked, None)?, None::<NullBuffer>)))
    }

    fn of_texts(&self, column: &ArrayRef, look: &Look) -> Result<ArrayRef> {
        let column = cast(column, &DataType::Utf8)?;
        let all = column.as_string::<i32>().iter().map(|text| {
            let mut found = Vec::new();
            elements(text.unwrap_or_default(), &look.path, look, &mut found);
            found
        });
        if self.part == Part::Indexes {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for found in all {
                lists.append_value(found.iter().map(|element| element.index));
            }
            return Ok(Arc::new(lists.finish()));
        }
        let mut lists = ListBuilder::new(StringBuilder::new());
        for found in all {
            for element in found {
                match self.part {
                    Part::Keys => lists.values().append_option(element.key),
                    Part::Paths => lists.values().append_value(element.path),
                    Part::This => lists.values().append_value(element.this),
                    _ => lists.values().append_option(plain(element.value)),
                }
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }
}

fn texts(lists: impl Iterator<Item = impl Iterator<Item = String>>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    lists.for_each(|list| builder.append_value(list.map(Some)));
    Arc::new(builder.finish())
}

/// Each value as many times as `lengths` says.
fn repeated(column: &dyn Array, lengths: &[usize]) -> Result<ArrayRef> {
    let picked = lengths.iter().enumerate().flat_map(|(i, length)| std::iter::repeat_n(i as u64, *length));
    let values = take(column, &UInt64Array::from_iter_values(picked), None)?;
    let field = Arc::new(Field::new_list_field(column.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(ListArray::new(field, offsets, values, None::<NullBuffer>)))
}

/// 0, 1, … in each list.
fn places(lengths: Vec<usize>) -> ArrayRef {
    let mut lists = ListBuilder::new(Int64Builder::new());
    for length in lengths {
        lists.append_value((0..length as i64).map(Some));
    }
    Arc::new(lists.finish())
}

/// As many NULLs in each list.
fn nothing(lengths: Vec<usize>, item: DataType) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lengths);
    let count = offsets.last().map_or(0, |last| *last as usize);
    let field = Arc::new(Field::new_list_field(item.clone(), true));
    Arc::new(ListArray::new(field, offsets, arrow::array::new_null_array(&item, count), None::<NullBuffer>))
}
