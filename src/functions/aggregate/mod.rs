//! Aggregates whose value depends on the multiset of rows alone.
//!
//! Stock sums of doubles round after every addition, so they and what is made of them (averages, variances, correlations) depend on the
//! order of rows; so do stock `min` and `max` where NaN occurs, and the digests of the approximate percentiles. Stock sums of
//! integers and decimals wrap around. All would make a view's bulk recomputation differ from its incremental maintenance. Here
//! floats are added exactly and rounded once ([`ExactSum`](crate::state::ExactSum)), integers and decimals in 192 bits and checked when the
//! result is read: intermediate overflow does not exist, and a result that does not fit its type is an error.
//!
//! [`total`] holds the totals, [`moments`] those of second degree, [`bits`] those of bits, [`cells`] the accumulators over them, [`udaf`] the functions;
//! [`extremes`] has `min` and `max` of floats, [`ordered`] the aggregates that want their rows in order. Types that are none of these
//! (durations, intervals, decimals above 38 digits) go to the stock functions.

mod bits;
mod cells;
mod distinct;
mod extremes;
mod moments;
mod ordered;
mod total;
mod udaf;

use datafusion::logical_expr::AggregateUDF;

pub use bits::{Parity, bits_as, for_each_integer};
pub use extremes::smallest;
pub use moments::{Pairs, Spread};
pub use total::{Finish, IntegerTotal, Total};
pub use udaf::{Kind, is_exact, kind};

/// All of them.
pub fn functions() -> Vec<AggregateUDF> {
    udaf::functions().into_iter().chain(extremes::functions()).chain(ordered::functions()).collect()
}
