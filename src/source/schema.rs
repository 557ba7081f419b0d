//! The columns of a source table as SQL sees them.

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::project::{Connector, Format, Include, SourceTable};
use crate::types::{ChangeKind, parse_sql_type};

/// The declared columns.
pub(super) fn declared(table: &SourceTable) -> Result<Fields> {
    table
        .columns
        .iter()
        .map(|column| {
            let text = column.data_type.as_deref().unwrap_or("STRING");
            let data_type = parse_sql_type(text).map_err(|e| e.with_span(column.span.clone()))?;
            Ok(Arc::new(Field::new(&column.name, data_type, true)))
        })
        .collect()
}

/// Declared columns, then the column for rescued data, then the included metadata.
pub fn relation_schema(table: &SourceTable) -> Result<SchemaRef> {
    let declared = declared(table)?;
    let mut fields: Vec<Arc<Field>> =
        if shows_declared(table) { declared.iter().cloned().collect() } else { Vec::new() };
    if let Some(name) = &table.rescued_data {
        fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
    }
    for (include, name) in &table.include {
        fields.push(Arc::new(Field::new(name, include_type(*include, &declared), true)));
    }
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|f| f.name().eq_ignore_ascii_case(field.name())) {
            return Err(Error::user(
                "duplicate-column",
                format!("source {}.{} has two columns named `{}`", table.source, table.name, field.name()),
            )
            .with_span(table.span.clone())
            .with_hint("give the included metadata another name: `include: {offset: _offset}`"));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// `format: raw` has no columns of its own.
pub(super) fn shows_declared(table: &SourceTable) -> bool {
    table.format != Format::Raw
}

/// Type of a metadata column.
pub(super) fn include_type(include: Include, declared: &Fields) -> DataType {
    match include {
        Include::Key | Include::Value | Include::Topic | Include::Headers | Include::File | Include::Error => {
            DataType::Utf8
        }
        Include::ValueBytes => DataType::Binary,
        Include::Partition => DataType::Int32,
        Include::Offset => DataType::Int64,
        Include::Timestamp | Include::ProcessingTime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Include::Parsed => DataType::Struct(declared.clone()),
    }
}

/// What the weights of the source's rows mean.
pub fn change_kind(table: &SourceTable) -> ChangeKind {
    match (table.format, table.primary_key.is_empty()) {
        (Format::DebeziumJson, false) => ChangeKind::Keyed(table.primary_key.clone()),
        (Format::DebeziumJson, true) => ChangeKind::Signed,
        _ => ChangeKind::Append,
    }
}

/// Whether its rows can be read again from the start, so that a view may read it directly.
pub fn replayable(table: &SourceTable) -> bool {
    !matches!(table.connector, Connector::Kafka(_))
}
