//! The command line as typed: flags keep dbt's names and meaning.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use super::generate::Generate;
use super::source::Infer;
use crate::project::ResourceType;
use crate::types::parse_instant;

/// smelt turns a folder of SQL files into continuously maintained Delta tables.
#[derive(Debug, Parser)]
#[command(name = "smelt", version, about, propagate_version = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
    /// Flags that were given, by their names with `_`, as `args` of run_results.json has them.
    #[arg(skip)]
    pub given: BTreeMap<String, Json>,
}

impl Cli {
    /// Reads a command line, its first word being the program.
    pub fn read(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let definition = super::examples::command();
        let matches = definition.clone().try_get_matches_from(line)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.given = given(&definition, &matches);
        Ok(cli)
    }
}

/// The flags of the command line, with their values: `true`, text, a number, a list, and `vars` as a mapping.
fn given(definition: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, Json> {
    let (mut definition, mut matches) = (definition, matches);
    let mut arguments: Vec<&clap::Arg> = definition.get_arguments().filter(|a| a.is_global_set()).collect();
    while let Some((name, below)) = matches.subcommand() {
        let Some(command) = definition.find_subcommand(name) else { break };
        (definition, matches) = (command, below);
        arguments.extend(definition.get_arguments());
    }
    let mut given = BTreeMap::new();
    for argument in arguments {
        let id = argument.get_id().as_str();
        if !matches!(matches.try_contains_id(id), Ok(true))
            || matches.value_source(id) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        let values = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
        let values: Vec<String> = values.map(|v| v.to_string_lossy().into_owned()).collect();
        let many = argument.get_num_args().is_some_and(|n| n.max_values() > 1);
        let value = match values.as_slice() {
            _ if !argument.get_action().takes_values() => Json::Bool(true),
            [one] if id == "vars" => serde_yaml::from_str(one).unwrap_or_else(|_| Json::from(one.as_str())),
            [one] if !many => one.parse::<i64>().map_or_else(|_| Json::from(one.as_str()), Json::from),
            many => Json::from(many),
        };
        given.insert(id.to_string(), value);
    }
    given
}

/// Flags every command takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// Folder with smelt.yml or dbt_project.yml
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    pub project_dir: PathBuf,
    /// Target of smelt.yml or the profile to use instead of its `target:`
    #[arg(short, long, global = true, value_name = "NAME")]
    pub target: Option<String>,
    /// Profile of profiles.yml to use instead of the one dbt_project.yml names
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Folder with profiles.yml [default: the project's, then ~/.dbt]
    #[arg(long, global = true, value_name = "DIR")]
    pub profiles_dir: Option<PathBuf>,
    /// Variables for `var()`, as YAML or JSON: --vars '{start: 2026-01-01}'
    #[arg(long, global = true, value_name = "YAML")]
    pub vars: Option<String>,
    /// Another place for the tables: a path or object-store URL, instead of the target's `lake:`
    #[arg(long, global = true, value_name = "PATH")]
    pub lake: Option<String>,
    /// Print errors only
    #[arg(short, long, global = true, overrides_with = "no_quiet")]
    pub quiet: bool,
    #[arg(long, global = true, hide = true)]
    pub no_quiet: bool,
    /// Stop at the first model or test that fails
    #[arg(short = 'x', long, global = true, overrides_with = "no_fail_fast")]
    pub fail_fast: bool,
    #[arg(long, global = true, hide = true)]
    pub no_fail_fast: bool,
    /// Threads that plans and queries run on, instead of the target's `threads:`
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// These ask for what smelt does anyway.
    #[arg(long, global = true, hide = true)]
    pub no_partial_parse: bool,
    #[arg(long, global = true, hide = true)]
    pub no_version_check: bool,
    /// Warnings are errors, of the project and of data tests
    #[arg(long, global = true)]
    pub warn_error: bool,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Csv,
}

/// How housekeeping reports: lines for people, or a JSON object per table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Report {
    Text,
    Json,
}

/// Kinds of YAML files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaKind {
    Project,
    Properties,
}

