//! `sum` and `avg` whose value depends on the multiset of rows alone.
//!
//! Stock sums of doubles round after every addition, so they depend on the order of rows; stock sums of integers and decimals
//! wrap around. Both would make a view's bulk recomputation differ from its incremental maintenance. Here floats are added
//! exactly and rounded once ([`ExactSum`](crate::state::ExactSum)), integers and decimals in 192 bits and checked when the result is
//! read: intermediate overflow does not exist, and a result that does not fit its type is an error.
//!
//! [`total`] holds the two kinds of totals, [`cells`] the accumulators over them, [`udaf`] the functions. Types that are neither
//! (durations, intervals, decimals above 38 digits) go to the stock functions.

mod cells;
mod distinct;
mod total;
mod udaf;

pub use udaf::functions;
