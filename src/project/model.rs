//! What a project is once it is loaded: validated values, no YAML and no Jinja left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::answers::Asks;
use super::data_tests::TestConfig;
use super::flags::ProjectFlags;
use super::freshness::FreshnessCheck;
use super::incremental::IncrementalConfig;
use super::inventory::Inventory;
use super::operations::Operations;
use super::schedule::Schedule;
use super::seed::SeedFile;
use super::select::Selector;
use super::snapshot::SnapshotConfig;
use super::source_map::SourceMap;
use super::unit_tests::UnitTest;
use crate::error::{Error, Span};
use crate::types::RejectKind;

/// A loaded project: every model compiled to SQL, the graph checked for cycles and missing refs.
#[derive(Debug, Clone)]
pub struct Project {
    pub name: String,
    /// Absolute.
    pub dir: PathBuf,
    pub dialect: Dialect,
    pub target: Target,
    /// Sources by (source, table).
    pub sources: Vec<Arc<SourceTable>>,
    /// In topological order: a model stands after everything it reads.
    pub models: Vec<Arc<Model>>,
    /// Data tests, generic and singular.
    pub tests: Vec<DataTest>,
    /// `selectors.yml`.
    pub selectors: Vec<Selector>,
    /// Unit tests of models, by name.
    pub unit_tests: Vec<UnitTest>,
    /// What artifacts and documentation say beyond that.
    pub inventory: Inventory,
    /// The templates that hooks and operations are; None of a project that was made by hand.
    pub operations: Option<Arc<Operations>>,
    /// `flags:` of the project file.
    pub flags: ProjectFlags,
    /// Templates look at `selected_resources`.
    pub asks_selection: bool,
    /// Things worth saying that stop nothing.
    pub warnings: Vec<Error>,
    /// What templates printed: `print(…)`, `log(…, info=true)`.
    pub said: Vec<String>,
}

impl Project {
    /// Names of the models and data tests whose SQL is not known yet: their templates ask the lake.
    pub fn waiting(&self) -> BTreeSet<String> {
        let models = self.models.iter().filter(|m| m.asks.waits.is_some()).map(|m| m.name.clone());
        models.chain(self.tests.iter().filter(|t| t.waits.is_some()).map(|t| t.name.clone())).collect()
    }
}

/// The SQL dialect of a project's models: decides `/`, NULL order, cast failure and format patterns (docs/dialects.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    #[default]
    DataFusion,
    Postgres,
    DuckDb,
    Spark,
    Databricks,
    Snowflake,
}

/// Where and how a project runs: one entry of `targets`.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    /// Absolute path or object-store URL.
    pub lake: String,
    /// What the lake is called where a database is asked for: the profile's, or `lake`.
    pub database: String,
    pub commit_interval: Duration,
    /// An epoch ends at the latest after so many rows or files.
    pub epoch_max_rows: usize,
    pub epoch_max_files: usize,
    pub heartbeat: Duration,
    /// `delta.deletedFileRetentionDuration`; default 1 hour.
    pub deleted_file_retention: Duration,
    /// `delta.logRetentionDuration`; default 1 day.
    pub log_retention: Duration,
    /// How long a row of `_smelt/runs` stays; default 30 days.
    pub runs_retention: Duration,
    /// fsync data, vectors and log on local paths; default true.
    pub fsync: bool,
    /// Memory for operator state and queries, bytes; None: unbounded.
    pub memory_limit: Option<usize>,
    pub threads: usize,
    pub connections: BTreeMap<String, Connection>,
    pub state_snapshots: StateSnapshots,
    /// Of models that do not say.
    pub on_foreign_change: OnForeignChange,
}

/// Whether operators' state is stored in the lake, so that a restart need not compute it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSnapshots {
    pub enabled: bool,
    /// While `smelt up` runs, a model's state is written at most so often.
    pub interval: Duration,
    /// Models whose state or inputs hold fewer rows are quicker computed than loaded.
    pub min_rows: u64,
}

