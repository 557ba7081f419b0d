//! What stateful operators keep: keys as comparable bytes, stored rows, exact sums.
//!
//! Rows enter as Arrow batches and are encoded in bulk ([`RowCodec`], arrow-row's order-preserving bytes); operators then
//! look up and compare bytes. Floats are normalised first (−0.0 is 0.0, one NaN), so equal values have equal bytes.
//! Nothing here knows what a join or an aggregate is.

mod consolidate;
mod exact_sum;
mod row_codec;
mod row_store;

pub use consolidate::consolidate;
pub use exact_sum::ExactSum;
pub use row_codec::{RowCodec, normalise_floats};
pub use row_store::{RowId, RowStore};
