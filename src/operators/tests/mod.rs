//! Tests of the engine: the oracle first, then what it cannot say.

mod aggregates;
mod arranged;
mod benchmarks;
mod bulk;
pub mod cases;
pub mod changes;
mod circuits;
pub mod contents;
mod duckdb;
mod history;
mod enriched;
mod forgetting;
mod leaks;
pub mod oracle;
pub mod project;
pub mod queries;
mod rows;
mod saved;
mod sessions;
mod shared;
pub mod shrink;
mod spilled;
mod stock_sessions;
mod streams;
mod subqueries;
pub mod tables;
