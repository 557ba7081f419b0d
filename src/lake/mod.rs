//! The lake: the only module that knows how Delta tables are made of files and log entries.
//!
//! How a change reaches disk, and comes back:
//!
//! 1. [`Lake::table`] replays a table's log once ([`log`], [`checkpoint`]) into a [`state::State`]: version, live files with their
//!    deletion vectors, tombstones, positions (`txn` actions).
//! 2. [`Table::stage`] brings signed rows to the table's exact types ([`schema`]), nets them ([`net`]), finds retracted
//!    rows by their hash ([`hash`], [`locator`]), writes inserted ones ([`writer`], [`encode`], [`stats`]) and keeps all of it as a delta over
//!    the state ([`pending`]). [`Table::snapshot`] shows it to queries ([`snapshot`], [`scan`]); [`Table::discard`] takes it back.
//! 3. [`Table::commit`] packs deletion vectors ([`vector`]), writes one log entry at exactly the next version ([`commit`]) and,
//!    when it has landed, turns the delta into state.
//! 4. [`Table::diff`] compares with a wanted content, [`Table::changes`] reads the log backwards into signed rows.
//! 5. Between commits: [`maintain`] and [`compact`], which joins large files as they are ([`splice`]).
//!
//! Beside the models' tables a lake has its [`instances`], its [`epochs`], the [`ledger`] of each files source and snapshots of
//! state ([`states`]).
//!
//! Invariants: a commit costs one put of the log, whatever the table's size, and no listing or read unless a put failed. A
//! staged change that is not committed leaves no trace but unreferenced files. Rows never change when files are rewritten.

mod actions;
mod adopt;
mod catalog;
mod changes;
mod checkpoint;
mod commit;
mod compact;
mod diff;
mod docs;
mod encode;
mod epochs;
mod files;
mod follow;
mod hash;
mod history;
mod instances;
mod ledger;
mod locator;
mod log;
mod maintain;
mod net;
mod options;
mod partition;
mod pending;
mod protocol;
mod reader;
mod runs;
mod scan;
mod schema;
mod snapshot;
mod splice;
mod stage;
mod state;
mod states;
mod stats;
mod store;
mod table;
mod vector;
mod writer;

pub use adopt::Staged;
pub use catalog::{Lake, OWN, TableSpec};
pub use commit::CommitRequest;
pub use docs::TableDocs;
pub use epochs::{EpochRow, Epochs};
pub use follow::FollowedTable;
pub use history::When;
pub use instances::InstanceInfo;
pub use maintain::{Optimized, Vacuumed};
pub use options::{Codec, LakeOptions};
pub use runs::RunRow;
pub use snapshot::TableSnapshot;
pub use stage::StageSummary;
pub use states::{LOCATOR, Offered, StoredState};
pub use table::{INSTANCE, Table};

#[cfg(test)]
mod tests;
