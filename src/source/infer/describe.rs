//! Samples → the source table that reads them: format, columns, keys, and what is to be said about it.

use arrow::array::{BinaryArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use std::sync::Arc;

use super::Request;
use super::sample::{Content, Origin, Record, Sample};
use crate::decode::csv::cells;
use crate::decode::infer::{Guess, Shape, Tree, columns};
use crate::decode::{CsvOptions, DecodeFormat, DecodeOptions, decoder};
use crate::error::{Error, Result};
use crate::project::Format;
use crate::types::{RawChunk, RecordError, parse_sql_type, sql_type_name};

/// A source table to print.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub source: String,
    pub table: String,
    pub origin: Origin,
    pub format: Format,
    pub columns: Vec<Guess>,
    /// Name of the column for rescued data, where there must be one.
    pub rescued: Option<String>,
    pub primary_key: Vec<String>,
    /// Name of the column with the record's key.
    pub key: Option<String>,
    pub csv: CsvOptions,
    /// About the whole table.
    pub notes: Vec<String>,
}

pub(super) fn describe(sample: &Sample, request: &Request) -> Result<Described> {
    let (source, table) = names(&sample.origin, request.name.as_deref());
    let mut described = Described {
        source,
        table,
        origin: sample.origin.clone(),
        format: Format::Json,
        columns: Vec::new(),
        rescued: None,
        primary_key: Vec::new(),
        key: None,
        csv: CsvOptions::default(),
        notes: Vec::new(),
    };
    let count = match &sample.content {
        Content::Parquet(schema) => {
            described.format = Format::Parquet;
            described.columns = schema.fields().iter().map(parquet_column).collect();
            described.notes.push(format!("From the schema of {}", request.location));
            return Ok(described);
        }
        Content::Csv { records, options } => {
            described.format = Format::Csv;
            described.csv = options.clone();
            csv(&mut described, records);
            records.len()
        }
        Content::Records(records) => {
            json(&mut described, records, request)?;
            records.len()
        }
    };
    described.notes.insert(0, format!("From {count} {} of {}", plural(count, "record"), request.location));
    if described.columns.is_empty() {
        return Err(Error::user("no-columns", format!("the samples of {} have no fields", request.location)));
    }
    if described.columns.iter().any(|c| c.misfit) {
        let taken = |name: &str| described.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
        described.rescued =
            ["_rescued", "_rescued_data", "_rescued_fields"].into_iter().find(|n| !taken(n)).map(str::to_string);
    }
    let records = match &sample.content {
        Content::Csv { records, .. } | Content::Records(records) => records,
        Content::Parquet(_) => return Ok(described),
    };
    note_bad(&mut described, records)?;
    note_keys(&mut described, records);
    Ok(described)
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_string() } else { format!("{word}s") }
}

/// Names of source and table: as asked for, else after connection and topic, or `files` and the file.
fn names(origin: &Origin, asked: Option<&str>) -> (String, String) {
    let (source, place) = match origin {
        Origin::Kafka { connection, topic, .. } => (connection.as_deref().unwrap_or("kafka"), topic.as_str()),
        Origin::Files { path } => {
            let path = path.trim_end_matches('/');
            let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
            let stem = file.split_once('.').map_or(file, |(stem, _)| stem);
            // A glob without a name of its own is called as its folder.
            let bare = stem.trim_matches(|c: char| !c.is_alphanumeric());
            ("files", if bare.is_empty() { folder.rsplit('/').next().unwrap_or("") } else { stem })
        }
    };
    let default = identifier(place);
    match asked.map(|name| name.split_once('.').unwrap_or(("", name))) {
        None => (identifier(source), default),
        Some(("", table)) => (identifier(source), table.to_string()),
        Some((source, table)) => (source.to_string(), table.to_string()),
    }
}

/// `text` with everything replaced that a name needs quotes for.
fn identifier(text: &str) -> String {
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let name = name.trim_matches('_').to_string();
    match name.chars().next() {
        None => "records".to_string(),
        Some(c) if c.is_ascii_digit() => format!("t_{name}"),
        Some(_) => name,
    }
}

