//! What a compile leaves in `target/` for people and tools to read.

use std::path::{Component, Path, PathBuf};

use super::unwritable as failed;
use crate::env::Env;
use crate::error::Result;
use crate::project::{DataTest, Model, Project, UnitTest, unit_test_path};

/// Writes `target/compiled/<path>.sql` for every model and data test; what an earlier compile left there is removed.
/// Secrets are redacted. Returns the directory.
pub fn write_compiled(project: &Project, env: &Env) -> Result<PathBuf> {
    let root = project.dir.join("target/compiled");
    match std::fs::remove_dir_all(&root) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&root, e)),
        _ => {}
    }
    let written = || project.models.iter().filter(|m| m.seed.is_none() && m.asks.waits.is_none());
    let models = written().map(|m| (model_path(m), &m.sql));
    // What an incremental model runs once its table is there.
    let reruns = written().filter_map(|m| Some((model_path(m).with_extension("rerun.sql"), &m.rerun.as_ref()?.sql)));
    let tests = project.tests.iter().filter(|t| t.waits.is_none()).map(|t| (test_path(t), &t.sql));
    let analyses = project.inventory.plain.iter().filter_map(|node| Some((node.file.clone(), node.sql.as_ref()?)));
    models
        .chain(reruns)
        .chain(tests)
        .chain(analyses)
        .try_for_each(|(path, sql)| write_below(&root, &path, sql, env))?;
    Ok(root)
}

/// Writes the SQL of `tests` where [`write_compiled`] does, and leaves what else is there.
pub fn write_compiled_tests(project: &Project, tests: &[&DataTest], env: &Env) -> Result<()> {
    let root = project.dir.join("target/compiled");
    tests.iter().try_for_each(|test| write_below(&root, &test_path(test), &test.sql, env))
}

/// Writes the SQL of unit tests, each below the file that declares it.
pub fn write_compiled_unit_tests(project: &Project, tests: &[&UnitTest], env: &Env) -> Result<()> {
    let root = project.dir.join("target/compiled");
    tests.iter().try_for_each(|test| write_below(&root, &unit_test_path(test), &test.sql, env))
}

fn write_below(root: &Path, path: &Path, sql: &str, env: &Env) -> Result<()> {
    // A path of the project file may lead out of the project: its artifacts do not.
    let path = root.join(inside(path));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    }
    std::fs::write(&path, env.redact(sql)).map_err(|e| failed(&path, e))
}

/// `path` without what would lead out of a folder.
pub(super) fn inside(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// Where the compiled model stands below `target/compiled`.
pub(super) fn model_path(model: &Model) -> PathBuf {
    match model.path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
        // A snapshot that YAML declares, beside the tests that the file declares.
        true => model.path.join(format!("{}.sql", model.own_name())),
        false => model.path.clone(),
    }
}

/// What stands between the tags of snapshot `name` in its file; None when it has no block.
pub(super) fn snapshot_block<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let opening = regex::Regex::new(&format!(r"\{{%[-+]?\s*snapshot\s+{}\s*[-+]?%\}}", regex::escape(name))).ok()?;
    let closing = regex::Regex::new(r"\{%[-+]?\s*endsnapshot\s*[-+]?%\}").ok()?;
    let start = opening.find(file)?.end();
    let end = closing.find_at(file, start)?.start();
    Some(&file[start..end])
}

/// Where the compiled SQL of a data test stands below `target/compiled`. A generic test has no file of its own: it stands below the
/// file that declares it.
pub fn test_path(test: &DataTest) -> PathBuf {
    match test.generic {
        None => test.path.clone(),
        Some(_) => test.path.join(format!("{}.sql", test.config.file)),
    }
}
