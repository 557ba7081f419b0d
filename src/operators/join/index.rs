//! An arm's rows by their key, of its own or one that other joins use, too; and the keys, by whose ids base rows find them.

use crate::error::Result;
use crate::state::{
    GroupIndex, Keyed, Keying, Linked, Links, LogKeyed, LogKeying, LogKeys, NONE, PooledKeys, Relation, StateReader,
    StateWriter,
};

/// The index of one arm.
pub(super) enum Index {
    Own { keys: Box<GroupIndex>, rows: Links },
    Pooled(PooledKeys),
    SharedLog(LogKeys),
}

/// An index that is looked into. Of one that is shared nobody else uses the rows meanwhile: they must not be asked for.
pub(super) enum Reader<'a> {
    Own(&'a Links),
    Pooled(Keyed<'a>),
    SharedLog(LogKeyed<'a>),
}

/// An index that is given keys.
pub(super) enum Writer<'a> {
    Own(&'a mut GroupIndex),
    Pooled(Keying<'a>),
    SharedLog(LogKeying<'a>),
}

impl Index {
    /// Of the rows in `store`, which may be others' too; `name` is equal for equal keys.
    pub fn new(store: &Relation, name: &str) -> Result<Self> {
        Ok(match store {
            Relation::Pooled(rows) => Index::Pooled(PooledKeys::new(rows, name)?),
            Relation::SharedLog(rows) => Index::SharedLog(LogKeys::new(rows, name)?),
            own => Index::Own { keys: Box::default(), rows: Links::new(own.is_append_only()) },
        })
    }

    /// Looks into what the rows in `store` stand in by now. Ids of keys that `base` has can be others there.
    pub fn follow(&mut self, store: &Relation, base: &mut Links) -> Result<()> {
        if let (Index::SharedLog(keys), Relation::SharedLog(rows)) = (self, store)
            && let Some(now) = keys.follow(rows)?
        {
            let old = std::mem::replace(base, Links::new(base.is_append_only()));
            *base = old.renumbered(None, Some(&now))?;
        }
        Ok(())
    }

    /// Whether the key of a row can be had without looking at the row, and those of the rows before it.
    pub fn knows(&self, row: u32) -> Result<bool> {
        match self {
            Index::SharedLog(keys) => keys.knows(row),
            Index::Own { .. } | Index::Pooled(_) => Ok(false),
        }
    }

    pub fn read(&self) -> Result<Reader<'_>> {
        Ok(match self {
            Index::Own { rows, .. } => Reader::Own(rows),
            Index::Pooled(keys) => Reader::Pooled(keys.lock()?),
            Index::SharedLog(keys) => Reader::SharedLog(keys.lock()?),
        })
    }

    pub fn write(&mut self) -> Result<Writer<'_>> {
        Ok(match self {
            Index::Own { keys, .. } => Writer::Own(keys),
            Index::Pooled(keys) => Writer::Pooled(keys.lock_mut()?),
            Index::SharedLog(keys) => Writer::SharedLog(keys.lock_mut()?),
        })
    }

    /// Whether a row was linked.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        match self {
            Index::Own { rows, .. } => rows.contains(row),
            Index::Pooled(keys) => keys.contains(row),
            Index::SharedLog(keys) => keys.contains(row),
        }
    }

    /// Puts a row under `key`, which it got from [`Writer::key_of_row`].
    pub fn link(&mut self, row: u32, key: u32) {
        match self {
            Index::Own { rows, .. } => rows.link(row, key),
            Index::Pooled(keys) => keys.link(row),
            Index::SharedLog(keys) => keys.link(row),
        }
    }

    /// Reads what unlinking these rows will read.
    pub fn look_ahead_of(&self, rows: &[u32]) {
        if let Index::Own { rows: links, .. } = self {
            links.look_ahead_of(rows);
        }
    }

    /// A row is no more.
    pub fn unlink(&mut self, row: u32) {
        match self {
            Index::Own { rows, .. } => rows.unlink(row),
            Index::Pooled(keys) => keys.unlink(row),
            // No row ever goes.
            Index::SharedLog(_) => {}
        }
    }

    /// Frees those of `loose` that neither a row nor one of `base` has.
    pub fn sweep(&mut self, mut loose: Vec<u32>, base: &Links) -> Result<()> {
        loose.sort_unstable();
        loose.dedup();
        for key in loose.into_iter().filter(|key| base.head(*key) == NONE) {
            match self {
                Index::Own { keys, rows } if rows.head(key) == NONE => keys.remove(key),
                Index::Own { .. } => {}
                Index::Pooled(keys) => keys.release(key)?,
                Index::SharedLog(keys) => keys.release(key)?,
            }
        }
        Ok(())
    }

    /// Writes the index, and `base` in the middle of it.
    pub fn save(&mut self, base: &mut Links, out: &mut StateWriter) -> Result<()> {
        match self {
            Index::Own { keys, rows } => {
                keys.save(out);
                base.save(out);
                rows.save(out);
                Ok(())
            }
            Index::Pooled(keys) => keys.save(out, |out| base.save(out)),
            Index::SharedLog(keys) => keys.save(out, |out| base.save(out)),
        }
    }

    /// Becomes what [`Index::save`] wrote, and gives `base`, and how long that was. Ids of rows are others than those that were stored where
    /// `rows` and `base_rows` say so.
    pub fn restore(
        &mut self,
        from: &mut StateReader,
        base: &Links,
        base_rows: Option<&[u32]>,
        rows: Option<&[u32]>,
    ) -> Result<(Links, usize)> {
        let stored = GroupIndex::restore(from)?;
        let of_base = Links::restore(from, base.is_append_only())?;
        let stored_rows = of_base.keys().len();
        match self {
            Index::Own { keys, rows: links } => {
                *links = Links::restore(from, links.is_append_only())?;
                **keys = stored;
                Ok((of_base.renumbered(base_rows, None)?, stored_rows))
            }
            Index::SharedLog(keys) => {
                let links = Links::restore(from, true)?;
                let now = keys.restore(stored, &links, &of_base)?;
                Ok((of_base.renumbered(base_rows, now.as_deref())?, stored_rows))
            }
            Index::Pooled(keys) => {
                let links = Links::restore(from, false)?;
                let links = links.renumbered(rows, None)?;
                let key = |id: u32| (id != NONE).then(|| stored.key(id));
                let mut keying = keys.lock_mut()?;
                for (row, id) in links.iter() {
                    keying.key_of_row(row, || key(id))?;
                }
                let mut now = vec![NONE; stored.bound()];
                for (_, id) in of_base.iter().filter(|(_, id)| *id != NONE) {
                    now[id as usize] = keying.need(stored.key(id))?;
                }
                drop(keying);
                links.iter().for_each(|(row, _)| keys.link(row));
                let of_base = of_base.renumbered(base_rows, Some(&now))?;
                Ok((of_base, stored_rows))
            }
        }
    }

    pub fn heap_size(&self) -> usize {
        match self {
            Index::Own { keys, rows } => keys.heap_size() + rows.heap_size(),
            Index::Pooled(keys) => keys.heap_size(),
            Index::SharedLog(keys) => keys.heap_size(),
        }
    }
}

