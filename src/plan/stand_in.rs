//! Stand-in for what `source` will say of its tables.
// Stand-in until the module lands.
use crate::error::{Error, Result};
use crate::project::{Connector, Include, SourceTable};
use crate::types::ChangeKind;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

pub fn relation_schema(table: &SourceTable) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::new();
    for c in &table.columns {
        fields.push(Field::new(&c.name, parse(c.data_type.as_deref().unwrap_or("STRING"))?, true));
    }
    let parsed: Fields = fields.clone().into();
    for (include, name) in &table.include {
        let t = match include {
            Include::Parsed => DataType::Struct(parsed.clone()),
            Include::Partition => DataType::Int32,
            Include::Offset => DataType::Int64,
            Include::Timestamp | Include::ProcessingTime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Include::ValueBytes => DataType::Binary,
            _ => DataType::Utf8,
        };
        fields.push(Field::new(name, t, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}
fn parse(text: &str) -> Result<DataType> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix("STRUCT<").and_then(|t| t.strip_suffix('>')) {
        let mut fields = Vec::new();
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (i, c) in inner.char_indices() {
            match c {
                '<' | '(' => depth += 1,
                '>' | ')' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&inner[start..i]);
                    start = i + 1;
                }
                _ => {}
            }
        }
        parts.push(&inner[start..]);
        for part in parts {
            let (name, t) = part.split_once(':').ok_or_else(|| Error::user("type", part))?;
            fields.push(Field::new(name.trim(), parse(t)?, true));
        }
        return Ok(DataType::Struct(fields.into()));
    }
    if let Some(inner) = text.strip_prefix("ARRAY<").and_then(|t| t.strip_suffix('>')) {
        return Ok(DataType::new_list(parse(inner)?, true));
    }
    Ok(match text {
        "STRING" => DataType::Utf8,
        "BIGINT" => DataType::Int64,
        "INT" => DataType::Int32,
        "DOUBLE" => DataType::Float64,
        "BOOLEAN" => DataType::Boolean,
        "DATE" => DataType::Date32,
        "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "DECIMAL(10,2)" => DataType::Decimal128(10, 2),
        other => return Err(Error::user("type", format!("no type `{other}`"))),
    })
}
pub fn change_kind(table: &SourceTable) -> ChangeKind {
    match (table.format, table.primary_key.is_empty()) {
        (crate::project::Format::DebeziumJson, true) => ChangeKind::Signed,
        (crate::project::Format::DebeziumJson, false) => ChangeKind::Keyed(table.primary_key.clone()),
        _ => ChangeKind::Append,
    }
}
pub fn replayable(table: &SourceTable) -> bool {
    !matches!(table.connector, Connector::Kafka(_))
}
