//! Which tables smelt reads and writes, by protocol version and table feature.

use super::actions::{Metadata, Protocol};
use crate::error::{Error, Result};

/// Features whose tables we read rightly. `columnMapping` only while its mode is `none`.
const READ: [&str; 7] = [
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "columnMapping",
    "vacuumProtocolCheck",
    "typeWidening",
    "typeWidening-preview",
];
/// Features whose duties we fulfil when writing.
const WRITE: [&str; 4] = ["deletionVectors", "timestampNtz", "appendOnly", "invariants"];

/// The table property that names a table's owner-independent vector switch.
pub const ENABLE_VECTORS: &str = "delta.enableDeletionVectors";

/// The protocol of a table we create.
pub fn of_new_table(deletion_vectors: bool, timestamp_ntz: bool) -> Protocol {
    if !deletion_vectors && !timestamp_ntz {
        return Protocol { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None };
    }
    let features: Vec<String> = [(deletion_vectors, "deletionVectors"), (timestamp_ntz, "timestampNtz")]
        .into_iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, name)| name.to_string())
        .collect();
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(features.clone()),
        writer_features: Some(features),
    }
}

fn unknown<'a>(features: &'a Option<Vec<String>>, known: &[&str]) -> Option<&'a str> {
    features.as_deref().unwrap_or(&[]).iter().map(String::as_str).find(|f| !known.contains(f))
}

/// Fails when reading the table would give wrong rows.
pub fn check_readable(protocol: &Protocol, metadata: &Metadata, table: &str) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::user("unsupported-table", format!("`{table}` uses {what}, which smelt does not read"))
            .with_hint("rewrite the table without it, or read a copy"))
    };
    if protocol.min_reader_version > 3 {
        return refuse(format!("reader version {}", protocol.min_reader_version));
    }
    if let Some(feature) = unknown(&protocol.reader_features, &READ) {
        return refuse(format!("the table feature `{feature}`"));
    }
    match metadata.configuration.get("delta.columnMapping.mode").map(String::as_str) {
        None | Some("none") => Ok(()),
        Some(mode) => refuse(format!("column mapping by {mode}")),
    }
}

/// Fails when we could not write the table without breaking a promise it makes.
pub fn check_writable(protocol: &Protocol, metadata: &Metadata, table: &str) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::user("unsupported-table", format!("`{table}` uses {what}, which smelt does not write"))
            .with_hint("let smelt create the table under another name"))
    };
    match protocol.min_writer_version {
        ..=2 => {}
        7 => {
            if let Some(feature) = unknown(&protocol.writer_features, &WRITE) {
                return refuse(format!("the table feature `{feature}`"));
            }
        }
        other => return refuse(format!("writer version {other}")),
    }
    if metadata.configuration.get("delta.appendOnly").is_some_and(|v| v == "true") {
        return refuse("`delta.appendOnly`".to_string());
    }
    if metadata.configuration.contains_key("delta.setTransactionRetentionDuration") {
        return refuse("`delta.setTransactionRetentionDuration`, under which positions would expire".to_string());
    }
    Ok(())
}
