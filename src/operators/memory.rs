//! State against the target's `memory_limit`: bulk plans and what operators and tables remember share one pool.

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use std::sync::Arc;

use crate::error::{Error, Result};

/// The memory of one operator's state, or of one table's locators. It is given back when this is dropped.
pub struct StateMemory {
    model: String,
    holder: &'static str,
    reservation: MemoryReservation,
}

impl StateMemory {
    /// Nothing yet, of `holder` in `model`.
    pub fn new(model: &str, holder: &'static str, pool: &Arc<dyn MemoryPool>) -> Self {
        let consumer = MemoryConsumer::new(format!("{holder} of {model}"));
        StateMemory { model: model.to_string(), holder, reservation: consumer.register(pool) }
    }

    /// The state takes `bytes` now. An error when the pool has no room for them; what was reserved before stays so.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        if bytes == self.reservation.size() {
            return Ok(());
        }
        self.reservation.try_resize(bytes).map_err(|cause| {
            let StateMemory { model, holder, reservation } = self;
            let (held, wanted) = (reservation.size() >> 10, bytes >> 10);
            let message = format!("the state of {model} does not fit into memory_limit: its {holder} holds {held} KiB and needs {wanted} KiB");
            Error::environment("memory-limit", message)
                .permanent()
                .with_hint(format!("raise the target's memory_limit, or filter what {model} keeps; {}", first_line(&cause.to_string())))
        })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
