//! All integration tests in one binary: linking DataFusion once is enough. They run the real `smelt` binary.

mod bad_input;
mod crash;
mod files;
mod support;
