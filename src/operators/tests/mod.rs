//! Tests of the engine: the oracle first, then what it cannot say.

mod bulk;
mod circuits;
mod oracle;
mod queries;
mod rows;
mod tables;
