//! JSON → Arrow: one pass over each record's bytes straight into column builders.
//!
//! A record goes: valid UTF-8? (checked once for the whole chunk) → [`object`] reads keys ([`keys`] guesses the next one right
//! nearly always) → [`value`] reads each value by its column's type → [`column`] grows. [`scan`] knows the grammar, [`number`],
//! [`time`] and [`base64`] the values in text. There is no tree and no tape in between.
//!
//! Invariants:
//! - A record is good or bad as a whole. A bad one leaves no trace: the builders are truncated to the rows before it.
//! - A record is bad exactly when it is no RFC 8259 text with an object at its root and at most 128 levels, or when a
//!   field's last value does not fit its column (then, with `rescued`, the field is NULL and the record good).
//! - Unknown fields are skipped, but their grammar counts. Of duplicate keys the last counts; a key that matches a
//!   column's name exactly beats those that match only ignoring case.

pub(crate) mod base64;
pub(crate) mod column;
mod decoder;
pub(crate) mod fault;
pub(crate) mod keys;
pub(crate) mod number;
pub(crate) mod object;
pub(crate) mod scan;
pub(crate) mod time;
mod value;

#[cfg(test)]
mod tests;

pub use decoder::{FromJson, JsonDecoder, decode_texts};
pub(crate) use decoder::{Records, TOMBSTONE, not_an_object, payload};
