//! What stateful operators remember between epochs.

mod exact_sum;

pub use exact_sum::ExactSum;
