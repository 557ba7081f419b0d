//! SQL → plans. Pure: schemas come in as values, plans go out; nothing is read or written.
//!
//! A model passes through here once, at compile time:
//!
//! 1. [`parse`]: text → tokens → AST; STREAM marks are taken out and remembered; [`time_windows`] and [`spelling`] replace calls by what they mean.
//! 2. [`resolve`]: AST → DataFusion's logical plan, names matching ignoring case; views stand in place of their names; [`using`]: one column of what outer joins name in USING.
//! 3. [`lateral`], [`hoisted_subqueries`], [`correlated`], [`set_operations`], analysis (types), then [`determinism`] and [`single_row`]: the plan whose result is a function of its inputs alone.
//!    This rewritten plan is what the engine, the bulk path and the oracle mean.
//! 4. DataFusion's optimizer, minus a few rules ([`session`]): the *bulk* plan.
//! 5. [`lower`]: the bulk plan as a tree of [`incremental::Node`]s, or the reason why it is recomputed as a whole; [`share`]: what stands in
//!    it several times, once; when all models are compiled, [`arrangements`]: rows that joins of several of them keep, once.
//!    [`forgetting`]: which groups of it need not stay in memory.
//! 6. [`check`]: what a materialization demands (one streamed input, replayable inputs, in a view no clock but in [`temporal`] conditions).
//!
//! Invariants: the bulk plan and the tree give the same multiset, in the stored types of [`stored`]; slots of both are
//! [`CompiledModel::inputs`]; a model's errors point into its file ([`diagnose`], [`fault`]); nothing here depends on what
//! was compiled before.

mod advice;
mod alone;
mod any_all;
mod arrangements;
mod bind;
mod check;
mod clock;
mod compile;
mod contract;
mod correlated;
mod deferred;
mod dependent;
mod determinism;
mod diagnose;
mod distinct_on;
mod explain;
mod explode;
mod fault;
mod fields;
mod fingerprint;
mod forgetting;
mod grouping_sets;
mod hoisted_subqueries;
pub mod incremental;
mod interval_join;
mod lateness;
mod lateral;
mod join_order;
mod json_access;
mod keys;
mod lower;
mod map_values;
mod named_arguments;
mod namesakes;
mod on_close;
mod order_key;
mod output;
mod parse;
mod partners;
mod precedence;
pub(crate) mod reach;
mod relation;
mod rerun;
mod resolve;
mod rolled_up;
mod routes;
mod seed;
mod session;
mod session_ends;
mod set_operations;
mod shape;
mod share;
mod single_row;
mod snapshot;
mod sorts;
mod sources;
mod spelling;
mod spelling_spark;
pub mod stored;
mod subqueries;
mod temporal;
mod time_windows;
mod unnest_names;
mod using;
mod watermark;
mod window_keys;
#[cfg(test)]
pub(crate) mod tests;

pub use alone::{Leaf, compile_alone, source_columns};
pub use clock::{Clock, stopped};
pub use compile::{Compilation, CompiledExpectation, CompiledModel, compile};
pub use deferred::DeferredModel;
pub use explain::{Measured, NodeFigures};
pub use lower::Fallback;
pub use relation::{Input, Relation};
pub use rerun::{CompiledRerun, Matching, ROW, RerunChange};
pub use session::{Planner, PlannerOptions};
pub use shape::shape;
pub use snapshot::CompiledSnapshot;
