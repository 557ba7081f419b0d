//! Seeds: CSV files of the project that become tables.
//!
//! A file is decoded twice, first as text to find out what its columns are, then in their types. `column_types` names a type where
//! the one found is not the one wanted. What a column becomes: BIGINT, DOUBLE, BOOLEAN, DATE or TIMESTAMP when every value reads as one,
//! else STRING; numbers with leading zeros (`007`) are codes and stay text.

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{NaiveDate, NaiveDateTime};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::RawConfig;
use super::problems::{Problems, suggest};
use super::yaml::Text;
use crate::decode::csv::{parse_header, split_records};
use crate::decode::{CsvOptions, DecodeFormat, DecodeOptions, decoder};
use crate::error::{Error, Result};
use crate::types::{RawChunk, parse_sql_type};

/// A seed's rows, in the types its table has.
#[derive(Debug, Clone)]
pub struct SeedFile {
    pub rows: RecordBatch,
    /// Of the file's bytes, SHA-256 in hex, as dbt has it in its manifest.
    pub checksum: String,
    /// The one dbt has: without blanks around the whole.
    pub dbt_checksum: String,
}

/// Reads the file of a seed whose merged configuration is `raw`.
pub(super) fn read(text: &Arc<Text>, raw: &RawConfig, p: &mut Problems) -> Option<SeedFile> {
    let mut csv = CsvOptions::default();
    if let Some(setting) = raw.get("delimiter").filter(|s| !s.value.is_null())
        && let Some(written) = setting.text("delimiter", p)
    {
        match written.as_bytes() {
            [one] => csv.delimiter = *one,
            _ if written == "\\t" => csv.delimiter = b'\t',
            _ => {
                let message = format!("`delimiter` must be one character, found `{written}`");
                p.error("wrong-type", setting.span.clone(), message, "write delimiter: ';'");
                return None;
            }
        }
    }
    let file = File { text, records: split_records(text.content.as_bytes(), &csv) };
    let names = p.ok(file.header(&csv))?;
    csv.header = Some(names.clone());
    let declared = declared_types(raw, &names, p)?;
    let plain: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let texts = p.ok(file.decode(plain, &csv))?;
    let typed = names.iter().enumerate().map(|(i, name)| {
        let found = || infer(texts.column(i).as_string::<i32>());
        Field::new(name, declared.get(name).cloned().unwrap_or_else(found), true)
    });
    let rows = p.ok(file.decode(typed.collect(), &csv))?;
    Some(SeedFile {
        rows,
        checksum: sha256(text.content.as_bytes()),
        dbt_checksum: sha256(text.content.trim().as_bytes()),
    })
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `column_types`, by column.
fn declared_types(raw: &RawConfig, names: &[String], p: &mut Problems) -> Option<BTreeMap<String, DataType>> {
    let Some(setting) = raw.get("column_types").filter(|s| !s.value.is_null()) else { return Some(BTreeMap::new()) };
    let before = p.errors.len();
    let mut types = BTreeMap::new();
    for (column, written) in setting.object("column_types", p) {
        let Some(name) =
            names.iter().find(|n| **n == column).or_else(|| names.iter().find(|n| n.eq_ignore_ascii_case(&column)))
        else {
            let hint = suggest(&column, names.iter().map(String::as_str), "columns");
            let message = format!("`column_types` names `{column}`, which the file does not have");
            p.error("unknown-column", setting.span.clone(), message, hint);
            continue;
        };
        match parse_sql_type(&written) {
            Ok(data_type) => {
                types.insert(name.clone(), data_type);
            }
            Err(e) => p.error(e.code(), setting.span.clone(), e.message(), e.hint().unwrap_or("")),
        }
    }
    (p.errors.len() == before).then_some(types)
}

struct File<'a> {
    text: &'a Arc<Text>,
    /// Where each record stands; the first one is the header.
    records: Vec<std::ops::Range<usize>>,
}

impl File<'_> {
    fn header(&self, csv: &CsvOptions) -> Result<Vec<String>> {
        let Some(first) = self.records.first() else {
            return Err(Error::user("empty-seed", format!("{} is empty", self.text.file.display()))
                .with_span(self.text.span(0, 1))
                .with_hint("its first line names the columns: id,name"));
        };
        let names = parse_header(self.text.content[first.clone()].as_bytes(), csv)
            .map_err(|e| e.with_span(self.text.span(first.start, first.len().max(1))))?;
        match names.iter().position(String::is_empty) {
            None => Ok(names),
            Some(column) => Err(Error::user("csv-header", format!("column {} has no name", column + 1))
                .with_span(self.text.span(first.start, first.len().max(1)))
                .with_hint("name every column in the first line")),
        }
    }

    /// All rows in these columns; a cell that does not fit is an error at its record.
    fn decode(&self, columns: Vec<Field>, csv: &CsvOptions) -> Result<RecordBatch> {
        let options = DecodeOptions { csv: csv.clone(), ..DecodeOptions::new(Arc::new(Schema::new(columns))) };
        let mut decoder = decoder(DecodeFormat::Csv, &options)?;
        let records = self.records.get(1..).unwrap_or_default();
        let bytes = self.text.content.as_bytes();
        let chunk = RawChunk {
            topic: "seed".into(),
            partition: 0,
            file: None,
            values: records.iter().map(|r| Some(&bytes[r.clone()])).collect(),
            keys: None,
            offsets: Int64Array::from_iter_values(0..records.len() as i64),
            timestamps: TimestampMicrosecondArray::new_null(records.len()),
            headers: None,
        };
        let decoded = decoder.decode(&chunk)?;
        match decoded.errors.first() {
            None => Ok(decoded.rows),
            Some(error) => {
                let record = &records[error.record as usize];
                let line = self.text.content[record.clone()].find('\n').unwrap_or(record.len());
                Err(Error::user("bad-seed", format!("{}: {}", self.text.file.display(), error.reason))
                    .with_span(self.text.span(record.start, line.max(1)))
                    .with_hint(
                        "correct the cell, or give the column another type: config: {column_types: {column: STRING}}",
                    ))
            }
        }
    }
}

/// The narrowest type that every value reads as.
fn infer(values: &StringArray) -> DataType {
    type Reads = fn(&str) -> bool;
    let all = |reads: Reads| values.iter().flatten().all(reads);
    if values.null_count() == values.len() {
        return DataType::Utf8;
    }
    let types: [(Reads, &str); 5] = [
        (is_integer, "BIGINT"),
        (is_number, "DOUBLE"),
        (|v| v.eq_ignore_ascii_case("true") || v.eq_ignore_ascii_case("false"), "BOOLEAN"),
        (|v| v.len() == 10 && NaiveDate::parse_from_str(v, "%Y-%m-%d").is_ok(), "DATE"),
        (is_timestamp, "TIMESTAMP"),
    ];
    let found = types.iter().find(|(reads, _)| all(*reads)).and_then(|(_, name)| parse_sql_type(name).ok());
    found.unwrap_or(DataType::Utf8)
}

fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let code = digits.len() > 1 && digits.starts_with('0');
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !code && value.parse::<i64>().is_ok()
}

fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    plain && digits.starts_with(|c: char| c.is_ascii_digit()) && !code && value.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_timestamp(value: &str) -> bool {
    let bare = value.strip_suffix('Z').unwrap_or(value);
    let patterns = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    patterns.iter().any(|pattern| NaiveDateTime::parse_from_str(bare, pattern).is_ok())
        || chrono::DateTime::parse_from_rfc3339(value).is_ok()
}