impl Default for StateSnapshots {
    fn default() -> Self {
        StateSnapshots { enabled: true, interval: Duration::from_secs(600), min_rows: 100_000 }
    }
}

/// A named connection: its `type`, and everything else verbatim (librdkafka properties for kafka). Values may be secret:
/// print them only through `Env::redact`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub kind: String,
    pub properties: BTreeMap<String, String>,
}

/// A table of a `sources:` entry.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Name of the `sources:` entry, or `package.name` where another package has a table of these names already.
    pub source: String,
    /// Name of the table in it.
    pub name: String,
    /// `source.<package>.<source>.<table>`.
    pub unique_id: String,
    /// The project or package that declares it.
    pub package: String,
    /// `[package, folder, …, source, table]`.
    pub fqn: Vec<String>,
    pub description: Option<String>,
    pub connector: Connector,
    pub format: Format,
    /// Declared columns, in order.
    pub columns: Vec<Column>,
    /// (metadata, column name it appears under), in the order written.
    pub include: Vec<(Include, String)>,
    /// Column for unknown or unconvertible fields, as JSON text.
    pub rescued_data: Option<String>,
    pub on_error: OnError,
    /// Keyed changelog: rows are upserts and deletes by these columns.
    pub primary_key: Vec<String>,
    pub watermark: Option<Watermark>,
    /// How old its newest row may be.
    pub freshness: Option<FreshnessCheck>,
    /// As [`ModelConfig::event_time`].
    pub event_time: Option<String>,
    /// Where the table is declared.
    pub span: Span,
}

impl SourceTable {
    /// Name of the `sources:` entry, which another package may use, too.
    pub fn source_name(&self) -> &str {
        self.source.strip_prefix(&self.package).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&self.source)
    }
}

/// What a source table reads from.
#[derive(Debug, Clone)]
pub enum Connector {
    Kafka(KafkaConfig),
    Files(FilesConfig),
    /// Rows made by a built-in generator; `options` are its own.
    Datagen {
        options: BTreeMap<String, serde_json::Value>,
    },
    /// A Delta table that somebody else maintains: `<lake>/<schema>/<identifier>`, or `path`.
    Delta {
        schema: String,
        identifier: String,
        path: Option<String>,
    },
}

#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// librdkafka properties: the connection's, overridden by the table's `properties:`.
    pub properties: BTreeMap<String, String>,
    pub topics: Topics,
    pub start: Start,
    pub on_data_loss: OnDataLoss,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    Named(Vec<String>),
    /// A regular expression over topic names.
    Pattern(String),
}

/// Where a Kafka partition without a position starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// First record at or after this instant, µs UTC.
    Timestamp(i64),
    /// Offset per partition; the others start at earliest.
    Offsets(BTreeMap<i32, i64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDataLoss {
    Fail,
    Skip,
}

#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// A glob, a file, or a folder whose own files are read (none that begins with `.` or `_`): absolute, or an object-store URL.
    pub path: String,
    /// CSV: has a header line (default true), delimiter (default `,`), and the like.
    pub options: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    Parquet,
    /// No decoding: the record is read through `include`.
    Raw,
    DebeziumJson,
}

/// Metadata a source can expose as columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Include {
    /// STRING; NULL when not UTF-8.
    Key,
    /// STRING: the payload; NULL for a tombstone or when not UTF-8.
    Value,
    /// BINARY: the payload, only when it is not valid UTF-8.
    ValueBytes,
    Topic,
    /// INT.
    Partition,
    /// BIGINT.
    Offset,
    /// TIMESTAMP: the broker's.
    Timestamp,
    /// STRING: JSON object.
    Headers,
    /// TIMESTAMP: when the engine read the record.
    ProcessingTime,
    /// STRING.
    File,
    /// STRING: why the record is bad; NULL when it is good. Needs `on_error: keep` to ever be set.
    Error,
    /// All declared columns as one STRUCT; NULL when the record is bad.
    Parsed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    DeadLetter,
    Keep,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub column: String,
    pub delay: Duration,
    pub idle_timeout: Duration,
}

