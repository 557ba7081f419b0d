//! Tests of the planner. Golden scripts stand in `scripts/`; `SMELT_UPDATE_GOLDEN=1 cargo test plan::` rewrites them.

mod execute;
mod fingerprints;
mod golden;
pub(crate) mod project;
mod sample;
