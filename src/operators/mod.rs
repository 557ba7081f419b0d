//! Circuits: incremental plans at work.
//!
//! [`Circuit`] instantiates the tree of [`crate::plan::incremental::Node`]s with DataFusion's physical expressions and the state
//! each node needs. Once per epoch it takes the changes of the model's inputs and returns the change of its output;
//! it is synchronous and does no I/O. Linear nodes (`linear`) apply to the change itself; `aggregate`, `first` and `join` keep
//! state and emit exactly what changed. Whole batches flow: keys are encoded and rows gathered in bulk.
//!
//! Invariant: after every step, the sum of all outputs so far is the query over the sum of all inputs so far.

mod aggregate;
mod circuit;
mod expectations;
mod expr;
mod first;
mod join;
mod keyed;
mod linear;

pub use circuit::{Circuit, Mode, NodeMetrics};
pub use expectations::{Applied, Expectations, Failed};
pub use keyed::Keyed;
