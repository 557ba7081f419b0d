//! The object store as seen from one table: paths are relative to the table's root, as in its log.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Where a table lives.
#[derive(Debug, Clone)]
pub struct TableStore {
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
}

/// What became of a create-if-absent.
#[derive(Debug)]
pub enum Created {
    /// It is there, and it is ours.
    Yes,
    /// Something was there before.
    Exists,
    /// Nobody knows: it may be there, may land later, or never.
    Unknown(Error),
}

impl TableStore {
    /// The whole path of `relative`, taken literally (never percent-decoded).
    pub fn path(&self, relative: &str) -> Result<Path> {
        let text =
            if self.root.as_ref().is_empty() { relative.to_string() } else { format!("{}/{relative}", self.root) };
        Path::parse(&text).map_err(|e| Error::environment("bad-path", format!("{text}: {e}")).permanent())
    }

    /// Path of the log entry of `version`.
    pub fn log_path(version: i64) -> String {
        format!("_delta_log/{version:020}.json")
    }

    pub async fn get(&self, relative: &str) -> Result<Bytes> {
        Ok(self.store.get(&self.path(relative)?).await?.bytes().await?)
    }

    /// The content of the object at a whole path.
    pub async fn get_at(&self, path: &Path) -> Result<Bytes> {
        Ok(self.store.get(path).await?.bytes().await?)
    }

    /// The object's content, or `None` when there is none.
    pub async fn try_get(&self, relative: &str) -> Result<Option<Bytes>> {
        match self.store.get(&self.path(relative)?).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub async fn put(&self, relative: &str, bytes: impl Into<PutPayload>) -> Result<()> {
        self.store.put(&self.path(relative)?, bytes.into()).await?;
        Ok(())
    }

    /// Puts an object that must not exist yet.
    pub async fn create(&self, relative: &str, bytes: Bytes) -> Result<Created> {
        let path = self.path(relative)?;
        match self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Created::Exists)
            }
            Err(e) => Ok(Created::Unknown(e.into())),
        }
    }

    /// Every object under `relative` whose path is greater than `after` (also relative), ascending.
    pub async fn list(&self, relative: &str, after: Option<&str>) -> Result<Vec<ObjectMeta>> {
        let prefix = if relative.is_empty() { self.root.clone() } else { self.path(relative)? };
        let mut found: Vec<ObjectMeta> = match after {
            Some(after) => {
                let after = self.path(after)?;
                self.store.list_with_offset(Some(&prefix), &after).try_collect().await?
            }
            None => self.store.list(Some(&prefix)).try_collect().await?,
        };
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Deletes objects; those that are gone already are fine.
    pub async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        // One by one inside: a missing object must not end the deletion of the others.
        for path in paths {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
