//! smelt turns a folder of SQL files into continuously maintained Delta tables.
//!
//! Data enters at the top of this list and leaves at the bottom; a module imports only modules above it
//! (`tests/it/architecture.rs` fails when one does not). ARCHITECTURE.md narrates the life of a record.

pub mod env;
pub mod error;
pub mod types;
// These three know nothing of each other.
pub mod decode;
pub mod kafka;
pub mod state;
// Nor do these two.
pub mod lake;
pub mod project;
// Nor these.
pub mod cli;
pub mod functions;
pub mod operators;
pub mod plan;
pub mod runtime;
pub mod source;
