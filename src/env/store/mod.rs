//! Object stores by URL: local paths written durably, and an in-memory store that can be made to fail.
//!
//! `file:///path` and absolute paths are served by [`DurableStore`]; `memory://…` by the one [`FaultyStore`] of the
//! environment. Any other scheme is a user error that names what this build lacks.
//!
//! Invariant: a put that returned `Ok` survives a power failure (unless fsync is off), and never lists anything.

mod durable;
mod faulty;
mod leftovers;

use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::Arc;

pub use durable::DurableStore;
pub use faulty::{Fault, FaultPlan, FaultyStore, RequestCounts};

use crate::error::{Error, Result};

pub(super) struct Stores {
    memory: FaultyStore,
}

impl Stores {
    pub(super) fn real() -> Self {
        Stores { memory: FaultyStore::new(FaultPlan::default()) }
    }

    pub(super) fn simulated(store: FaultyStore) -> Self {
        Stores { memory: store }
    }

    /// Removes the temporary files of processes that died while they wrote below the local path or URL `url`; other stores
    /// have none. Returns how many.
    pub(super) fn remove_leftovers(&self, url: &str, now_micros: i64) -> std::io::Result<u64> {
        match url.strip_prefix("file://").unwrap_or(url) {
            path if path.starts_with('/') => leftovers::remove(std::path::Path::new(path), now_micros),
            _ => Ok(0),
        }
    }

    pub(super) fn open(&self, url: &str, fsync: bool) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return local(url, url, fsync);
        };
        match scheme {
            "file" => local(url, rest, fsync),
            "memory" => Ok((Arc::new(self.memory.clone()), parse(url, rest.trim_matches('/'))?)),
            "s3" | "s3a" | "gs" | "gcs" | "az" | "azure" | "abfs" | "abfss" | "adl" | "http" | "https" | "hdfs" => {
                Err(Error::user(
                    "unsupported-store",
                    format!("`{url}` needs the object store `{scheme}`, which this build of smelt does not contain"),
                )
                .with_hint("use a local path or file:// URL, or a build with that store's feature enabled"))
            }
            _ => Err(Error::user("unsupported-store", format!("`{url}`: no object store is called `{scheme}`"))
                .with_hint("use a local path or a file:// URL")),
        }
    }
}

fn local(url: &str, path: &str, fsync: bool) -> Result<(Arc<dyn ObjectStore>, Path)> {
    if !path.starts_with('/') {
        return Err(Error::user("bad-path", format!("`{url}` is not an absolute path"))
            .with_hint("a file:// URL has three slashes: file:///var/lake"));
    }
    let path = Path::from_absolute_path(path).map_err(|e| Error::user("bad-path", format!("`{url}`: {e}")))?;
    Ok((Arc::new(DurableStore::new(fsync)), path))
}

fn parse(url: &str, path: &str) -> Result<Path> {
    Path::parse(path).map_err(|e| Error::user("bad-path", format!("`{url}`: {e}")))
}

#[cfg(test)]
mod tests;
