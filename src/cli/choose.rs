//! The nodes that `--select` and its companions choose.

use std::collections::{BTreeMap, BTreeSet};

use super::args::{IndirectSelection, ResourceTypes, Selection};
use super::print;
use super::session::Session;
use crate::error::Error;
use crate::plan::{self, Compilation};
use crate::project::{self, Indirect, LakeState, Project, Request, ResourceType, Selected, State};
use crate::runtime::{self, ChangeState};

impl From<IndirectSelection> for Indirect {
    fn from(mode: IndirectSelection) -> Self {
        match mode {
            IndirectSelection::Eager => Indirect::Eager,
            IndirectSelection::Cautious => Indirect::Cautious,
            IndirectSelection::Buildable => Indirect::Buildable,
            IndirectSelection::Empty => Indirect::Empty,
        }
    }
}

impl Selection {
    /// Whether the command line chooses anything itself.
    fn asks(&self) -> bool {
        !(self.select.is_empty()
            && self.exclude.is_empty()
            && self.selector.is_none()
            && self.resource_type.is_empty()
            && self.exclude_resource_type.is_empty())
    }
}

impl Session {
    /// The selected nodes; None when everything is, because nothing was asked for. Words that match nothing are warned of.
    pub(super) async fn choose(
        &self,
        project: &Project,
        compilation: Option<&Compilation>,
        selection: &Selection,
    ) -> Result<Option<Selected>, Vec<Error>> {
        if let Some(ids) = &selection.ids {
            return Ok(Some(Selected::of(project, ids)));
        }
        let default = project.selectors.iter().find(|s| s.default);
        if !selection.asks() && default.is_none() {
            return Ok(None);
        }
        if let Some(name) = &selection.selector
            && !(selection.select.is_empty() && selection.exclude.is_empty())
        {
            let message = format!("--selector {name} is taken; --select and --exclude beside it say nothing");
            self.warn_once(
                &Error::user("bad-selection", message)
                    .with_hint("write --select selector:NAME to combine a definition of selectors.yml with others"),
            );
        }
        let types = |lists: &[ResourceTypes]| -> Vec<ResourceType> { lists.iter().flat_map(|l| l.0.clone()).collect() };
        let (resource_types, exclude_resource_types) =
            (types(&selection.resource_type), types(&selection.exclude_resource_type));
        let request = Request {
            select: &selection.select,
            exclude: &selection.exclude,
            selector: selection.selector.as_deref(),
            indirect: self.indirect(selection),
            resource_types: (!selection.resource_type.is_empty()).then_some(&resource_types[..]),
            exclude_resource_types: &exclude_resource_types,
            state: None,
            lake: None,
        };
        let state = selection
            .state
            .as_ref()
            .map(|dir| State::read(dir, project, &self.env))
            .transpose()
            .map_err(|e| vec![e])?;
        let request = Request { state: state.as_ref(), ..request };
        let lake = match project::compares_with_lake(project, &request).map_err(|e| vec![e])? {
            true => Some(self.lake_state(project, compilation).await?),
            false => None,
        };
        let request = Request { lake: lake.as_ref(), ..request };
        let selected = project::select(project, &request).map_err(|e| vec![e])?;
        for warning in &selected.warnings {
            self.warn_once(warning);
        }
        Ok(Some(selected))
    }

    /// How the tables of the lake stand to their models' SQL.
    async fn lake_state(
        &self,
        project: &Project,
        compilation: Option<&Compilation>,
    ) -> Result<BTreeMap<String, LakeState>, Vec<Error>> {
        let compiled;
        let compilation = match compilation {
            Some(compilation) => compilation,
            None => {
                let catalog = runtime::lake_catalog(&self.env, project, |_| false).await.map_err(|e| vec![e])?;
                compiled = plan::compile(project, &catalog, &runtime::clock(&self.env))?;
                &compiled
            }
        };
        let changes = runtime::plan_changes(&self.env, project, compilation).await.map_err(|e| vec![e])?;
        let state = |change: ChangeState| match change {
            ChangeState::New => LakeState::New,
            ChangeState::Unchanged => LakeState::Unmodified,
            _ => LakeState::Modified,
        };
        let id = |name: &str| project.models.iter().find(|m| m.name == name).map(|m| m.unique_id.clone());
        Ok(changes.iter().filter_map(|c| Some((id(c.model.as_deref()?)?, state(c.state)))).collect())
    }

    /// Names of the selected models, snapshots and seeds; None when everything is selected.
    pub(super) async fn selected(
        &self,
        project: &Project,
        compilation: Option<&Compilation>,
        selection: &Selection,
    ) -> Result<Option<BTreeSet<String>>, Vec<Error>> {
        Ok(self.choose(project, compilation, selection).await?.map(|s| s.models()))
    }

    /// A command of several steps says it once.
    fn warn_once(&self, warning: &Error) {
        if self.warned.lock().insert(warning.render_warning()) {
            self.warn(warning);
        }
    }

    pub(super) fn warn(&self, warning: &Error) {
        let is_silent = self.is_silent(warning.code());
        if !self.quiet && !is_silent {
            print::error(&self.env.redact(&warning.render_warning()));
        }
    }
}