fn json(described: &mut Described, records: &[Record], request: &Request) -> Result<()> {
    let trees: Vec<Tree> = records.iter().filter_map(|r| Tree::record(r.value.as_deref()?).ok()).collect();
    // An array over several lines may have a line that happens to be an object.
    let array =
        records.first().and_then(|r| r.value.as_deref()).is_some_and(|v| v.trim_ascii_start().starts_with(b"["));
    if trees.is_empty() || (array && matches!(described.origin, Origin::Files { .. })) {
        let reason = records
            .iter()
            .find_map(|r| Tree::record(r.value.as_deref()?).err())
            .unwrap_or_else(|| "only tombstones".into());
        let error = Error::user("no-json", format!("no sample of {} is a JSON object: {reason}", request.location));
        return Err(error.with_hint(match &described.origin {
            Origin::Files { .. } => {
                "smelt reads one object per line; `jq -c '.[]' FILE` makes such lines of an array, `jq -c . FILE` of objects over several lines"
            }
            Origin::Kafka { .. } => "for other payloads write format: raw, with include: {value: raw_data}",
        }));
    }
    let events: Vec<Option<&Tree>> = trees.iter().map(envelope).collect();
    let debezium = match request.format {
        Some(format) => format == Format::DebeziumJson,
        None => events.iter().all(Option::is_some),
    };
    let mut shape = Shape::default();
    if debezium {
        described.format = Format::DebeziumJson;
        for event in events.iter().flatten() {
            for row in ["before", "after"] {
                if let Some(row @ Tree::Object(_)) = event.get(row) {
                    shape.add(row);
                }
            }
        }
    } else {
        trees.iter().for_each(|tree| shape.add(tree));
    }
    described.columns = columns(&shape);
    if debezium {
        primary_key(described, records, &events.iter().flatten().copied().collect::<Vec<_>>());
    }
    Ok(())
}

/// The Debezium event a record is, bare or as `payload` beside its schema.
fn envelope(record: &Tree) -> Option<&Tree> {
    let is_event = |tree: &&Tree| {
        let op =
            matches!(tree.get("op"), Some(Tree::Text(op)) if matches!(op.as_str(), "c" | "u" | "d" | "r" | "t" | "m"));
        let row = |key| matches!(tree.get(key), Some(Tree::Object(_) | Tree::Null));
        op && (row("before") || row("after"))
    };
    Some(record).filter(is_event).or_else(|| record.get("payload").filter(is_event))
}

/// The key of a changelog: the fields of the records' keys, else `id`.
fn primary_key(described: &mut Described, records: &[Record], events: &[&Tree]) {
    let named = |name: &str| {
        let columns = &described.columns;
        columns
            .iter()
            .find(|c| c.name == name)
            .or_else(|| columns.iter().find(|c| c.name.to_lowercase() == name.to_lowercase()))
    };
    let keys = records.iter().filter_map(|r| Tree::record(r.key.as_deref()?).ok());
    let mut fields: Vec<String> = Vec::new();
    for key in keys {
        let key = key.get("payload").unwrap_or(&key);
        for (name, _) in key.members() {
            if let Some(column) = named(name)
                && !fields.contains(&column.name)
            {
                fields.push(column.name.clone());
            }
        }
    }
    if fields.is_empty() {
        let whole = events.iter().all(|e| {
            !matches!(e.get("op"), Some(Tree::Text(op)) if op == "u" || op == "d")
                || matches!(e.get("before"), Some(Tree::Object(_)))
        });
        match named("id") {
            Some(id) => {
                fields.push(id.name.clone());
                described.notes.push("The records have no key: primary_key is a guess".to_string());
            }
            None if whole => {
                described.notes.push("No primary_key: `before` takes a row away, `after` adds one".to_string());
            }
            None => described
                .notes
                .push("Updates have no `before`: add config: {primary_key: [the table's key]}".to_string()),
        }
    }
    described.primary_key = fields;
}

fn csv(described: &mut Described, records: &[Record]) {
    let mut shape = Shape::default();
    let mut width = 0;
    for record in records {
        let Some(Ok(cells)) = record.value.as_deref().map(|value| cells(value, &described.csv)) else { continue };
        width = width.max(cells.len());
        let names: Vec<String> = match &described.csv.header {
            Some(header) if header.len() == cells.len() => header.clone(),
            Some(_) => continue,
            None => (1..=cells.len()).map(|i| format!("c{i}")).collect(),
        };
        let values = names.iter().map(String::as_str).zip(cells.iter().map(Option::as_deref));
        shape.add_cells(values);
    }
    if let (Some(header), 0) = (&described.csv.header, width) {
        // A header alone: the names are known.
        shape.add_cells(header.iter().map(|name| (name.as_str(), None)));
    }
    described.columns = columns(&shape);
}

