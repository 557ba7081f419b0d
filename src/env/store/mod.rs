//! Object stores by URL: local paths written durably, and an in-memory store that can be made to fail.
//!
//! `file:///path` and absolute paths are served by [`DurableStore`]; `memory://…` by the one [`FaultyStore`] of the
//! environment; S3, Google and Azure by `object_store` ([`cloud`]), one client per bucket.
//!
//! Invariant: a put that returned `Ok` survives a power failure (unless fsync is off), and never lists anything.

mod cloud;
mod durable;
mod faulty;
mod leftovers;

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use durable::DurableStore;
pub use faulty::{Fault, FaultPlan, FaultyStore, RequestCounts};

use super::vars::Vars;
use crate::error::{Error, Result};
use cloud::Cloud;

pub(super) struct Stores {
    memory: FaultyStore,
    /// By `scheme://authority`: connections and credentials are shared by all that read and write one bucket.
    clouds: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    pub(super) fn real() -> Self {
        Self::simulated(FaultyStore::new(FaultPlan::default()))
    }

    pub(super) fn simulated(store: FaultyStore) -> Self {
        Stores { memory: store, clouds: Mutex::default() }
    }

    /// Removes the temporary files of processes that died while they wrote below the local path or URL `url`; other stores
    /// have none. Returns how many.
    pub(super) fn remove_leftovers(&self, url: &str, now_micros: i64) -> std::io::Result<u64> {
        match url.strip_prefix("file://").unwrap_or(url) {
            path if path.starts_with('/') => leftovers::remove(std::path::Path::new(path), now_micros),
            _ => Ok(0),
        }
    }

    /// How many [`Stores::remove_leftovers`] would remove.
    pub(super) fn leftovers(&self, url: &str, now_micros: i64) -> std::io::Result<u64> {
        match url.strip_prefix("file://").unwrap_or(url) {
            path if path.starts_with('/') => leftovers::count(std::path::Path::new(path), now_micros),
            _ => Ok(0),
        }
    }

    pub(super) fn open(&self, url: &str, fsync: bool, vars: &Vars) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return local(url, url, fsync);
        };
        match (scheme, Cloud::of(scheme)) {
            ("file", _) => local(url, rest, fsync),
            ("memory", _) => Ok((Arc::new(self.memory.clone()), parse(url, rest.trim_matches('/'))?)),
            (_, Some(cloud)) => self.cloud(cloud, url, vars),
            _ => Err(Error::user("unsupported-store", format!("`{url}`: no object store is called `{scheme}`"))
                .with_hint("use a local path, or a URL with file://, s3://, gs://, az:// or abfss://")),
        }
    }

    fn cloud(&self, cloud: Cloud, url: &str, vars: &Vars) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let (store, path) = cloud.open(url, vars.with_prefix(cloud.prefix()))?;
        let authority = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let store = Arc::clone(self.clouds.lock().entry(authority).or_insert(store));
        Ok((store, path))
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