impl Reader<'_> {
    /// The rows, by key and row.
    pub fn rows(&self) -> Result<Linked<'_>> {
        match self {
            Reader::Own(links) => Ok(links.linked(None)),
            Reader::Pooled(keyed) => keyed.linked(),
            Reader::SharedLog(keyed) => keyed.linked(),
        }
    }
}

impl Writer<'_> {
    /// Reads what looking up the first [`AHEAD`](crate::state::AHEAD) of these keys will read, so that memory is waited for once.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<()> {
        match self {
            Writer::Own(index) => {
                index.look_ahead(keys);
                Ok(())
            }
            Writer::Pooled(keying) => keying.look_ahead(keys),
            Writer::SharedLog(keying) => keying.look_ahead(keys),
        }
    }

    /// The id of a row's key, which is asked for if it is not known; None matches nothing.
    pub fn key_of_row<'k>(&mut self, row: u32, key: impl FnOnce() -> Option<&'k [u8]>) -> Result<u32> {
        match self {
            Writer::Own(keys) => key().map_or(Ok(NONE), |key| keys.intern_one(key)),
            Writer::Pooled(keyed) => keyed.key_of_row(row, key),
            Writer::SharedLog(keying) => keying.key_of_row(row, key),
        }
    }

    /// The id of a base row's key; None matches nothing.
    pub fn key_of_base(&mut self, key: Option<&[u8]>) -> Result<u32> {
        match (self, key) {
            (_, None) => Ok(NONE),
            (Writer::Own(keys), Some(key)) => keys.intern_one(key),
            (Writer::Pooled(keying), Some(key)) => keying.need(key),
            (Writer::SharedLog(keying), Some(key)) => keying.need(key),
        }
    }

    /// The id of a key; [`NONE`] if no row has it.
    pub fn find(&mut self, key: &[u8]) -> Result<u32> {
        match self {
            Writer::Own(keys) => Ok(keys.find_one(key)),
            Writer::Pooled(keying) => keying.find(key),
            Writer::SharedLog(keying) => keying.find(key),
        }
    }
}