/// A column of a Parquet file.
fn parquet_column(field: &FieldRef) -> Guess {
    let notes = match field.is_nullable() {
        true => Vec::new(),
        false => vec!["never null, the file says".to_string()],
    };
    Guess { name: field.name().clone(), data_type: sql_type(field.data_type()), format: None, notes, misfit: false }
}

/// The type of ours that a Parquet column can be cast to.
fn sql_type(data_type: &DataType) -> DataType {
    let field = |f: &FieldRef| Arc::new(Field::new(f.name(), sql_type(f.data_type()), true));
    match data_type {
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Time32(_) | DataType::Time64(_) | DataType::Null => {
            DataType::Utf8
        }
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal256(p, s) => {
            DataType::Decimal128((*p).min(38), *s)
        }
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new_list_field(sql_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// Decodes the samples with what will be printed, and notes the records that it does not read.
fn note_bad(described: &mut Described, records: &[Record]) -> Result<()> {
    let bad = decode(described, records)?;
    if let Some(first) = bad.first() {
        let count = bad.len();
        described.notes.push(format!(
            "{count} of them would become dead {}: {}",
            plural(count, "letter"),
            first.reason
        ));
    }
    Ok(())
}

fn decode(described: &Described, records: &[Record]) -> Result<Vec<RecordError>> {
    let fields: Fields = described
        .columns
        .iter()
        .map(|c| Ok(Arc::new(Field::new(&c.name, parse_sql_type(&sql_type_name(&c.data_type))?, true))))
        .collect::<Result<_>>()?;
    let options = DecodeOptions {
        formats: described.columns.iter().filter_map(|c| Some((c.name.clone(), c.format.clone()?))).collect(),
        rescued: described.rescued.is_some(),
        primary_key: described.primary_key.clone(),
        csv: described.csv.clone(),
        ..DecodeOptions::new(Arc::new(Schema::new(fields)))
    };
    let format = match described.format {
        Format::Csv => DecodeFormat::Csv,
        Format::DebeziumJson => DecodeFormat::DebeziumJson,
        _ => DecodeFormat::Json,
    };
    let chunk = RawChunk {
        topic: described.table.as_str().into(),
        partition: 0,
        file: None,
        values: records.iter().map(|r| r.value.as_deref()).collect(),
        keys: Some(records.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        offsets: Int64Array::from_iter_values(0..records.len() as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; records.len()]),
        headers: None,
    };
    Ok(decoder(format, &options)?.decode(&chunk)?.errors)
}

/// Where records have keys: which column holds the same, or a column for them.
fn note_keys(described: &mut Described, records: &[Record]) {
    if described.format == Format::DebeziumJson || records.iter().all(|r| r.key.is_none()) {
        return;
    }
    let texts: Option<Vec<&str>> =
        records.iter().filter_map(|r| r.key.as_deref()).map(|key| std::str::from_utf8(key).ok()).collect();
    let Some(texts) = texts else {
        described.notes.push("The records' keys are no text".to_string());
        return;
    };
    let same = |column: &&Guess| {
        records.iter().filter_map(|r| Some((r.key.as_deref()?, r.value.as_deref()?))).all(|(key, value)| {
            let Ok(tree) = Tree::record(value) else { return true };
            match tree.get(&column.name) {
                Some(Tree::Text(text) | Tree::Number(text)) => text.as_bytes() == key,
                _ => false,
            }
        })
    };
    if let Some(column) = described.columns.iter().find(same) {
        described.notes.push(format!("The record's key is its `{}`", column.name));
        return;
    }
    let taken = |name: &str| described.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
    described.key = ["_key", "_record_key", "_kafka_key"].into_iter().find(|n| !taken(n)).map(str::to_string);
    let example = texts.first().map_or("", |t| t);
    let short: String = example.chars().filter(|c| !c.is_control()).take(40).collect();
    described.notes.push(format!("The records' keys are texts such as `{short}`"));
}