/// Which nodes of the project (docs/selection.md).
#[derive(Debug, Clone, Args, Default)]
pub(super) struct Selection {
    /// Nodes to take: name, +name, name+, 2+name, tag:x, path:queries/gold, source:x, with * as wildcard
    #[arg(
        short,
        long,
        num_args = 1..,
        value_name = "SELECTOR",
        alias = "models",
        alias = "model",
        short_alias = 'm',
        help_heading = SELECTION
    )]
    pub select: Vec<String>,
    /// Nodes to leave out
    #[arg(long, num_args = 1.., value_name = "SELECTOR", help_heading = SELECTION)]
    pub exclude: Vec<String>,
    /// A definition of selectors.yml, instead of --select and --exclude
    #[arg(long, value_name = "NAME", help_heading = SELECTION)]
    pub selector: Option<String>,
    /// Which tests come along: that read anything selected, only what is selected, …
    #[arg(long, value_enum, default_value_t, value_name = "MODE", help_heading = SELECTION)]
    pub indirect_selection: IndirectSelection,
    /// Only nodes of these types: model, snapshot, seed, test, unit_test, source, exposure
    #[arg(
        long,
        num_args = 1..,
        value_name = "TYPE",
        alias = "resource-types",
        value_parser = resource_types,
        help_heading = SELECTION
    )]
    pub resource_type: Vec<ResourceTypes>,
    /// No nodes of these types
    #[arg(
        long,
        num_args = 1..,
        value_name = "TYPE",
        alias = "exclude-resource-types",
        value_parser = resource_types,
        help_heading = SELECTION
    )]
    pub exclude_resource_type: Vec<ResourceTypes>,
    /// Folder with the artifacts of another run, to compare with: state:modified, result:error, source_status:fresher
    #[arg(long, value_name = "DIR", help_heading = SELECTION)]
    pub state: Option<PathBuf>,
    /// Unique ids, instead of everything above: what `retry` repeats.
    #[arg(skip)]
    pub ids: Option<BTreeSet<String>>,
}

/// Flags of commands that may read another run's tables (docs/selection.md).
#[derive(Debug, Clone, Args, Default)]
pub(super) struct Deferring {
    /// Read models that are not built here from the tables of another run, whose artifacts --state names
    #[arg(long, overrides_with = "no_defer", help_heading = SELECTION)]
    pub defer: bool,
    #[arg(long, hide = true)]
    pub no_defer: bool,
    /// With --defer: read models that are not selected from there even if they are built here
    #[arg(long, overrides_with = "no_favor_state", help_heading = SELECTION)]
    pub favor_state: bool,
    #[arg(long, hide = true)]
    pub no_favor_state: bool,
    /// The artifacts for --defer, where --state names others
    #[arg(long, value_name = "DIR", help_heading = SELECTION)]
    pub defer_state: Option<PathBuf>,
}

/// Flags that choose nodes stand together in `--help`.
const SELECTION: &str = "Selection";

/// How tests come along with what they test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum IndirectSelection {
    #[default]
    Eager,
    Cautious,
    Buildable,
    Empty,
}

/// One or, for `all` and `default`, every resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceTypes(pub Vec<ResourceType>);

fn resource_types(text: &str) -> Result<ResourceTypes, String> {
    let all = ResourceType::ALL;
    // These are dbt's, and no project of ours has any.
    let absent = ["analysis", "metric", "semantic_model", "saved_query", "function"];
    match all.iter().find(|t| t.name() == text) {
        Some(one) => Ok(ResourceTypes(vec![*one])),
        None if matches!(text, "all" | "default") => Ok(ResourceTypes(all.to_vec())),
        None if absent.contains(&text) => Ok(ResourceTypes(Vec::new())),
        None => Err(format!("there are: {}, all", all.map(ResourceType::name).join(", "))),
    }
}

/// How `ls` prints a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListOutput {
    /// As `--select` names it; the default
    Table,
    /// One JSON object a line
    Json,
    Name,
    Path,
    Selector,
    /// name, table, materialization
    Csv,
}

/// An older state of the lake.
#[derive(Debug, Args, Default)]
#[group(multiple = false)]
pub(super) struct Past {
    /// As all tables were after this epoch: one instant of the whole lake (see _smelt.epochs)
    #[arg(long, value_name = "N")]
    pub epoch: Option<i64>,
    /// As all tables were at this time: RFC 3339, or `2026-01-05 14:00` in UTC
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub timestamp: Option<i64>,
    /// This version of the one table that is read
    #[arg(long, value_name = "N")]
    pub version: Option<i64>,
}

/// Flags of commands that write tables.
#[derive(Debug, Args, Default)]
pub(super) struct Writing {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub deferring: Deferring,
    /// Recompute views, and read streams again from the start where that can be had
    #[arg(short, long)]
    pub full_refresh: bool,
    /// Close every window when the input ends (`emit: on_close`)
    #[arg(long = "final")]
    pub last: bool,
    /// Become the writer although another smelt on this host is: it stops at its next commit
    #[arg(long)]
    pub take_over: bool,
    /// Forget the positions of a source (source.table) and read it from its configured start
    #[arg(long, value_name = "SOURCE", num_args = 1)]
    pub reset_source: Vec<String>,
    /// Make the batches of microbatch models from this time on: 2026-01-05 or 2026-01-05T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub event_time_start: Option<i64>,
    /// … to before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub event_time_end: Option<i64>,
    /// An epoch ends at the latest after so many rows (instead of the target's epoch.max_rows)
    #[arg(long, value_name = "ROWS")]
    pub epoch_rows: Option<usize>,
    /// An epoch ends at the latest after so many files (instead of the target's epoch.max_files)
    #[arg(long, value_name = "FILES")]
    pub epoch_files: Option<usize>,
}

