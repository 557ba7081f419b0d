//! Tests of the engine: the oracle first, then what it cannot say.

mod oracle;
mod queries;
mod tables;