/// A column of a source or model as YAML declares it.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// SQL type as written; always present on source columns, optional on models.
    pub data_type: Option<String>,
    /// Format of text timestamps, when declared.
    pub format: Option<String>,
    pub description: Option<String>,
    pub span: Span,
}

/// One model: a SQL file and its configuration.
#[derive(Debug, Clone)]
pub struct Model {
    /// Unique in the project, ignoring case: the name its file gives it, or `package.name` where another package has that already.
    pub name: String,
    /// `model.<package>.<name>`, or `snapshot.…`.
    pub unique_id: String,
    /// The project or package it belongs to.
    pub package: String,
    /// `[package, folder, …, name]`; a snapshot's file stands before its name, as in dbt.
    pub fqn: Vec<String>,
    /// Table schema and name: the table lands at `<lake>/<schema>/<alias>`.
    pub schema: String,
    pub alias: String,
    /// The table its readers read instead of its own.
    pub deferred: Option<super::Deferred>,
    /// Relative to the project.
    pub path: PathBuf,
    pub materialized: Materialization,
    /// Compiled SQL: Jinja is gone, `ref` has become `"schema"."alias"` and `source` `"source"."table"`, by their names in the
    /// project whatever they read (in backticks where the dialect's `"` makes a string). No two of them are equal.
    pub sql: String,
    /// From positions in `sql` back to the file.
    pub source_map: SourceMap,
    /// Of an incremental model: its query when the table is there, `is_incremental()` being true. `sql` is that of the first run
    /// and of a full refresh.
    pub rerun: Option<Query>,
    /// What its template asks the lake.
    pub asks: Asks,
    /// Of a seed: its file.
    pub seed: Option<Arc<SeedFile>>,
    /// What it reads, each once, in the order of first mention.
    pub depends_on: Vec<Dependency>,
    pub config: ModelConfig,
    pub expectations: Vec<Expectation>,
    pub columns: Vec<Column>,
    pub tags: Vec<String>,
    pub description: Option<String>,
}

impl Model {
    /// The name its file gives it, which a model of another package may have, too.
    pub fn own_name(&self) -> &str {
        self.fqn.last().unwrap_or(&self.name)
    }

    /// Names of the tables that may stand beside its own, in the same schema, for rows that did not get there.
    pub fn side_tables(&self) -> impl Iterator<Item = String> {
        let kinds = [RejectKind::DeadLetter, RejectKind::Quarantine, RejectKind::Late];
        kinds.into_iter().map(|kind| kind.table(&self.alias))
    }

    /// Whether a run does something for it, as dbt counts: an ephemeral model only lives in its readers.
    pub fn is_made(&self) -> bool {
        self.materialized != Materialization::Ephemeral
    }
}

/// Compiled SQL, as [`Model::sql`], with its places.
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    pub source_map: SourceMap,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// Name of a model.
    Model(String),
    /// (source, table).
    Source(String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Materialization {
    StreamingTable,
    MaterializedView,
    /// Inlined into its readers, and queryable.
    View,
    /// Inlined into its readers as a CTE.
    Ephemeral,
    /// Recomputed as a whole at its schedule; without one at start and when its SQL changes.
    Table,
    /// Each run brings the rows of its query into the table.
    Incremental,
    /// The history of its query's rows, taken at its schedule.
    Snapshot,
    /// The rows of a CSV file of the project.
    Seed,
}

impl Materialization {
    /// As it is written in `materialized:`.
    pub fn name(self) -> &'static str {
        match self {
            Materialization::StreamingTable => "streaming_table",
            Materialization::MaterializedView => "materialized_view",
            Materialization::View => "view",
            Materialization::Ephemeral => "ephemeral",
            Materialization::Table => "table",
            Materialization::Incremental => "incremental",
            Materialization::Snapshot => "snapshot",
            Materialization::Seed => "seed",
        }
    }

    /// Made by runs, not kept up to date with every epoch.
    pub fn is_scheduled(self) -> bool {
        matches!(
            self,
            Materialization::Table | Materialization::Incremental | Materialization::Snapshot | Materialization::Seed
        )
    }

    /// Has a Delta table of its own.
    pub fn has_table(self) -> bool {
        !matches!(self, Materialization::View | Materialization::Ephemeral)
    }
}

