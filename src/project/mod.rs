//! From a folder of files to a checked graph of models.
//!
//! `smelt.yml`, `dbt_project.yml` and properties files are YAML ([`yaml`], [`reader`]) and say what there is and how it is configured
//! ([`settings`], [`profile`], [`packages`], [`targets`], [`config`], [`properties`], [`sources`], [`connectors`], [`snapshot`], [`incremental`], [`seed`], [`schedule`]); queries are SQL with Jinja ([`jinja`]). [`load()`]
//! brings them together: configuration is inherited, tables are named ([`naming`]), names are resolved ([`graph`]; where another run's table stands in: [`defer`]), data tests are made ([`data_tests`]), and
//! what comes out ([`model`]) holds no YAML and no Jinja any more.
//!
//! Invariants: models stand in topological order, always the same one for the same files; every value a person wrote wrongly
//! is reported at its file, line and column, all of them at once; a position in compiled SQL leads back to the file
//! ([`SourceMap`]); secret values reach neither messages nor artifacts, as long as both pass through `Env::redact`.

pub mod answers;
pub mod artifacts;
mod assemble;
mod call_sites;
mod collect;
mod config;
mod connectors;
mod contract;
mod data_tests;
mod dbt_version;
mod defer;
mod facts;
mod flags;
mod docs_blocks;
mod exposures;
mod freshness;
mod graph;
mod incremental;
mod inventory;
mod jinja;
mod load;
mod macros;
mod model;
mod names;
mod naming;
mod operations;
mod packages;
mod plain;
mod problems;
mod profile;
mod properties;
mod reader;
mod schedule;
mod seed;
mod select;
mod settings;
mod snapshot;
mod source_map;
mod sources;
mod stages;
mod targets;
mod test_names;
mod texts;
mod unit_tests;
mod watermark;
mod yaml;

pub use answers::{Answer, Answers, Asks, Cell};
pub use artifacts::{test_path, write_compiled, write_compiled_tests, write_compiled_unit_tests};
pub use assemble::{LoadOptions, load, load_sound_part, sorted};
pub use data_tests::{StoreFailures, TestConfig};
pub use defer::{Deferred, Elsewhere};
pub use flags::{ProjectFlags, Warnings};
pub use freshness::{Age, AgeUnit, FreshnessCheck};
pub use incremental::{BatchSize, IncrementalConfig, IncrementalStrategy, MergeColumns, Microbatch, OnSchemaChange};
pub use inventory::*;
pub use model::*;
pub use operations::{Circumstances, Hook, HookPoint, Operations, Said};
pub use packages::{PackageOrigin, PackagePlan, PackageSpec, lock_text, package_plan, package_project};
pub use schedule::{Schedule, When};
pub use seed::SeedFile;
pub use select::{Graph, Indirect, Node, Request, ResourceType, Selected, Selector, TestKind, artifact, select};
pub use select::{LakeState, State, compares_with_lake};
pub use settings::clean_targets;
pub use snapshot::{HardDeletes, SnapshotColumns, SnapshotConfig, SnapshotStrategy};
pub use source_map::{Piece, SourceMap};
pub use stages::Stages;
pub use unit_tests::{
    UnitCell, UnitInput, UnitOp, UnitRelation, UnitRow, UnitRows, UnitStep, UnitTest, unit_test_path,
};

/// Records a SQL type that cannot be read.
fn check_type(sql_type: &str, node: &yaml::Node, p: &mut problems::Problems) {
    if let Err(e) = crate::types::parse_sql_type(sql_type) {
        p.error(e.code(), node.span(), e.message(), e.hint().unwrap_or(""));
    }
}

#[cfg(test)]
mod tests;
