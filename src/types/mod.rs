//! The vocabulary every module shares: signed batches, positions, raw records, and the three traits that let
//! modules meet without importing each other ([`Source`], [`Ledger`], [`Catalog`]).

mod batch;
mod instant;
mod payloads;
mod position;
mod record;
mod reject;
mod selected;
mod sql_type;
mod traits;

pub use batch::{SignedBatch, Weight};
pub use instant::parse_instant;
pub use payloads::{Payload, Payloads, PayloadsBuilder};
pub use position::{Positions, SourcePartition};
pub use record::{DecodedChunk, RawChunk, RecordError};
pub use reject::{RejectKind, reject_schema};
pub use selected::SelectedBatch;
pub use sql_type::{parse_sql_type, sql_type_name};
pub use traits::{Catalog, ChangeKind, FileEntry, Ledger, Poll, PollLimit, Source, SourceBatch, StandIn};
