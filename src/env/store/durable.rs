//! The local file system, written so that what was acknowledged survives a power failure.
//!
//! `object_store`'s own local store syncs nothing. Here a put is: write a temporary file in the target's directory,
//! fsync it, make it visible (hard link for create-if-absent, rename for overwrite), fsync the directory. Directories that
//! had to be created are synced in their parents. Readers never see a half-written file, whatever happens.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STORE: &str = "DurableStore";

/// [`LocalFileSystem`] rooted at `/`, with durable puts.
#[derive(Debug)]
pub struct DurableStore {
    inner: Arc<LocalFileSystem>,
    fsync: bool,
}

impl DurableStore {
    /// `fsync: false` keeps every step but the syncs: for tests and for lakes that can be rebuilt.
    pub fn new(fsync: bool) -> Self {
        DurableStore { inner: Arc::new(LocalFileSystem::new()), fsync }
    }
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(STORE)
    }
}

fn generic(source: std::io::Error, path: &FsPath) -> object_store::Error {
    let message = std::io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    match source.kind() {
        ErrorKind::PermissionDenied => {
            object_store::Error::PermissionDenied { path: path.display().to_string(), source: Box::new(source) }
        }
        _ => object_store::Error::Generic { store: STORE, source: Box::new(message) },
    }
}

fn sync_directory(directory: &FsPath) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates `directory` and what is missing above it; each new entry is synced in its parent.
fn create_directories(directory: &FsPath, fsync: bool) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create_directories(parent, fsync)?;
        match std::fs::create_dir(directory) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        if fsync {
            sync_directory(parent)?;
        }
    }
    Ok(())
}

/// `NAME#DIGITS` beside the target: the local store's listings skip names of this form.
fn create_temporary(target: &FsPath, fsync: bool) -> std::io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    loop {
        let mut name = target.as_os_str().to_owned();
        // The process id keeps two processes apart; a leftover of a dead one with the same id is stepped over.
        name.push(format!("#{}{:06}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let parent = target.parent().ok_or(e)?;
                create_directories(parent, fsync)?;
            }
            Err(e) => return Err(e),
        }
    }
}

fn write(target: &FsPath, payload: &PutPayload, create: bool, fsync: bool) -> Result<()> {
    let (mut file, temporary) = create_temporary(target, fsync).map_err(|e| generic(e, target))?;
    let published = (|| {
        for part in payload {
            file.write_all(part)?;
        }
        if fsync {
            file.sync_all()?;
        }
        drop(file);
        if create { std::fs::hard_link(&temporary, target) } else { std::fs::rename(&temporary, target) }
    })();
    if create || published.is_err() {
        // A leftover is invisible to readers and listings.
        let _ = std::fs::remove_file(&temporary);
    }
    match published {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(object_store::Error::AlreadyExists { path: target.display().to_string(), source: Box::new(e) });
        }
        Err(e) => return Err(generic(e, target)),
    }
    if fsync && let Some(parent) = target.parent() {
        // The file is visible but not yet durable: an error here is a put whose outcome the caller must resolve.
        sync_directory(parent).map_err(|e| generic(e, parent))?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                return Err(object_store::Error::NotImplemented {
                    operation: "conditional update".into(),
                    implementer: STORE.into(),
                });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        let fsync = self.fsync;
        blocking(move || write(&target, &payload, create, fsync)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // Nothing of ours is uploaded in parts; a library that does gets what object_store offers.
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
