//! How much of a table's history must stay: what its streaming readers have not consumed yet, and what came after the stored state
//! of its readers.
//!
//! A view that is behind is recomputed from what its inputs hold now. A streaming table can only catch up from the log, so
//! vacuum and log clean-up keep everything after the position that the lake has of it. Stored state is worth as much history as
//! leads from it to the present; one that is not renewed for longer than the log's retention loses that claim.

use std::collections::BTreeMap;

use super::pipeline::{Pipeline, Upstream};
use super::positions::{merged, table_app};
use super::states::{directories, is_recent};
use crate::error::Result;
use crate::lake::{Epochs, Lake, Table};
use crate::plan::{Compilation, CompiledModel, Relation};
use crate::project::{Materialization, Project};
use crate::state::Header;
use crate::types::RejectKind;

/// The version of the table with `id` from which on its streaming readers, whose tables are `readers`, need its changes. None:
/// none has read it, and one that has not starts from its rows.
fn needed_from<'a>(
    readers: impl Iterator<Item = &'a Table>,
    row_positions: &BTreeMap<String, i64>,
    id: &str,
) -> Option<i64> {
    readers
        .filter_map(|table| merged(table.txns(), table.id(), row_positions).remove(&table_app(table.name(), id)))
        .min()
}

/// The version of the table with `id` after which stored state needs its log: its own entry included, by which it knows the history.
fn needed_by(header: &Header, id: &str) -> Option<i64> {
    let positions = header.inputs.iter().flatten().chain(&header.table);
    positions.filter(|position| position.table == id).map(|position| position.version - 1).min()
}

impl Pipeline {
    /// Tells the tables of model `index` how much of their history must stay.
    pub(super) fn retain(&mut self, index: usize) -> Result<()> {
        let Some(cell) = &self.nodes[index].main else { return Ok(()) };
        let id = cell.table()?.id().to_string();
        let none = BTreeMap::new();
        let positions = self.epochs.last().map_or(&none, |row| &row.positions);
        let readers = self.nodes.iter().filter(|n| n.streams && n.upstreams.contains(&Upstream::Node(index)));
        let cells = readers.flat_map(|n| n.main.iter().chain(&n.quarantine));
        let tables = cells.map(super::cell::Cell::table).collect::<Result<Vec<_>>>()?;
        let from = needed_from(tables.into_iter(), positions, &id);
        let target = &self.project.target;
        let now = self.env.now_micros();
        let kept = self.nodes.iter().filter_map(|n| n.kept.as_ref()).map(|kept| &kept.header);
        let kept = kept.filter(|h| is_recent(h, now, &target.state_snapshots, target.log_retention));
        let from = from.into_iter().chain(kept.filter_map(|header| needed_by(header, &id))).min();
        if let Some(cell) = &mut self.nodes[index].main {
            cell.table_mut()?.retain_from(from);
        }
        Ok(())
    }
}

/// The same for a table that no pipeline has open.
pub(super) async fn retain(
    lake: &Lake,
    project: &Project,
    now: i64,
    compilation: &Compilation,
    model: &str,
    table: &mut Table,
) -> Result<()> {
    let epochs = Epochs::open(lake).await?;
    let none = BTreeMap::new();
    let positions = epochs.last().map_or(&none, |row| &row.positions);
    let reads = |reader: &&std::sync::Arc<CompiledModel>| {
        let input = |i: &crate::plan::Input| matches!(&i.relation, Relation::Model(name) if name == model);
        reader.model.materialized == Materialization::StreamingTable && reader.inputs.iter().any(input)
    };
    let mut readers = Vec::new();
    for reader in compilation.models.iter().filter(reads) {
        let reader = &reader.model;
        for name in [reader.alias.clone(), RejectKind::Quarantine.table(&reader.alias)] {
            readers.extend(lake.table(&reader.schema, &name).await?);
        }
    }
    let from = needed_from(readers.iter(), positions, table.id());
    let target = &project.target;
    // State that cannot be read needs nothing.
    let stored = directories(lake).await?.into_iter().filter_map(|(_, directory)| Some(directory.ok()?.header));
    let stored = stored.filter(|h| is_recent(h, now, &target.state_snapshots, target.log_retention));
    let needed = stored.filter_map(|header| needed_by(&header, table.id()));
    table.retain_from(from.into_iter().chain(needed).min());
    Ok(())
}