/// What is to be known of sources.
#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// Print the `sources:` entry that reads a topic or files, made from samples
    Infer(Infer),
    /// How old the newest row of each source with `freshness:` is; exit code 1 if one is too old
    Freshness {
        #[command(flatten)]
        selection: Selection,
        /// Where the results go instead of target/sources.json
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Flags of commands that run tests.
#[derive(Debug, Args, Default)]
pub(super) struct Testing {
    /// Keep failing rows in tables (schema dbt_test__audit), unless a test says otherwise
    #[arg(long)]
    pub store_failures: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a small runnable project in a new folder
    Init {
        /// Folder to make; its name is the project's
        #[arg(default_value = ".")]
        path: PathBuf,
    },
    /// Show what this project, target and lake look like from here, and try their connections
    Debug {
        #[arg(long, value_enum, default_value_t = Report::Text)]
        output: Report,
    },
    /// Install the packages that packages.yml or dependencies.yml asks for
    Deps {
        /// Take the newest commits again, whatever package-lock.yml says
        #[arg(long)]
        upgrade: bool,
        /// Write package-lock.yml only
        #[arg(long)]
        lock: bool,
    },
    /// Call a macro for the SQL it runs (docs/hooks.md)
    RunOperation {
        /// The macro: name, or package.name
        #[arg(value_name = "MACRO")]
        name: String,
        /// Its arguments, as YAML or JSON: --args '{days: 3}'
        #[arg(long, value_name = "YAML")]
        args: Option<String>,
    },
    /// Check every model and write its SQL to target/compiled
    Compile {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        deferring: Deferring,
    },
    /// List models, snapshots, seeds, tests, sources and exposures
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        selection: Selection,
        #[arg(long, value_enum, default_value_t = ListOutput::Table)]
        output: ListOutput,
        /// Keys of `--output json`: name unique_id config …
        #[arg(long, num_args = 1.., value_name = "KEY")]
        output_keys: Vec<String>,
    },
    /// Show what a run would do: new, changed, schema evolved, orphaned
    Plan {
        #[command(flatten)]
        selection: Selection,
    },
    /// Show how a model is maintained: each node, incremental or not, and why
    Explain {
        /// Name of the model
        model: String,
    },
    /// Catch up with everything available now, commit, exit
    Run {
        #[command(flatten)]
        writing: Writing,
    },
    /// Run models, snapshots and their tests once, in order; what stands behind a test that fails is skipped
    Build {
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        testing: Testing,
        /// The instant this run is for, RFC 3339: a retry for the same instant repeats nothing [default: now]
        #[arg(long, value_name = "TIME", value_parser = instant)]
        planned: Option<i64>,
    },
    /// Take snapshots of what the tables they read hold now
    Snapshot {
        #[command(flatten)]
        writing: Writing,
        /// The instant this run is for, RFC 3339: a retry for the same instant repeats nothing [default: now]
        #[arg(long, value_name = "TIME", value_parser = instant)]
        planned: Option<i64>,
    },
    /// Load the CSV files of seeds/ into their tables
    Seed {
        #[command(flatten)]
        writing: Writing,
    },
    /// Run the last command again for what failed or was skipped; a running `up` tries its stopped models again
    Retry {
        /// Folder with the run_results.json to go by [default: target]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// List past runs of models and tests, newest first, of commands and of schedules in `up`
    Runs {
        /// Name or unique id of a model, snapshot, seed or test [default: all]
        name: Option<String>,
        /// Only those that failed or were skipped
        #[arg(long)]
        failed: bool,
        /// At most so many
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Keep every table up to date until stopped
    Up {
        #[command(flatten)]
        writing: Writing,
        /// Without the HTTP server (there is none in this version)
        #[arg(long)]
        no_http: bool,
    },
    /// Show the first rows of a model, or its columns
    #[command(disable_version_flag = true)]
    Show {
        /// Name of the model
        model: String,
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// Columns and types instead of rows
        #[arg(long)]
        columns: bool,
        #[command(flatten)]
        past: Past,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Run a query over the tables and views of the project
    #[command(disable_version_flag = true)]
    Query {
        /// SQL; tables are named as in models: silver_calls, or silver.silver_calls
        sql: String,
        #[command(flatten)]
        past: Past,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Look at sources
    Source {
        #[command(subcommand)]
        command: SourceCommand,
    },
    /// Run unit tests, then data tests
    Test {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        deferring: Deferring,
        #[command(flatten)]
        testing: Testing,
    },
    /// Documentation of the project: models, columns, tests and lineage as one page
    Docs {
        #[command(subcommand)]
        command: Docs,
    },
    /// Make the telecom sample's traffic: to files, or to a Kafka broker
    Generate(Generate),
    /// The sample project against an embedded broker and generator, in a temporary lake
    Demo {
        /// Stop by itself after so many seconds
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        /// Events per second
        #[arg(long, default_value_t = 2000)]
        rate: u64,
    },
    /// Merge small files and files with many deleted rows
    Optimize {
        #[command(flatten)]
        selection: Selection,
        /// Say what would be merged, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t = Report::Text)]
        output: Report,
    },
    /// Delete files that no retained version needs
    Vacuum {
        #[command(flatten)]
        selection: Selection,
        /// Say what would be deleted, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t = Report::Text)]
        output: Report,
    },
    /// Drop tables that no model makes any more
    Prune {
        /// Say what would be dropped, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[arg(long, value_enum, default_value_t = Report::Text)]
        output: Report,
    },
    /// Delete compiled SQL and artifacts, or the clean-targets of smelt.yml
    Clean {
        /// Say what would be deleted, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t = Report::Text)]
        output: Report,
    },
    /// Print the JSON Schema of a YAML file, for completion and checks in an editor
    Schema {
        /// `project`: smelt.yml; `properties`: models/*.yml
        #[arg(value_enum)]
        kind: SchemaKind,
    },
    /// Print a script that completes commands, flags and model names in a shell
    Completions {
        #[arg(value_enum, required_unless_present = "models")]
        shell: Option<clap_complete::Shell>,
        /// Print the names of models and snapshots instead: the scripts ask for them
        #[arg(long, hide = true)]
        models: bool,
    },
}

/// µs since 1970 of a time as people type it: RFC 3339, or without a zone, then in UTC.
fn moment(text: &str) -> Result<i64, String> {
    parse_instant(text).ok_or_else(|| "no time; write 2026-01-05T14:00:00Z or \"2026-01-05 14:00\"".to_string())
}

impl Command {
    /// Whether it takes a selection.
    pub fn chooses(&self) -> bool {
        matches!(
            self,
            Command::Compile { .. }
                | Command::Ls { .. }
                | Command::Plan { .. }
                | Command::Test { .. }
                | Command::Run { .. }
                | Command::Build { .. }
                | Command::Snapshot { .. }
                | Command::Seed { .. }
                | Command::Up { .. }
        )
    }

    /// What it chooses nodes by, where it does.
    pub fn selection_mut(&mut self) -> Option<&mut Selection> {
        match self {
            Command::Compile { selection, .. }
            | Command::Ls { selection, .. }
            | Command::Plan { selection, .. }
            | Command::Test { selection, .. }
            | Command::Optimize { selection, .. }
            | Command::Vacuum { selection, .. } => Some(selection),
            Command::Run { writing, .. }
            | Command::Build { writing, .. }
            | Command::Snapshot { writing, .. }
            | Command::Seed { writing, .. }
            | Command::Up { writing, .. } => Some(&mut writing.selection),
            _ => None,
        }
    }
}

/// `smelt docs …`
#[derive(Debug, Subcommand)]
pub(super) enum Docs {
    /// Write the page, manifest.json and catalog.json to target/
    Generate(DocsGenerate),
    /// Show the page in a browser
    Serve(DocsServe),
}

#[derive(Debug, Args)]
pub(super) struct DocsGenerate {
    /// Do not check the models' SQL: views have no columns in the catalog then
    #[arg(long)]
    pub no_compile: bool,
    /// Do not look at the lake
    #[arg(long)]
    pub empty_catalog: bool,
    /// One file with everything in it, which opens from the disk and can be sent to somebody
    #[arg(long = "static")]
    pub embed: bool,
}

#[derive(Debug, Args)]
pub(super) struct DocsServe {
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Do not open a browser
    #[arg(long)]
    pub no_browser: bool,
}

/// µs since 1970 of a time as people and schedulers write it.
fn instant(text: &str) -> Result<i64, String> {
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.timestamp_micros()),
        Err(error) => Err(format!("{error}; write 2026-01-05T02:00:00Z")),
    }
}
