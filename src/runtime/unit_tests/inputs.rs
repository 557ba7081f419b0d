//! The inputs of a unit test: written rows become changes, in the columns and types of the relation they stand for.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use serde_json::Value as Json;
use std::sync::Arc;

use crate::decode::json::decode_texts;
use crate::error::{Error, Result, Span, did_you_mean};
use crate::plan::Leaf;
use crate::project::{UnitOp, UnitRow};
use crate::state::RowCodec;
use crate::types::{SignedBatch, sql_type_name};

/// What an input holds.
pub(super) struct Input {
    name: String,
    schema: SchemaRef,
    append_only: bool,
    /// Columns of its key, if it has one: a row takes the place of the one with the same key.
    key: Vec<String>,
    /// Its rows are records: what became of a key.
    is_changelog: bool,
    codec: RowCodec,
    /// One row each.
    rows: Vec<RecordBatch>,
}

impl Input {
    pub fn new(leaf: &Leaf) -> Result<Self> {
        let schema = Arc::clone(&leaf.columns);
        Ok(Input {
            name: leaf.relation().to_string(),
            append_only: leaf.append_only,
            key: leaf.key.clone(),
            is_changelog: leaf.is_keyed_changelog(),
            codec: RowCodec::new(schema.fields().iter().map(|f| f.data_type().clone()))?,
            schema,
            rows: Vec::new(),
        })
    }

    /// The rows there are now.
    pub fn rows(&self) -> Vec<RecordBatch> {
        self.rows.clone()
    }

    /// Adds the rows of a query.
    pub fn add(&mut self, found: Vec<RecordBatch>, span: &Span) -> Result<SignedBatch, Vec<Error>> {
        let mut change = Vec::new();
        for batch in conform(&found, &self.schema, span)? {
            let find = |name: &String| column(&self.schema, &self.name, name, span);
            let key = self.key.iter().map(find).collect::<Result<Vec<usize>, _>>()?;
            for row in (0..batch.num_rows()).map(|i| batch.slice(i, 1)) {
                if !key.is_empty() {
                    let known = self.matching(&row, &key).map_err(|e| vec![e])?;
                    let gone = self.remove(&known);
                    change.extend(gone.into_iter().filter(|_| !self.is_changelog));
                }
                self.rows.push(row.clone());
                change.push(SignedBatch::inserts(row));
            }
        }
        SignedBatch::concat(&self.schema, &change).map_err(|e| vec![e])
    }

