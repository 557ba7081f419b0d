//! State against the target's `memory_limit`: bulk plans and what operators and tables remember share one pool.
//!
//! State that can go to disk takes what is free. State that cannot comes before it: where the pool is full of such as can, it gets its memory
//! at once, and the others put theirs away the next time they can ([`StateMemory::fit`], [`Circuit::relieve`](crate::operators::Circuit::relieve)).

use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Bytes of a session's memory that are held for state which can go to disk.
#[derive(Default)]
pub struct Spillable(AtomicUsize);

/// The memory of one operator's state, or of one table's locators. It is given back when this is dropped.
pub struct StateMemory {
    model: String,
    holder: &'static str,
    pool: Arc<dyn MemoryPool>,
    reservation: MemoryReservation,
    spillable: Arc<Spillable>,
    /// How much of `spillable` this is.
    can_go: usize,
}

impl StateMemory {
    /// Nothing yet, of `holder` in `model`.
    pub fn new(model: &str, holder: &'static str, session: &SessionState) -> Self {
        let pool = Arc::clone(&session.runtime_env().memory_pool);
        let reservation = MemoryConsumer::new(format!("{holder} of {model}")).register(&pool);
        let spillable = session.config().get_extension::<Spillable>().unwrap_or_default();
        StateMemory { model: model.to_string(), holder, pool, reservation, spillable, can_go: 0 }
    }

    /// The state takes `bytes` now, and stays in memory. An error when the pool has no room for them beside what cannot go to disk; what was
    /// reserved before stays so.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        let full = match self.reserve(bytes) {
            Ok(()) => return Ok(()),
            Err(full) => full,
        };
        let others = self.pool.reserved().saturating_sub(self.spillable.0.load(Ordering::Relaxed));
        let more = bytes.saturating_sub(self.reservation.size());
        match self.pool.memory_limit() {
            MemoryLimit::Finite(limit) if others.saturating_add(more) <= limit => {
                self.reservation.resize(bytes);
                Ok(())
            }
            _ => Err(full),
        }
    }

    /// The state takes `bytes` now, and can go to disk. An error when there is no room for them, or when others hold more than there is.
    pub fn fit(&mut self, bytes: usize) -> Result<()> {
        let reserved = self.reserve(bytes);
        let held = self.reservation.size();
        self.spillable.0.fetch_add(held, Ordering::Relaxed);
        self.spillable.0.fetch_sub(std::mem::replace(&mut self.can_go, held), Ordering::Relaxed);
        match self.is_over() {
            true => reserved.and_then(|()| Err(self.full(bytes, "more is held than there is"))),
            false => reserved,
        }
    }

    /// Whether the pool has lent more than it has.
    pub fn is_over(&self) -> bool {
        is_over(&*self.pool)
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes == self.reservation.size() {
            return Ok(());
        }
        let resized = self.reservation.try_resize(bytes);
        resized.map_err(|cause| self.full(bytes, first_line(&cause.to_string())))
    }

    fn full(&self, bytes: usize, cause: &str) -> Error {
        let StateMemory { model, holder, reservation, .. } = self;
        let (held, wanted) = (reservation.size() >> 10, bytes >> 10);
        let message = format!(
            "the state of {model} does not fit into memory_limit: its {holder} holds {held} KiB and needs {wanted} KiB"
        );
        Error::environment("memory-limit", message)
            .permanent()
            .with_hint(format!("raise the target's memory_limit, or filter what {model} keeps; {cause}"))
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        self.spillable.0.fetch_sub(self.can_go, Ordering::Relaxed);
    }
}

/// Whether `pool` has lent more than it has.
pub fn is_over(pool: &dyn MemoryPool) -> bool {
    matches!(pool.memory_limit(), MemoryLimit::Finite(limit) if pool.reserved() > limit)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
