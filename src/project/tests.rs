//! A folder of files in, a project or the errors a person reads out.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::{DataTest, Dependency, LoadOptions, Model, Project, load};
use crate::env::{Env, FaultPlan, FaultyStore};

mod context;
mod dbt;
mod errors;
mod inheritance;
mod loading;
mod schemas;
mod selection;
mod snapshots;
mod stages;
mod state;

/// A project file that most tests share.
pub(super) const SMELT: &str = "name: telecom\ntargets: {dev: {lake: ./lake, connections: {telco: {type: kafka, bootstrap.servers: 'localhost:9092'}}}}\n";

/// A project folder with `files`; `smelt.yml` is [`SMELT`] unless given.
pub(super) struct Folder {
    pub dir: TempDir,
    pub env: Env,
    pub options: LoadOptions,
}

impl Folder {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("smelt.yml", SMELT);
        for (path, content) in files {
            write(path, content);
        }
        let options = LoadOptions { dir: dir.path().to_path_buf(), ..LoadOptions::default() };
        Folder { dir, env: env(&[]), options }
    }

    pub fn with_vars(mut self, vars: &[(&str, &str)]) -> Self {
        self.env = env(vars);
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn load(&self) -> Project {
        match load(&self.options, &self.env) {
            Ok(project) => project,
            Err(errors) => panic!("{}", errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n")),
        }
    }

    /// The errors as a person reads them, one blank line between two.
    pub fn errors(&self) -> String {
        match load(&self.options, &self.env) {
            Ok(_) => "no errors".to_string(),
            Err(errors) => errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n\n"),
        }
    }

    pub fn warnings(&self) -> String {
        self.load().warnings.iter().map(|e| e.render_warning()).collect::<Vec<_>>().join("\n\n")
    }
}

fn env(vars: &[(&str, &str)]) -> Env {
    let vars = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>();
    // 2026-01-31T12:00:00Z
    Env::simulated(1, 1_769_860_800_000_000, vars, FaultyStore::new(FaultPlan::default()))
}

pub(super) fn model<'a>(project: &'a Project, name: &str) -> &'a Model {
    project.models.iter().find(|m| m.name == name).unwrap()
}

pub(super) fn data_test<'a>(project: &'a Project, name: &str) -> &'a DataTest {
    let names: Vec<&str> = project.tests.iter().map(|t| t.name.as_str()).collect();
    project.tests.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

pub(super) fn reads(model: &Model) -> Vec<String> {
    let name = |d: &Dependency| match d {
        Dependency::Model(name) => name.clone(),
        Dependency::Source(source, table) => format!("{source}.{table}"),
    };
    model.depends_on.iter().map(name).collect()
}