    /// Applies written rows, one after the other; returns the change they make together, of a keyed changelog its records. `first`: no
    /// step came before.
    pub fn apply(&mut self, rows: &[UnitRow], key: &[String], first: bool) -> Result<SignedBatch, Vec<Error>> {
        let mut change = Vec::new();
        let mut errors = Vec::new();
        for row in rows {
            if first && self.key.is_empty() && !matches!(row.op, UnitOp::Weight(1..)) {
                let error = Error::user("bad-row", "an input that has no rows yet has none to change");
                errors.push(error.with_span(row.span.clone()).with_hint("put it into a step of `then`"));
                continue;
            }
            let applied = if self.key.is_empty() { self.one(row, key) } else { self.keyed(row, key) };
            match applied {
                Ok(changed) => change.extend(changed),
                Err(mut found) => errors.append(&mut found),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        SignedBatch::concat(&self.schema, &change).map_err(|e| vec![e])
    }

    /// A row of an input with a key takes the place of the one that has its key.
    fn keyed(&mut self, row: &UnitRow, key: &[String]) -> Result<Vec<SignedBatch>, Vec<Error>> {
        let written = values(row, &self.schema, &self.name)?;
        let own = self.key.clone();
        let find = |name: &String| column(&self.schema, &self.name, name, &row.span);
        let columns = own.iter().map(find).collect::<Result<Vec<usize>, _>>()?;
        let unkeyed = columns.iter().zip(&own).find(|(c, _)| written.column(**c).is_null(0));
        if let (Some((_, name)), false) = (unkeyed, matches!(row.op, UnitOp::Weight(..=0))) {
            let message = format!("`{name}` says which row of `{}` it is, and is not given", self.name);
            let hint = format!("write `{name}: …` into the row");
            return Err(vec![Error::user("row-without-key", message).with_span(row.span.clone()).with_hint(hint)]);
        }
        let known = self.matching(&written, &columns).map_err(|e| vec![e])?;
        match row.op {
            UnitOp::Weight(1) | UnitOp::Upsert => {
                let mut change = self.remove(&known);
                self.rows.push(written.clone());
                if self.is_changelog {
                    change.clear();
                }
                change.push(SignedBatch::inserts(written));
                Ok(change)
            }
            UnitOp::Delete if self.is_changelog => {
                // What a key that is not there loses is nothing.
                self.remove(&known);
                Ok(vec![SignedBatch::retracts(written)])
            }
            UnitOp::Delete if known.is_empty() => Err(vec![self.missing(row, "no row has this key", 0, 1)]),
            UnitOp::Delete => Ok(self.remove(&known)),
            UnitOp::Update => {
                let change = self.one(row, if key.is_empty() { &own } else { key })?;
                Ok(if self.is_changelog {
                    change.into_iter().filter(|c| !c.has_retractions()).collect()
                } else {
                    change
                })
            }
            UnitOp::Weight(-1) if !self.is_changelog => self.one(row, key),
            UnitOp::Weight(_) => {
                let message = format!("`{}` has one row per key: `_weight` has no meaning there", self.name);
                let hint = "write `_op: delete` with its key, or the row as it is now";
                Err(vec![Error::user("bad-row", message).with_span(row.span.clone()).with_hint(hint)])
            }
        }
    }

    fn one(&mut self, row: &UnitRow, key: &[String]) -> Result<Vec<SignedBatch>, Vec<Error>> {
        if self.append_only && !matches!(row.op, UnitOp::Weight(1..)) {
            let message = format!("rows are only ever added to `{}`: none can be changed or deleted", self.name);
            let hint = "give this change to a model that can be changed, or leave it out";
            return Err(vec![Error::user("append-only-input", message).with_span(row.span.clone()).with_hint(hint)]);
        }
        let written = values(row, &self.schema, &self.name)?;
        let named = |cell: &crate::project::UnitCell| column(&self.schema, &self.name, &cell.column, &cell.span);
        let cells = row.cells.iter().map(named).collect::<Result<Vec<usize>, _>>()?;
        let one = |e: Error| vec![e];
        match row.op {
            UnitOp::Weight(count @ 1..) => {
                let rows = vec![written; usize::try_from(count).unwrap_or(usize::MAX)];
                self.rows.extend(rows.iter().cloned());
                Ok(rows.into_iter().map(SignedBatch::inserts).collect())
            }
            UnitOp::Weight(count) => {
                let all: Vec<usize> = (0..self.schema.fields().len()).collect();
                let found = self.matching(&written, &all).map_err(one)?;
                let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
                if found.len() < wanted {
                    return Err(vec![self.missing(row, "no such row", found.len(), wanted)]);
                }
                Ok(self.remove(&found[..wanted]))
            }
            UnitOp::Delete => {
                let found = self.matching(&written, &cells).map_err(one)?;
                if found.is_empty() {
                    return Err(vec![self.missing(row, "no row has these values", 0, 1)]);
                }
                Ok(self.remove(&found))
            }
            UnitOp::Upsert => {
                let message = format!("`{}` has no key that is known: which row this replaces is not said", self.name);
                let hint =
                    "write `_op: update` and name the input's `key`, or delete the old row and insert the new one";
                Err(vec![Error::user("update-without-key", message).with_span(row.span.clone()).with_hint(hint)])
            }
            UnitOp::Update => {
                let find = |name: &String| column(&self.schema, &self.name, name, &row.span);
                let key = key.iter().map(find).collect::<Result<Vec<usize>, _>>()?;
                let found = self.matching(&written, &key).map_err(one)?;
                if found.is_empty() {
                    return Err(vec![self.missing(row, "no row has this key", 0, 1)]);
                }
                let old: Vec<RecordBatch> = found.iter().map(|i| self.rows[*i].clone()).collect();
                let mut change = self.remove(&found);
                for old in old {
                    let columns = (0..self.schema.fields().len())
                        .map(|i| Arc::clone(if cells.contains(&i) { written.column(i) } else { old.column(i) }));
                    let new = batch(&self.schema, columns.collect(), 1).map_err(one)?;
                    self.rows.push(new.clone());
                    change.push(SignedBatch::inserts(new));
                }
                Ok(change)
            }
        }
    }

    fn missing(&self, row: &UnitRow, what: &str, found: usize, wanted: usize) -> Error {
        let count = if wanted > 1 { format!(" {wanted} times, but {found}") } else { String::new() };
        Error::user("missing-row", format!("`{}`: {what}{count}", self.name))
            .with_span(row.span.clone())
            .with_hint("a change is applied to the rows of the steps before it")
    }

    /// Rows that equal `written` in `columns`, NULL being equal to NULL.
    fn matching(&self, written: &RecordBatch, columns: &[usize]) -> Result<Vec<usize>> {
        let encode = |row: &RecordBatch| -> Result<Vec<u8>> {
            let none = |i: usize| new_null_array(self.schema.field(i).data_type(), 1);
            let kept = (0..row.num_columns())
                .map(|i| if columns.contains(&i) { Arc::clone(row.column(i)) } else { none(i) })
                .collect::<Vec<_>>();
            Ok(self.codec.encode(&kept, 1)?.row(0).to_vec())
        };
        let wanted = encode(written)?;
        let mut found = Vec::new();
        for (i, row) in self.rows.iter().enumerate() {
            if encode(row)? == wanted {
                found.push(i);
            }
        }
        Ok(found)
    }

    fn remove(&mut self, indexes: &[usize]) -> Vec<SignedBatch> {
        let change = indexes.iter().map(|i| SignedBatch::retracts(self.rows[*i].clone())).collect();
        let mut index = 0;
        self.rows.retain(|_| {
            index += 1;
            !indexes.contains(&(index - 1))
        });
        change
    }
}

/// The rows of `change` whose weight has this sign, each as often as it says.
pub(super) fn of_sign(change: &[SignedBatch], sign: i64) -> Vec<RecordBatch> {
    let mut rows = Vec::new();
    for batch in change {
        for i in 0..batch.num_rows() {
            let weight = batch.weight(i);
            if weight.signum() == sign {
                let count = usize::try_from(weight.unsigned_abs()).unwrap_or(0);
                rows.extend(std::iter::repeat_n(batch.rows.slice(i, 1), count));
            }
        }
    }
    rows
}

/// The column of `schema` that is called so: exactly, or else ignoring case.
pub(super) fn column(schema: &Schema, relation: &str, name: &str, span: &Span) -> Result<usize, Vec<Error>> {
    let fields = schema.fields();
    let found = fields.iter().position(|f| f.name() == name);
    found.or_else(|| fields.iter().position(|f| f.name().eq_ignore_ascii_case(name))).ok_or_else(|| {
        let error = Error::user("unknown-column", format!("`{relation}` has no column `{name}`"));
        let names = || fields.iter().map(|f| f.name().as_str());
        let hint = match did_you_mean(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("columns: {}", names().collect::<Vec<_>>().join(", ")),
        };
        vec![error.with_span(span.clone()).with_hint(hint)]
    })
}

/// A written row in `schema`; columns it does not name are NULL.
pub(super) fn values(row: &UnitRow, schema: &SchemaRef, relation: &str) -> Result<RecordBatch, Vec<Error>> {
    let mut columns: Vec<ArrayRef> = schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
    let mut errors = Vec::new();
    for cell in &row.cells {
        match column(schema, relation, &cell.column, &cell.span) {
            Ok(i) => match value(&cell.value, schema.field(i).data_type()) {
                Ok(array) => columns[i] = array,
                Err(why) => {
                    let kind = sql_type_name(schema.field(i).data_type());
                    let message =
                        format!("`{}` of `{relation}` is {kind}, and {} is none{why}", cell.column, cell.value);
                    errors.push(Error::user("bad-value", message).with_span(cell.span.clone()));
                }
            },
            Err(mut found) => errors.append(&mut found),
        }
    }
    if errors.is_empty() { batch(schema, columns, 1).map_err(|e| vec![e]) } else { Err(errors) }
}

/// One value of `kind`; on failure, what more there is to say than that it is none.
fn value(written: &Json, kind: &DataType) -> Result<ArrayRef, String> {
    let cast = |text: &str| {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = StringArray::from(vec![text]);
        cast_with_options(&array, kind, &options).map_err(|_| String::new())
    };
    match written {
        Json::Null => Ok(new_null_array(kind, 1)),
        // A text can stand for any type, a structure in JSON too.
        Json::String(text) if !kind.is_nested() => cast(text),
        Json::Number(_) | Json::Bool(_) if !kind.is_nested() => cast(&written.to_string()),
        Json::Array(_) | Json::Object(_) if matches!(kind, DataType::Utf8) => cast(&written.to_string()),
        other => {
            let json = match other {
                Json::String(text) => text.clone(),
                other => other.to_string(),
            };
            let text = format!("{{\"value\": {json}}}");
            let fields = Fields::from(vec![Field::new("value", kind.clone(), true)]);
            let (found, errors) =
                decode_texts(&StringArray::from(vec![text]), &fields).map_err(|e| format!(": {}", e.message()))?;
            match errors.first() {
                Some(error) => Err(format!(": {}", error.reason)),
                None => Ok(Arc::clone(found.column(0))),
            }
        }
    }
}

/// Rows of a query under the names and types of `schema`.
pub(super) fn conform(found: &[RecordBatch], schema: &SchemaRef, span: &Span) -> Result<Vec<RecordBatch>, Vec<Error>> {
    let mut conformed = Vec::new();
    for rows in found {
        let mut columns: Vec<ArrayRef> =
            schema.fields().iter().map(|f| new_null_array(f.data_type(), rows.num_rows())).collect();
        for (i, field) in rows.schema().fields().iter().enumerate() {
            let at = column(schema, "the input", field.name(), span)?;
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let kind = schema.field(at).data_type();
            columns[at] = cast_with_options(rows.column(i), kind, &options).map_err(|e| {
                let message = format!("column `{}` is no {}: {e}", field.name(), sql_type_name(kind));
                vec![Error::user("bad-value", message).with_span(span.clone())]
            })?;
        }
        conformed.push(batch(schema, columns, rows.num_rows()).map_err(|e| vec![e])?);
    }
    Ok(conformed)
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::display::array_value_to_string;
    use serde_json::json;

    fn shown(written: Json, kind: &str) -> Result<String, String> {
        let kind = crate::types::parse_sql_type(kind).unwrap();
        value(&written, &kind).map(|a| array_value_to_string(&a, 0).unwrap())
    }

    #[test]
    fn written_values_take_the_type_of_their_column() {
        assert_eq!(shown(json!(1), "BIGINT").unwrap(), "1");
        assert_eq!(shown(json!("1"), "BIGINT").unwrap(), "1");
        assert_eq!(shown(json!(1), "STRING").unwrap(), "1");
        assert_eq!(shown(json!(1.5), "DECIMAL(10, 2)").unwrap(), "1.50");
        assert_eq!(shown(json!("2026-01-05"), "DATE").unwrap(), "2026-01-05");
        assert_eq!(shown(json!("2026-01-05 10:00:00"), "TIMESTAMP").unwrap(), "2026-01-05T10:00:00Z");
        assert_eq!(shown(json!({"a": 1, "b": ["x"]}), "STRUCT<a: INT, b: ARRAY<STRING>>").unwrap(), "{a: 1, b: [x]}");
        assert_eq!(shown(json!("[1, 2]"), "ARRAY<INT>").unwrap(), "[1, 2]");
        assert_eq!(shown(json!({"a": 1}), "STRING").unwrap(), "{\"a\":1}");
        assert!(shown(json!("x"), "BIGINT").is_err());
        assert!(shown(json!(1.5), "BIGINT").is_err());
        assert!(shown(json!({"a": "x"}), "STRUCT<a: INT>").is_err());
    }
}
