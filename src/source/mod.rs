//! Sources: what streams in from outside the lake, behind the one trait [`crate::types::Source`].
//!
//! A source reads raw records in offset order (`kafka`, `files`), has them decoded (`crate::decode`), and `assemble` makes of
//! records, rows and errors what the project asked for: declared columns, included metadata, dead letters or kept bad
//! records. Positions belong to the engine: a source starts where it is told and acknowledges nothing.

mod assemble;
pub mod datagen;
mod files;
pub mod infer;
mod kafka;
mod newest;
mod schema;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use newest::newest;
pub use schema::{change_kind, relation_schema, replayable};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::project::{Connector, SourceTable};
use crate::types::{Ledger, Source};

/// What a source needs to run.
#[derive(Clone)]
pub struct OpenContext {
    pub env: Env,
    /// Of this source table; files sources only.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// Names in the default consumer group: `smelt-<project>-<target>`.
    pub project: String,
    pub target: String,
}

/// The source behind a source table, not yet reading.
pub fn open(table: &Arc<SourceTable>, context: &OpenContext) -> Result<Box<dyn Source>> {
    match &table.connector {
        Connector::Files(config) => Ok(Box::new(files::Files::new(Arc::clone(table), config.clone(), context)?)),
        Connector::Kafka(config) => Ok(Box::new(kafka::Kafka::new(Arc::clone(table), config, context)?)),
        Connector::Datagen { options } => {
            let mut assembler = assemble::Assembler::new(Arc::clone(table))?;
            let schema = assembler.schema();
            datagen::open(table, options, &context.env, schema, move |chunk, now| assembler.batch(chunk, now))
        }
        Connector::Delta { .. } => Err(Error::internal("a Delta table is read from the lake, not opened as a source")),
    }
}
