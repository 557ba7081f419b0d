//! What a compile leaves in `target/` for people and tools to read.

use std::path::{Component, Path, PathBuf};

use super::Project;
use crate::env::Env;
use crate::error::{Error, Result};

/// dbt cuts long test names for their files.
const LONGEST_NAME: usize = 63;

/// Writes `target/compiled/<path>.sql` for every model and data test; what an earlier compile left there is removed.
/// Secrets are redacted. Returns the directory.
pub fn write_compiled(project: &Project, env: &Env) -> Result<PathBuf> {
    let root = project.dir.join("target/compiled");
    let failed = |path: &Path, e: std::io::Error| {
        Error::environment("unwritable-target", format!("cannot write {}: {e}", path.display())).permanent()
    };
    match std::fs::remove_dir_all(&root) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&root, e)),
        _ => {}
    }
    let written = || project.models.iter().filter(|m| m.seed.is_none());
    let models = written().map(|m| (m.path.clone(), &m.sql));
    // What an incremental model runs once its table is there.
    let reruns = written().filter_map(|m| Some((m.path.with_extension("rerun.sql"), &m.rerun.as_ref()?.sql)));
    let tests = project.tests.iter().map(|t| match t.path.extension().is_some_and(|e| e == "sql") {
        true => (t.path.clone(), &t.sql),
        // A generic test has no file of its own: it stands below the file that declares it.
        false => (t.path.join(format!("{}.sql", file_name(&t.name))), &t.sql),
    });
    for (path, sql) in models.chain(reruns).chain(tests) {
        // A path of the project file may lead out of the project: its artifacts do not.
        let inside: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let path = root.join(inside);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
        }
        std::fs::write(&path, env.redact(sql)).map_err(|e| failed(&path, e))?;
    }
    Ok(root)
}

/// The first 30 characters and a digest, as dbt has it.
fn file_name(test: &str) -> String {
    use md5::{Digest, Md5};
    let safe: String =
        test.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' }).collect();
    if safe.len() <= LONGEST_NAME {
        return safe;
    }
    let digest: String = Md5::digest(test.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{}_{digest}", safe.chars().take(30).collect::<String>())
}
