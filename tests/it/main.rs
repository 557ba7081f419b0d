//! One binary for all integration tests: linking DataFusion once is enough.
#![allow(clippy::disallowed_methods)]

mod architecture;
mod python;
mod sample_sql;
