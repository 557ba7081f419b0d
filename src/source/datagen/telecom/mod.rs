//! The telecom traffic of the sample project: calls, messages and the reference data they refer to (docs/telecom.md).
//!
//! ```text
//! options ─▶ population (users, sites, devices) ─▶ traffic: schedule + urns ─▶ event ─▶ record bytes
//!                      └─▶ reference files                    └─▶ recorder ─▶ manifest
//! ```
//!
//! Invariants:
//! - Seed and options decide every byte, whatever the speed, the slicing or the reader.
//! - Shares are quotas (largest remainder), never draws.
//! - What is mixed in (repeats, malformed records, impossible dates) never changes a base row: silver equals the base.
//! - The manifest is counted beside the records, by other code than the SQL it is compared with.

mod digest;
mod event;
mod expected;
mod files;
mod manifest;
mod names;
mod options;
mod population;
mod quota;
mod reference;
mod schedule;
mod traffic;

#[cfg(test)]
mod tests;

pub use digest::{SEPARATOR, TableDigest, md5_hex};
pub use event::{Malformed, Topic};
pub use files::{to_dir, write_reference};
pub use manifest::{Checksum, EMPTY_IN_FILES, Manifest, TableManifest, TopicManifest, UserDayTotals, UserTotals};
pub use options::{Options, parse_start};
pub use population::{CellSite, Population, User};
pub use reference::{ReferenceFile, files as reference_files};
pub use traffic::{GeneratedRecord, PARTITIONS, RecordKind, Telecom};
