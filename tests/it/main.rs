//! The integration tests, all in one binary so that the big dependencies are linked once. They run the real `smelt`.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod architecture;
mod artifacts;
mod bad_input;
mod broker;
mod broker_down;
mod crash;
mod data_tests;
mod dialects;
mod docs;
mod engines;
mod files;
mod freshness;
mod full_disk;
mod generate;
mod incremental;
mod init;
mod jinja;
mod kafka;
mod python;
mod readme;
mod retry;
mod s3;
mod sample;
mod sample_plan;
mod sample_sql;
mod schedules;
mod secrets;
mod selection;
mod snowflake;
mod state;
mod support;
mod unit_tests;
mod upkeep;
