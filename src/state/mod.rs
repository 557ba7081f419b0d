//! What stateful operators remember between epochs.
//!
//! A change passes through here as whole batches: columns become row bytes ([`RowCodec`], hashed once), bytes become dense
//! ids ([`GroupIndex`] for keys, [`Relation`] for rows, which several operators may hold together: [`RowPools`], [`SharedLogs`]), and everything an operator keeps per key or row is a plain vector ([`Paged`])
//! indexed by such an id ([`Links`] chains the rows of one key). Rows go out again by id, columns at a time.
//!
//! A snapshot of all this is a list of [`Section`]s in one object ([`stored`]), a cache that may vanish at any time.
//!
//! Invariants: ids are stable until freed, and freed ones are reused; floats are normalised on the way in, so equal rows have
//! equal bytes; a retraction of something that is not there is [`crate::error::ErrorKind::Diverged`], never ignored; state whose
//! input was wholly retracted is empty again.

mod arena;
mod canonical;
mod codec;
mod exact_sum;
mod groups;
mod index;
mod links;
mod log;
mod memory;
mod multiset;
mod narrow;
mod packed;
mod page;
mod paged;
mod parallel;
mod ranked;
mod relation;
mod rows;
mod sections;
mod shared_keys;
mod stored;
#[cfg(test)]
mod tests;
mod totals;

pub use canonical::canonical;
pub use codec::{Encoded, RowCodec};
pub use exact_sum::ExactSum;
pub use groups::{AHEAD, GroupIndex};
pub use links::{Linked, Links};
pub use log::{LogKeyed, LogKeying, LogKeys, RowLog, SharedLog, SharedLogs};
pub use memory::{Spillable, StateMemory, is_over};
pub use multiset::{Multiset, Presence};
pub use narrow::Narrow;
pub use paged::Paged;
pub use parallel::{dealt_out, in_threads};
pub use ranked::Rank;
pub use relation::Relation;
pub use rows::{Applied, Keyed, Keying, PoolName, PooledKeys, PooledRows, RowPools, RowStore};
pub use sections::{Section, StateReader, StateWriter, Strings, in_pieces};
pub use shared_keys::Bits;
pub use stored::{Directory, FORMAT, Header, InputPosition, Packed, Packing, Part, decode, encode};
pub use totals::Totals;

/// No id: a key with a NULL that matches nothing, or the NULL row of an outer join.
pub const NONE: u32 = u32::MAX;
