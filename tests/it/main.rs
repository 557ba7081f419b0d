//! One binary for all integration tests: linking DataFusion once is enough.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod architecture;
mod python;
mod sample_sql;
