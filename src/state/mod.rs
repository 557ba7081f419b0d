//! What operators and aggregates remember between epochs: exact sums, arrangements, indexes.

mod exact_sum;

pub use exact_sum::ExactSum;