/// What happens when another program changes the rows of a model's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnForeignChange {
    /// The model stops.
    #[default]
    Park,
    /// A view is recomputed and compared; of a streaming table the change is taken over. Readers follow.
    Repair,
}

/// `persist_docs: {relation: true, columns: true}`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PersistDocs {
    pub relation: bool,
    pub columns: bool,
}

/// `config:` of a model after inheritance.
#[derive(Debug, Clone, Default)]
pub struct ModelConfig {
    pub partition_by: Vec<String>,
    /// None: on for maintained tables.
    pub deletion_vectors: Option<bool>,
    /// `incremental: strict`: no full refresh allowed.
    pub incremental_strict: bool,
    pub skip_change_commits: bool,
    /// `emit: on_close`: each window is written once, when the watermark has passed its end.
    pub emit_on_close: bool,
    /// Event time of its rows.
    pub watermark: Option<Watermark>,
    /// None: as the target says.
    pub on_foreign_change: Option<OnForeignChange>,
    pub full_refresh: Option<bool>,
    pub enabled: bool,
    /// When it runs; only where [`Materialization::is_scheduled`].
    pub schedule: Option<Schedule>,
    /// Of a snapshot.
    pub snapshot: Option<SnapshotConfig>,
    /// `contract: {enforced: true}`: its columns and constraints are promises.
    pub contract: bool,
    /// Of an incremental model.
    pub incremental: Option<IncrementalConfig>,
    /// The column that says when a row happened: readers with strategy `microbatch` read a batch of it.
    pub event_time: Option<String>,
    /// Which descriptions stand in the table's log.
    pub persist_docs: PersistDocs,
    /// Extra Delta table properties.
    pub table_properties: BTreeMap<String, String>,
    /// Everything as written, known or not, for the manifest.
    pub all: BTreeMap<String, serde_json::Value>,
    /// The same as it is written: Jinja as text, of each key what the last level says.
    pub written: BTreeMap<String, serde_json::Value>,
}

/// A row predicate that must be TRUE.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub name: String,
    pub expect: String,
    pub on_violation: OnViolation,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    Warn,
    Drop,
    Fail,
    Quarantine,
}

/// A data test: a query whose rows are the failures.
#[derive(Debug, Clone)]
pub struct DataTest {
    /// `not_null_silver_calls_sid`, or the file's stem.
    pub name: String,
    /// dbt's: `test.<package>.<name>`, of a generic test with ten digits of a digest of what it is made of.
    pub unique_id: String,
    /// The project or package that declares it.
    pub package: String,
    /// `[package, folder, …, name]`.
    pub fqn: Vec<String>,
    /// The model it tests; None for a singular test that reads several.
    pub model: Option<String>,
    /// Why its SQL is not known yet: it asks the lake.
    pub waits: Option<Error>,
    /// Compiled SQL that returns the failing rows.
    pub sql: String,
    pub source_map: SourceMap,
    pub depends_on: Vec<Dependency>,
    pub severity: Severity,
    pub path: PathBuf,
    pub tags: Vec<String>,
    /// `not_null`; None for a singular test.
    pub test_name: Option<String>,
    /// How it is judged, and where its failing rows go.
    pub config: TestConfig,
    /// `None`: a file of its own, a singular test.
    pub generic: Option<TestMetadata>,
}

/// A data test that a macro or a built-in name makes.
#[derive(Debug, Clone, PartialEq)]
pub struct TestMetadata {
    /// `dbt_utils` of `dbt_utils.at_least_one`.
    pub namespace: Option<String>,
    /// The column it stands on.
    pub column: Option<String>,
    /// Its arguments as written.
    pub arguments: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Warn,
    Error,
}
