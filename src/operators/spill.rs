//! State of operators on local disk, while memory has no room for it.

use bytes::Bytes;
use datafusion::execution::DiskManager;
use datafusion::execution::spill_file::SpillFile;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::sharded::Shard;
use crate::error::{Error, Result};
use crate::state::{Header, Packing, StateReader, StateWriter, decode, encode};

/// A place on disk for the state of one shard. It is written over again and again: what the system holds of a file stays with it.
pub(super) struct Place(Arc<dyn SpillFile>);

impl Place {
    /// Nothing is there yet. It goes with this.
    pub fn new(disk: &Arc<DiskManager>) -> Result<Self> {
        Ok(Place(disk.create_tmp_file("state that memory_limit has no room for")?))
    }

    fn path(&self) -> Result<&Path> {
        self.0.path().ok_or_else(|| Error::internal("a spill file has no path"))
    }

    /// Writes the state of `shard`, checksummed as stored state is. It is not compressed: that would take longer than all the rest.
    pub fn write(&self, shard: &mut impl Shard) -> Result<()> {
        let mut state = StateWriter::new();
        shard.save(&mut state)?;
        let blocks = encode(&Header::default(), state.finish(), Packing::Plain, 1)?;
        let path = self.path()?;
        let write = || -> std::io::Result<()> {
            // Truncating it first would have the system write it to the disk when it is closed.
            let mut out = OpenOptions::new().write(true).open(path)?;
            blocks.iter().try_for_each(|block| out.write_all(block))?;
            out.set_len(blocks.iter().map(|block| block.len() as u64).sum())
        };
        write().map_err(|e| failed("written", &e))
    }

    /// Puts what was written into `shard`, which has no state.
    pub fn read(&self, shard: &mut impl Shard) -> Result<()> {
        let bytes = Bytes::from(std::fs::read(self.path()?).map_err(|e| failed("read", &e))?);
        let (_, sections) = decode(&bytes)?;
        let mut state = StateReader::new(sections, 1);
        shard.restore(&mut state)?;
        state.finish()
    }
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::environment("spill", format!("state beyond memory_limit could not be {what}: {error}"))
        .with_hint("free space in the directory for temporary files (TMPDIR), or raise the target's memory_limit")
}
