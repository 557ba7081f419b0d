//! `smelt source infer`: samples of a topic or of files become the `sources:` entry that reads them.
//!
//! 1. `sample` reads the first records, and says where they came from.
//! 2. `decode::infer` chooses columns and types; for Parquet the file says them.
//! 3. The samples are decoded with exactly what will be printed: what would become a dead letter is said.
//! 4. `yaml` prints the entry, with what its reader should know as comments.

mod describe;
mod sample;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::env::Env;
use crate::error::Result;
use crate::project::Format;

/// What to look at, and what to call it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `kafka://host:port/topic`, an object-store URL, a path, or a glob.
    pub location: String,
    /// Records looked at, at most.
    pub records: usize,
    /// `table` or `source.table`; otherwise named after the topic or file.
    pub name: Option<String>,
    /// What a record is; otherwise found out.
    pub format: Option<Format>,
    /// A connection of the target: its name and its properties.
    pub connection: Option<(String, BTreeMap<String, String>)>,
    /// Relative paths are relative to it.
    pub dir: PathBuf,
}

/// A properties file (YAML) with the source table that reads the samples at `request.location`.
pub async fn infer(request: &Request, env: &Env) -> Result<String> {
    let sample = sample::read(request, env).await?;
    let table = describe::describe(&sample, request)?;
    Ok(yaml::print(&table))
}
