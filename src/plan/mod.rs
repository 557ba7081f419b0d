//! plan
pub mod incremental;
