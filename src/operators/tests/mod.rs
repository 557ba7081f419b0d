//! Tests of the engine: the oracle first, then what it cannot say.

mod aggregates;
mod benchmarks;
mod bulk;
mod cases;
pub mod changes;
mod circuits;
pub mod contents;
mod history;
pub mod oracle;
pub mod project;
pub mod queries;
mod rows;
mod saved;
pub mod shrink;
mod subqueries;
pub mod tables;
