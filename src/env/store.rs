//! Object stores: local paths written durably, and a faulty in-memory store for simulation.

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, local::LocalFileSystem};
use std::sync::Arc;

use super::Env;
use crate::error::{Error, Result};

/// What goes wrong in a [`FaultyStore`], and when.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {}

/// Requests a store has served, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    pub puts: u64,
    pub gets: u64,
    pub lists: u64,
    pub deletes: u64,
}

/// An in-memory store that counts requests and fails as told.
#[derive(Debug, Clone)]
pub struct FaultyStore(Arc<InMemory>);

impl FaultyStore {
    /// An empty store.
    pub fn new(_plan: FaultPlan) -> Self {
        FaultyStore(Arc::new(InMemory::new()))
    }
}

pub(super) enum Stores {
    Real,
    Simulated(FaultyStore),
}

impl Stores {
    pub(super) fn real() -> Self {
        Stores::Real
    }

    pub(super) fn simulated(store: FaultyStore) -> Self {
        Stores::Simulated(store)
    }

    pub(super) fn open(&self, url: &str, _env: &Env) -> Result<(Arc<dyn ObjectStore>, Path)> {
        match self {
            Stores::Simulated(store) => {
                let path = url.strip_prefix("memory://").unwrap_or(url);
                Ok((Arc::clone(&store.0) as Arc<dyn ObjectStore>, Path::from(path)))
            }
            Stores::Real => {
                let path = Path::from_absolute_path(url.strip_prefix("file://").unwrap_or(url))
                    .map_err(|e| Error::user("bad-path", e.to_string()))?;
                Ok((Arc::new(LocalFileSystem::new()), path))
            }
        }
    }
}
