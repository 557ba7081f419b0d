//! Collects what artifacts say beyond what runs: docs blocks, groups, exposures, entries of properties files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::docs_blocks::DocsBlocks;
use super::exposures;
use super::graph::Names;
use super::jinja::Asked;
use super::load::{Draft, Kind, Loader};
use super::problems::{Problems, suggest};
use super::properties::Properties;
use super::texts::files;
use super::yaml::{Node, Text};
use super::{Declared, DeclaredSource, DisabledModel, Inventory, macros};

impl Loader<'_> {
    /// The docs blocks of Markdown files, which stand anywhere unless the project says where.
    pub(super) fn docs(&self, paths: &[String], p: &mut Problems) -> DocsBlocks {
        let own = [&self.settings.macro_paths[..], &self.settings.snapshot_paths].concat();
        let folders = match self.settings.docs_paths.is_empty() {
            true => [paths, &own].concat(),
            false => self.settings.docs_paths.clone(),
        };
        let mut texts: Vec<Arc<Text>> = Vec::new();
        for (text, _) in files(self.dir, &folders, "md", p) {
            if texts.iter().all(|t| t.file != text.file) {
                texts.push(text);
            }
        }
        DocsBlocks::read(&texts, p)
    }

    /// What artifacts say beyond what runs.
    pub(super) fn inventory(
        &self,
        drafts: &[Draft],
        properties: &mut Properties,
        names: &Arc<Names>,
        p: &mut Problems,
    ) -> Inventory {
        let groups: Vec<_> = properties.groups.iter().filter_map(|node| exposures::group(node, p)).collect();
        let mut macros = self.macros.clone();
        properties.macros.iter().for_each(|node| macros::describe(&mut macros, node, p));
        let described = properties.models.iter().chain(&properties.snapshots).chain(&properties.seeds);
        described.clone().for_each(|m| exposures::check_group(&m.node, &groups, p));
        let key = |name: &str| {
            let draft = drafts.iter().find(|d| d.name.eq_ignore_ascii_case(name));
            draft.map_or(name, |d| &d.key).to_lowercase()
        };
        let models =
            described.map(|m| (key(&m.name), Declared { path: m.node.text.file.clone(), entry: m.node.json() }));
        let sources = properties.sources.iter().map(|s| {
            let path = s.node.text.file.clone();
            let of = |node: &Node| match node.get("config").map(Node::written_json) {
                Some(serde_json::Value::Object(members)) => members,
                _ => serde_json::Map::new(),
            };
            let folders = |i: usize| match s.folders[i].as_ref().map(Node::written_json) {
                Some(serde_json::Value::Object(members)) => members,
                _ => serde_json::Map::new(),
            };
            let written = folders(0).into_iter().chain(of(&s.source)).chain(of(&s.node)).chain(folders(1)).collect();
            let [below, over] = [0, 1].map(|i: usize| s.folders[i].as_ref().map(Node::json).unwrap_or_default());
            let (table, source) = (s.node.json(), s.source.json());
            let declared = DeclaredSource { path, table, source, folders: [below, over], written };
            ((s.table.source.clone(), s.table.name.clone()), declared)
        });
        let disabled = drafts.iter().filter(|d| !d.configured.config.enabled).map(|d| DisabledModel {
            name: d.name.clone(),
            fqn: d.fqn.clone(),
            path: d.template.text.file.clone(),
            materialized: d.configured.materialized,
            schema: d.configured.schema.clone().unwrap_or_else(|| self.settings.default_schema.clone()),
            alias: d.configured.alias.clone().unwrap_or_else(|| d.name.clone()),
            raw: Arc::clone(&d.template.text.content),
            tags: d.configured.tags.clone(),
            config: d.configured.config.all.clone(),
        });
        let exposure = |node: &Node, p: &mut Problems| {
            let folders = [std::slice::from_ref(&self.settings.name), &self.folders(&node.text.file)].concat();
            exposures::exposure(node, &folders, &**names, p)
        };
        let refs = drafts.iter().map(|d| {
            let mut refs: Vec<(Option<String>, String)> = Vec::new();
            for asked in &d.asked {
                if let Asked::Model(call) = asked
                    && !refs.iter().any(|(package, name)| *package == call.package && *name == call.name)
                {
                    refs.push((call.package.clone(), call.name.clone()));
                }
            }
            (self.identity(d.kind, &d.name).1, refs)
        });
        Inventory {
            refs: refs.collect(),
            models: models.collect(),
            sources: sources.collect(),
            disabled: disabled.collect(),
            exposures: properties.exposures.iter().filter_map(|n| exposure(n, p)).collect(),
            docs: std::mem::take(&mut properties.docs).into_blocks(),
            groups,
            plain: [self.analyses(names, p), self.hook_nodes(names)].concat(),
            macros,
        }
    }

    /// Properties and folders of the project file that describe nothing are noted.
    pub(super) fn note_unused(
        &self,
        drafts: &[Draft],
        everything: &[&Draft],
        properties: &Properties,
        p: &mut Problems,
    ) {
        for (kind, what, described) in [
            (Kind::Model, "model", &properties.models),
            (Kind::Snapshot, "snapshot", &properties.snapshots),
            (Kind::Seed, "seed", &properties.seeds),
        ] {
            let there = || drafts.iter().filter(move |d| d.kind == kind);
            for own in described {
                if there().all(|d| !d.name.eq_ignore_ascii_case(&own.name)) {
                    let hint = suggest(&own.name, there().map(|d| d.name.as_str()), &format!("{what}s"));
                    let message = format!("there is no {what} `{}` to describe", own.name);
                    p.warn("unused-properties", own.span.clone(), message, hint);
                }
            }
        }
        for level in &self.settings.defaults.models {
            let Some((folder, parent)) = level.path.split_last() else { continue };
            let holds = |path: &[String]| everything.iter().any(|d| d.fqn.starts_with(path));
            if let Some(span) = &level.span
                && !holds(&level.path)
                && (parent.is_empty() || holds(parent))
            {
                let what = if parent.is_empty() { "project" } else { "folder or model" };
                let below =
                    everything.iter().filter(|d| d.fqn.starts_with(parent)).filter_map(|d| d.fqn.get(parent.len()));
                let siblings: BTreeSet<&str> = below.map(String::as_str).collect();
                let hint = suggest(folder, siblings, "there is");
                p.warn(
                    "unused-config",
                    span.clone(),
                    format!("configuration for `{folder}`, but there is no such {what}"),
                    hint,
                );
            }
        }
        if everything.is_empty() && self.settings.folder.as_os_str().is_empty() {
            let hint = format!("put SQL files into {}", self.settings.model_paths.join(", "));
            p.warn("no-models", self.settings.span.clone(), "the project has no models", hint);
        }
    }
}
