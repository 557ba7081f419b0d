//! What a table holds and what it should, as multisets of rows, and the table that shows where they differ.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::state::RowCodec;
use crate::types::SignedBatch;

/// Rows shown at most: a test has few, and a wrong join many.
const SHOWN: usize = 50;

/// Encoded row → how often it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows(BTreeMap<Vec<u8>, i64>);

impl Rows {
    pub fn add(&mut self, change: &Rows) {
        for (row, weight) in &change.0 {
            *self.0.entry(row.clone()).or_default() += weight;
        }
        self.0.retain(|_, weight| *weight != 0);
    }
}

/// The rows a step expects, on the columns it names.
pub(super) struct Expected {
    columns: Vec<usize>,
    rows: Rows,
}

/// Rows of one schema.
pub(super) struct Contents {
    schema: SchemaRef,
    codec: RowCodec,
    /// What the engine's changes have added up to.
    pub maintained: Rows,
}

impl Contents {
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let codec = codec(schema)?;
        Ok(Contents { schema: Arc::clone(schema), codec, maintained: Rows::default() })
    }

    pub fn empty(&self) -> Rows {
        Rows::default()
    }

    pub fn encode(&self, change: &[SignedBatch]) -> Result<Rows> {
        encode(&self.codec, change)
    }

    /// `rows` under the columns of these numbers; none: all columns.
    pub fn expected(&self, columns: Vec<usize>, rows: &[RecordBatch]) -> Result<Expected> {
        let columns = match columns.is_empty() {
            true => (0..self.schema.fields().len()).collect(),
            false => columns,
        };
        let codec = codec(&self.schema.project(&columns)?)?;
        let rows: Vec<SignedBatch> =
            rows.iter().filter(|b| b.num_columns() > 0).cloned().map(SignedBatch::inserts).collect();
        Ok(Expected { rows: encode(&codec, &rows)?, columns })
    }

    /// Where `actual` differs from `expected`, if it does.
    pub fn compare(&self, expected: &Expected, actual: &Rows) -> Result<Option<String>> {
        if let Some(weight) = actual.0.values().find(|w| **w < 0) {
            return Err(Error::internal(format!("a row is in the table {weight} times")));
        }
        let schema = Arc::new(self.schema.project(&expected.columns)?);
        let codec = codec(&schema)?;
        let all = self.codec.decode(actual.0.keys().map(Vec::as_slice))?;
        let columns: Vec<ArrayRef> = expected.columns.iter().map(|i| Arc::clone(&all[*i])).collect();
        let encoded = codec.encode(&columns, actual.0.len())?;
        let mut found = Rows::default();
        for (i, weight) in actual.0.values().enumerate() {
            *found.0.entry(encoded.row(i).to_vec()).or_default() += weight;
        }
        if found == expected.rows {
            return Ok(None);
        }
        shown(&schema, &codec, &expected.rows, &found).map(Some)
    }

    /// Two contents of the table beside each other.
    pub fn between(&self, expected: &Rows, actual: &Rows) -> Result<String> {
        shown(&self.schema, &self.codec, expected, actual)
    }
}

fn codec(schema: &Schema) -> Result<RowCodec> {
    RowCodec::new(schema.fields().iter().map(|f| f.data_type().clone()))
}

fn encode(codec: &RowCodec, change: &[SignedBatch]) -> Result<Rows> {
    let mut rows = Rows::default();
    for batch in change {
        let encoded = codec.encode(batch.rows.columns(), batch.num_rows())?;
        for i in 0..batch.num_rows() {
            *rows.0.entry(encoded.row(i).to_vec()).or_default() += batch.weight(i);
        }
    }
    rows.0.retain(|_, weight| *weight != 0);
    Ok(rows)
}

/// A table with `-` before rows that are expected and not there, `+` before rows that are there and not expected.
fn shown(schema: &SchemaRef, codec: &RowCodec, expected: &Rows, actual: &Rows) -> Result<String> {
    let mut lines: Vec<(Vec<String>, char)> = Vec::new();
    let keys: std::collections::BTreeSet<&Vec<u8>> = expected.0.keys().chain(actual.0.keys()).collect();
    let columns = codec.decode(keys.iter().map(|k| k.as_slice()))?;
    let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    let options = FormatOptions::default().with_null("NULL");
    let formatters = rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
    let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
    for (i, key) in keys.iter().enumerate() {
        let cells: Vec<String> = formatters.iter().map(|f| f.value(i).to_string().replace('\n', "\\n")).collect();
        let count = |rows: &Rows| rows.0.get(*key).copied().unwrap_or(0);
        let (wanted, there) = (count(expected), count(actual));
        let marks = [(' ', wanted.min(there)), ('-', wanted - there), ('+', there - wanted)];
        for (mark, times) in marks {
            lines.extend((0..times.max(0)).map(|_| (cells.clone(), mark)));
        }
    }
    // What replaces what stands side by side.
    lines.sort_by(|(a, x), (b, y)| a.cmp(b).then(order(*x).cmp(&order(*y))));
    let left_out = lines.len().saturating_sub(SHOWN);
    if left_out > 0 {
        lines.sort_by_key(|(_, mark)| *mark == ' ');
        lines.truncate(SHOWN);
    }
    let header: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let width =
        |i: usize| lines.iter().map(|(cells, _)| &cells[i]).chain([&header[i]]).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|i| width(i).unwrap_or(0)).collect();
    let line = |mark: char, cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("  {mark} |{}", cells.collect::<String>())
    };
    let mut text = vec![line(' ', &header)];
    text.extend(lines.iter().map(|(cells, mark)| line(*mark, cells)));
    if left_out > 0 {
        text.push(format!("    and {left_out} more rows"));
    }
    text.push("    (- expected, + actual)".to_string());
    Ok(text.join("\n"))
}

fn order(mark: char) -> usize {
    [' ', '-', '+'].iter().position(|m| *m == mark).unwrap_or(0)
}
