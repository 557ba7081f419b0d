//! smelt turns a folder of SQL files into continuously maintained Delta tables.
//!
//! Data enters at the top of this list and leaves at the bottom; a module imports only modules above it
//! (`tests/it/architecture.rs` fails when one does not). ARCHITECTURE.md narrates the life of a record.

pub mod error;
pub mod types;
pub mod env;
// These three know nothing of each other.
pub mod decode;
pub mod kafka;
pub mod state;
// Nor do these two.
pub mod lake;
pub mod project;
// Nor these.
pub mod functions;
pub mod source;
pub mod plan;
pub mod operators;
pub mod runtime;
pub mod cli;
