//! Types from samples: which columns, in which types, read the records that were seen.
//!
//! A record becomes a [`Tree`], trees and CSV cells are added to a [`Shape`], and [`columns`] chooses the narrowest type of each field
//! that the decoder reads all its values into. The rules are the decoder's own (see `json::value`): text for STRING, no number
//! for STRING, and so on. Where no type fits all values, the column is STRING and the caller asks for rescued data, so that what was seen
//! never becomes a dead letter.

mod numbers;
mod shape;
mod text;
mod tree;

#[cfg(test)]
mod tests;

pub use shape::{Guess, Shape, columns};
pub use tree::Tree;
