//! What a node of a circuit did and holds.

use std::time::{Duration, Instant};

/// Figures of one node, for `explain` and the live view.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    /// `join`, `aggregate` ….
    pub name: &'static str,
    /// How deep below the root it stands; nodes are listed root first, inputs in order.
    pub depth: usize,
    /// Rows taken in, retractions included, since the circuit was made.
    pub rows_in: u64,
    /// Rows given out.
    pub rows_out: u64,
    /// Time spent in the node itself.
    pub elapsed: Duration,
    /// Rows, groups or values remembered.
    pub state_rows: usize,
    /// Bytes they take.
    pub state_bytes: usize,
}

/// The running part of [`NodeMetrics`].
#[derive(Debug, Default)]
pub(super) struct Running {
    pub rows_in: u64,
    pub rows_out: u64,
    pub elapsed: Duration,
}

impl Running {
    pub fn record(&mut self, rows_in: usize, rows_out: usize, since: Instant) {
        self.rows_in += rows_in as u64;
        self.rows_out += rows_out as u64;
        self.elapsed += since.elapsed();
    }
}
