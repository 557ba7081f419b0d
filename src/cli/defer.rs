//! `--defer`: which models are read from the tables of another run, by dbt's rules.
//!
//! A model is deferred when its table is not in the target's lake and this command does not build it; with `--favor-state` also
//! when its table is there, unless it is selected. A view has no table: it is inlined as it is written here, and what it reads is
//! deferred in its turn.

use std::collections::BTreeMap;

use super::args::{Deferring, Selection};
use super::session::Session;
use crate::error::Error;
use crate::project::{Deferred, Elsewhere, Model, Project};
use crate::runtime;

/// What a command reads and makes.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub selection: &'a Selection,
    pub deferring: &'a Deferring,
    /// Whether the command makes the table of a selected model.
    pub makes: &'a (dyn Fn(&Model) -> bool + Sync),
}

impl Session {
    /// The tables that stand in for models of `project`, by unique id; none without `--defer`.
    pub(super) async fn deferred(
        &self,
        project: &Project,
        work: Work<'_>,
    ) -> Result<BTreeMap<String, Deferred>, Vec<Error>> {
        let Deferring { defer, favor_state, defer_state, .. } = work.deferring;
        if !defer {
            return Ok(BTreeMap::new());
        }
        let Some(dir) = defer_state.as_ref().or(work.selection.state.as_ref()) else {
            return Err(vec![
                Error::user("no-state", "--defer needs another run to read from")
                    .with_hint("name the folder of its artifacts with --state or --defer-state"),
            ]);
        };
        let one = |e: Error| vec![e];
        let elsewhere = Elsewhere::read(&project.dir.join(dir), &project.target.lake).map_err(one)?;
        let selected = self.choose(project, None, work.selection).await?;
        let built = runtime::built_tables(&self.env, project).await.map_err(one)?;
        let mut deferred = BTreeMap::new();
        for model in &project.models {
            let Some(table) = elsewhere.table(&model.unique_id) else { continue };
            let is_own = table.lake.is_none() && (&table.schema, &table.alias) == (&model.schema, &model.alias);
            let is_selected = selected.as_ref().is_none_or(|s| s.contains(&model.unique_id));
            let is_made = is_selected && (work.makes)(model);
            let is_missing = model.materialized.has_table() && !built.contains(&model.unique_id) && !is_made;
            if !is_own && (is_missing || *favor_state && !is_selected) {
                let table = Deferred { compiled: is_selected, ..table.clone() };
                deferred.insert(model.unique_id.clone(), table);
            }
        }
        Ok(deferred)
    }

    /// Says which tables are read instead of the models' own.
    pub(super) fn say_deferred(&self, project: &Project) {
        let deferred = project.models.iter().filter_map(|m| Some((m, m.deferred.as_ref()?)));
        let mut by_lake: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (_, table) in deferred {
            let lake = table.lake.as_deref().unwrap_or(&project.target.lake);
            by_lake.entry(lake).or_default().push(format!("{}.{}", table.schema, table.alias));
        }
        for (lake, tables) in by_lake {
            self.say(&format!("deferred to {lake}: {}", tables.join(", ")));
        }
    }
}
