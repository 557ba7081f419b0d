//! The incremental engine: a tree of operators with state, stepped once per epoch.
//!
//! 1. [`Circuit::new`] instantiates a [`crate::plan::incremental::Node`] tree: expressions become DataFusion's physical ones.
//! 2. [`Circuit::step`] takes the change of every input relation and returns the change of the query's result. It is
//!    synchronous and works on whole batches: keys are hashed once, state is probed in bulk, rows are gathered by column.
//! 3. [`Expectations`] splits that change into kept and quarantined rows; [`Keyed`] turns upserts and deletes by key into signed rows.
//!
//! Invariants: the sum of all steps' outputs is the query's result on the sum of all inputs, whatever the split into epochs;
//! what is retracted is bit for bit what was emitted; state is a function of the accumulated input and empty when that is.
//! After an error the circuit is no longer usable: the model is recomputed and compared with its table.

mod aggregate;
mod circuit;
mod consolidate;
mod eval;
mod expectations;
mod first;
mod followed;
mod forgets;
mod gate;
mod history;
mod join;
mod keyed;
mod linear;
mod make;
mod merge;
mod metrics;
mod pattern;
mod session;
mod sharded;
mod spill;
mod temporal;
mod top_k;
mod unnest;
mod window;
#[cfg(test)]
pub(crate) mod tests;

pub use circuit::{Circuit, Mode};
pub use consolidate::consolidate;
pub use expectations::{Applied, Expectations, Violation, rejected};
pub use followed::Followed;
pub use forgets::Needed;
pub use gate::{Known, texts, without_nulls};
pub use history::History;
pub use keyed::{Keyed, Latest};
pub use merge::{Merge, numbered, replace};
pub use metrics::NodeMetrics;
