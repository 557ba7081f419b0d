//! The actions of a Delta log entry, as the protocol names them.
//!
//! One line of a commit is one [`Line`] with exactly one member set; unknown actions and unknown members are ignored, as
//! the protocol asks of readers (what must not be ignored is announced by a table feature, see [`super::protocol`]).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Partition column → value as Delta writes it; `None` is NULL.
pub type PartitionValues = BTreeMap<String, Option<String>>;

/// What a reader and a writer must support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// The encoding of data files: always Parquet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Identity, schema and properties of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    #[serde(default)]
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// Where a deletion vector is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// `u`: a file named by a UUID under the table; `i`: inline; `p`: an absolute path.
    pub storage_type: String,
    pub path_or_inline_dv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    pub cardinality: i64,
}

/// A data file becomes part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    pub path: String,
    #[serde(default)]
    pub partition_values: PartitionValues,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Descriptor>,
}

/// A data file leaves the table. It stays in the store until vacuumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<PartitionValues>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Descriptor>,
}

/// How far an application has come: the place of every position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A further file of a V2 checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    pub path: String,
}

/// One line of a log entry; exactly one member is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
}

impl From<Protocol> for Line {
    fn from(protocol: Protocol) -> Self {
        Line { protocol: Some(protocol), ..Line::default() }
    }
}

impl From<Metadata> for Line {
    fn from(metadata: Metadata) -> Self {
        Line { meta_data: Some(metadata), ..Line::default() }
    }
}

impl From<Txn> for Line {
    fn from(txn: Txn) -> Self {
        Line { txn: Some(txn), ..Line::default() }
    }
}

impl From<Remove> for Line {
    fn from(remove: Remove) -> Self {
        Line { remove: Some(remove), ..Line::default() }
    }
}

impl From<Add> for Line {
    fn from(add: Add) -> Self {
        Line { add: Some(add), ..Line::default() }
    }
}

/// The member of `commitInfo` that holds what smelt says about a commit.
pub const INFO_MEMBER: &str = "smelt";
/// The member of it that tells our own payload from any other.
pub const PAYLOAD_MEMBER: &str = "payload";

/// A whole log entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit(pub Vec<Line>);

impl Commit {
    /// Parses JSON lines. `what` names the entry in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = serde_json::from_slice(line).map_err(|e| {
                Error::environment("bad-log", format!("{what}, line {}: not a Delta action: {e}", i + 1)).permanent()
            })?;
            lines.push(line);
        }
        Ok(Commit(lines))
    }

    /// JSON lines.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(256 * self.0.len());
        for line in &self.0 {
            serde_json::to_writer(&mut out, line).map_err(|e| Error::internal(format!("log entry: {e}")))?;
            out.push(b'\n');
        }
        Ok(out)
    }

    /// The payload uuid smelt wrote into it.
    pub fn payload(&self) -> Option<&str> {
        let info = self.0.iter().find_map(|l| l.commit_info.as_ref())?;
        info.get(INFO_MEMBER)?.get(PAYLOAD_MEMBER)?.as_str()
    }

    /// The version an application reached with it.
    pub fn txn(&self, app: &str) -> Option<i64> {
        self.0.iter().rev().filter_map(|l| l.txn.as_ref()).find(|t| t.app_id == app).map(|t| t.version)
    }

    /// Whether it adds or removes rows, as opposed to only moving them, or changes what the table is.
    pub fn changes_data(&self) -> bool {
        self.0.iter().any(|l| {
            l.add.as_ref().is_some_and(|a| a.data_change)
                || l.remove.as_ref().is_some_and(|r| r.data_change)
                || l.meta_data.is_some()
                || l.protocol.is_some()
        })
    }
}
