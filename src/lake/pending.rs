//! Staged changes: a delta over the committed state, never a copy of it.

use arrow::datatypes::SchemaRef;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::actions::Metadata;
use super::files::{DataFile, Ordinal};
use super::locator::{Locator, Place};
use super::vector::Vector;

/// A change of the locator that `discard` takes back.
#[derive(Debug)]
pub enum Undo {
    /// All rows of a new file were recorded, in order.
    Inserted(Ordinal, Vec<u128>),
    /// A row was taken out.
    Removed(u128, Place),
    /// The rows of a file were led elsewhere.
    Redirected(Ordinal),
}

/// New identity, schema or properties.
#[derive(Debug, Clone)]
pub struct NewMetadata {
    pub metadata: Metadata,
    pub schema: SchemaRef,
    pub file_schema: SchemaRef,
}

/// What the next commit will change.
#[derive(Debug, Default)]
pub struct Pending {
    /// New files.
    pub added: BTreeMap<Ordinal, Arc<DataFile>>,
    /// Files, committed or new, with all rows that are gone from them (the committed vector's included).
    pub deletes: BTreeMap<Ordinal, Arc<RoaringBitmap>>,
    /// Committed files that leave as a whole.
    pub removed: BTreeSet<Ordinal>,
    /// Everything committed leaves.
    pub replaced: bool,
    pub metadata: Option<NewMetadata>,
    /// The new schema needs the feature `timestampNtz`.
    pub upgrade_ntz: bool,
    /// Vectors already uploaded, each with the bitmap it holds.
    pub vectors: BTreeMap<Ordinal, (Arc<RoaringBitmap>, Arc<Vector>)>,
    pub undo: Vec<Undo>,
    /// The locator of the committed content, when `replace` put it aside.
    pub saved_locator: Option<Option<Locator>>,
    /// The locator cannot be taken back: rebuild it when needed.
    pub forget_locator: bool,
    /// Files written for nothing: deleted by the next maintenance.
    pub orphans: Vec<String>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.deletes.is_empty()
            && self.removed.is_empty()
            && !self.replaced
            && self.metadata.is_none()
    }
}
