//! State of operators on local disk, while memory has no room for it.

use bytes::Bytes;
use datafusion::execution::DiskManager;
use datafusion::execution::spill_file::SpillFile;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::sharded::Shard;
use crate::error::{Error, Result};
use crate::state::{Header, Packing, StateReader, StateWriter, decode, encode};

/// The state of one shard, in a file that goes with this.
pub(super) struct Spilled {
    file: Arc<dyn SpillFile>,
    /// Rows, groups and values in it.
    pub rows: usize,
}

impl Spilled {
    /// Writes the state of `shard`, checksummed as stored state is. It is not compressed: that would take longer than all the rest.
    pub fn write(shard: &impl Shard, disk: &Arc<DiskManager>) -> Result<Self> {
        let file = disk.create_tmp_file("state that memory_limit has no room for")?;
        let path = path(&file)?;
        let mut state = StateWriter::new();
        shard.save(&mut state)?;
        let blocks = encode(&Header::default(), state.finish(), Packing::Plain)?;
        let write = || -> std::io::Result<()> {
            let mut out = std::fs::File::create(path)?;
            blocks.iter().try_for_each(|block| out.write_all(block))
        };
        write().map_err(|e| failed("written", &e))?;
        Ok(Spilled { file, rows: shard.state_rows() })
    }

    /// Puts it into `shard`, which has none.
    pub fn read(&self, shard: &mut impl Shard) -> Result<()> {
        let bytes = Bytes::from(std::fs::read(path(&self.file)?).map_err(|e| failed("read", &e))?);
        let (_, sections) = decode(&bytes)?;
        let mut state = StateReader::new(sections, 1);
        shard.restore(&mut state)?;
        state.finish()
    }
}

fn path(file: &Arc<dyn SpillFile>) -> Result<&Path> {
    file.path().ok_or_else(|| Error::internal("a spill file has no path"))
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::environment("spill", format!("state beyond memory_limit could not be {what}: {error}"))
        .with_hint("free space in the directory for temporary files (TMPDIR), or raise the target's memory_limit")
}
