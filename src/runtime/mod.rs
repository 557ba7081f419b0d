//! The only wiring: sources → circuits → tables, and the only place that knows the exactly-once order.
//!
//! A run in six steps:
//! 1. [`instance`] takes the next instance number, so that an older smelt on the same lake stops at its next put.
//! 2. [`pipeline`] opens every table from the lake with its positions, and compares them with its upstreams' versions.
//! 3. The recovery epoch brings all tables to one cut: views that are behind are recomputed and compared with their table,
//!    streaming tables catch up from the log. No new input is read before that.
//! 4. [`feed`] polls each source beside the loop; [`driver`] gathers an epoch's input; [`compute`] turns it into changes
//!    model by model; [`epoch`] uploads beside that and commits in topological order.
//! 5. [`states`] stores circuits' state beside the epochs, [`warm`] takes it back at the next start when it can show that it may.
//! 6. A model that fails is parked with its descendants; anything worse restarts the pipeline from the lake.
//!
//! Invariants: nothing flows downstream outside an epoch; a table's `txn`s name upstream versions that exist; the state
//! of a circuit is a cache of its inputs at the last epoch, dropped whenever in doubt.

mod admin;
mod answers;
mod backfill;
mod bulk;
mod catalog;
mod cell;
mod commit;
mod compute;
mod data_tests;
mod driver;
mod epoch;
mod feed;
mod foreign;
mod forget;
mod freshness;
mod held;
mod information_schema;
mod inputs;
mod instance;
mod jobs;
mod json;
mod measure;
mod on_close;
mod operator;
mod overtaken;
mod pipeline;
mod positions;
mod query;
mod record;
mod report;
mod rerun;
mod replay;
mod requests;
mod retention;
mod runs;
mod snapshot;
mod stages;
mod starts;
mod statement;
mod states;
mod stream;
mod unit_tests;
mod upkeep;
#[cfg(test)]
mod tests;
mod warm;
mod watermark;

pub use admin::{
    ChangeState, LakeCatalog, PlannedChange, built_tables, explain, lake_catalog, last_runs, orphans, plan_changes,
    probe_lake, probe_source,
};
pub use answers::{Fresh, LakeAnswers};
pub use catalog::catalog_tables;
pub use compute::How;
pub use data_tests::{TestOptions, TestResult, TestStatus};
pub use driver::{Options, Runner, Summary};
pub use feed::FeedStatus;
pub use freshness::{Freshness, freshness};
pub use held::{NoHooks, RunHooks};
pub use jobs::Runs;
pub use json::{json_lines, write_json_lines};
pub use measure::keep_measured;
pub use operator::Operator;
pub use pipeline::clock;
pub use query::{At, Reader};
pub use record::Recorder;
pub use report::{EpochReport, Event, ModelReport, Watcher};
pub use requests::{RetryRequests, ask_to_retry};
pub use runs::{RunLog, past_runs, record_runs};
pub use stages::{Gate, SKIPPED, Verdict};
pub use unit_tests::unit_test;
pub use upkeep::{Listener, Upkeep, drop_tables, optimize, table_sizes, vacuum};

use crate::project::Model;

/// `schema.alias` of a model.
pub(crate) fn full_name(model: &Model) -> String {
    format!("{}.{}", model.schema, model.alias)
}
