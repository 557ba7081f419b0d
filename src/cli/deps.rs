//! `deps`: installs what packages.yml or dependencies.yml asks for into dbt_packages/.
//!
//! 1. Every package is resolved: a local folder is where it says, a repository is cloned by the `git` on the path; what the
//!    packages themselves ask for comes with them.
//! 2. package-lock.yml names them all, each repository with its commit. While packages.yml stays as it is, the lock decides.
//! 3. The folder of packages is replaced as a whole.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Exit;
use super::session::Session;
use crate::error::{Error, Result};
use crate::project::{self, PackageOrigin, PackageSpec};

/// Where repositories are cloned before they are installed; hidden, so that nothing takes it for a package.
const DOWNLOADS: &str = ".downloads";

/// A package that is ready to be installed.
struct Resolved {
    name: String,
    origin: PackageOrigin,
    folder: PathBuf,
}

pub(super) fn deps(session: &Session, upgrade: bool, lock_only: bool) -> Result<Exit, Vec<Error>> {
    let plan = project::package_plan(session.options(), &session.env)?;
    let install = session.dir.join(&plan.install_path);
    let outside = plan.install_path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    if plan.install_path.as_os_str().is_empty() || outside {
        let message = format!("packages-install-path `{}` is no folder of the project", plan.install_path.display());
        return Err(vec![Error::user("bad-path", message)]);
    }
    if plan.specs.is_empty() {
        session.say("no packages are asked for in packages.yml or dependencies.yml");
        return Ok(Exit::Success);
    }
    let downloads = install.join(DOWNLOADS);
    remove(&downloads).map_err(|e| vec![e])?;
    let from_lock = plan.locked.is_some() && !upgrade;
    let start = if from_lock { plan.locked.clone().unwrap_or_default() } else { plan.specs.clone() };
    let resolved = resolve(session, start, &downloads)?;
    if !from_lock {
        let installed: Vec<(String, PackageOrigin)> =
            resolved.iter().map(|r| (r.name.clone(), r.origin.clone())).collect();
        let path = session.dir.join("package-lock.yml");
        let text = project::lock_text(&plan.specs, &installed);
        std::fs::write(&path, text).map_err(|e| vec![failed(&path, &e)])?;
        session.say(&format!("wrote {}", path.display()));
    }
    if !lock_only {
        install_all(session, &install, &resolved).map_err(|e| vec![e])?;
    }
    remove(&downloads).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

/// The packages asked for and what they ask for, each once, by name.
fn resolve(session: &Session, specs: Vec<PackageSpec>, downloads: &Path) -> Result<Vec<Resolved>, Vec<Error>> {
    let mut resolved: Vec<Resolved> = Vec::new();
    let mut queue: VecDeque<PackageSpec> = specs.into();
    while let Some(spec) = queue.pop_front() {
        let folder = match &spec.origin {
            PackageOrigin::Local(path) => session.dir.join(path),
            PackageOrigin::Git { .. } => downloads.join(format!("{}", resolved.len())),
        };
        let (origin, folder) = match &spec.origin {
            local @ PackageOrigin::Local(_) => (local.clone(), folder),
            PackageOrigin::Git { url, written, revision, subdirectory } => {
                let commit = clone(session, url, written, revision.as_deref(), &folder).map_err(|e| vec![e])?;
                let origin = PackageOrigin::Git {
                    url: url.clone(),
                    written: written.clone(),
                    revision: Some(commit),
                    subdirectory: subdirectory.clone(),
                };
                (origin, subdirectory.as_ref().map_or(folder.clone(), |sub| folder.join(sub)))
            }
        };
        let unreadable = |errors: Vec<Error>| {
            let name =
                |e: Error| e.clone().with_hint(format!("{} (package {})", e.hint().unwrap_or(""), origin.shown()));
            errors.into_iter().map(name).collect::<Vec<_>>()
        };
        let (name, more) = project::package_project(&folder, session.options(), &session.env).map_err(unreadable)?;
        match resolved.iter().find(|r| r.name == name) {
            Some(first) if same_place(&first.origin, &origin) => continue,
            Some(first) => {
                let message = format!(
                    "package `{name}` is asked for twice, from {} and from {}",
                    describe(&first.origin),
                    describe(&origin)
                );
                return Err(vec![
                    Error::user("duplicate-package", message).with_hint("ask for one of them, everywhere"),
                ]);
            }
            None => {
                resolved.push(Resolved { name, origin, folder });
                queue.extend(more);
            }
        }
    }
    Ok(resolved)
}

fn same_place(a: &PackageOrigin, b: &PackageOrigin) -> bool {
    match (a, b) {
        (PackageOrigin::Local(a), PackageOrigin::Local(b)) => Path::new(a).components().eq(Path::new(b).components()),
        (PackageOrigin::Git { url: a, revision: at, .. }, PackageOrigin::Git { url: b, revision: bt, .. }) => {
            a.trim_end_matches(".git") == b.trim_end_matches(".git") && at == bt
        }
        _ => false,
    }
}

fn describe(origin: &PackageOrigin) -> String {
    match origin {
        PackageOrigin::Git { revision: Some(commit), .. } => format!("{} at {commit}", origin.shown()),
        _ => origin.shown(),
    }
}

/// Clones a repository into `folder` at `revision`; returns the commit.
fn clone(session: &Session, url: &str, shown: &str, revision: Option<&str>, folder: &Path) -> Result<String> {
    // A name that begins with a dash would be taken for an option.
    if url.starts_with('-') || revision.is_some_and(|r| r.starts_with('-')) {
        return Err(Error::user("bad-package", format!("`{shown}` is no address of a repository")));
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
    }
    // A relative path is relative to the project, whatever folder smelt runs in.
    git(session, &session.dir, &["clone", "--quiet", "--", url, &folder.to_string_lossy()], shown)?;
    if let Some(revision) = revision {
        git(session, folder, &["checkout", "--quiet", "--detach", revision, "--"], shown)
            .or_else(|_| {
                git(session, folder, &["checkout", "--quiet", "--detach", &format!("origin/{revision}"), "--"], shown)
            })
            .map_err(|e| e.with_hint(format!("is there a branch, tag or commit `{revision}`?")))?;
    }
    Ok(git(session, folder, &["rev-parse", "HEAD"], shown)?.trim().to_string())
}

fn git(session: &Session, dir: &Path, args: &[&str], shown: &str) -> Result<String> {
    let output = Command::new("git").args(args).current_dir(dir).env("GIT_TERMINAL_PROMPT", "0").output();
    let output = output.map_err(|e| {
        Error::environment("no-git", format!("cannot run git: {e}")).with_hint("install git, or use `local:` packages")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = session.env.redact(String::from_utf8_lossy(&output.stderr).trim());
    let message = format!("git cannot get the package {shown}: {}", said.lines().last().unwrap_or("it says nothing"));
    Err(Error::environment("git", message).with_hint("try the address with `git clone`").permanent())
}

/// Replaces the folder of packages.
fn install_all(session: &Session, install: &Path, resolved: &[Resolved]) -> Result<()> {
    std::fs::create_dir_all(install).map_err(|e| failed(install, &e))?;
    let there = std::fs::read_dir(install).map_err(|e| failed(install, &e))?;
    for entry in there.filter_map(|e| e.ok()).filter(|e| e.file_name() != DOWNLOADS) {
        remove(&entry.path())?;
    }
    for package in resolved {
        let to = install.join(&package.name);
        match &package.origin {
            PackageOrigin::Local(_) => link(&package.folder, &to)?,
            PackageOrigin::Git { .. } => std::fs::rename(&package.folder, &to).map_err(|e| failed(&to, &e))?,
        }
        session.say(&format!("installed {} from {}", package.name, describe(&package.origin)));
    }
    Ok(())
}

/// A local package is a link, so that changing it needs no `deps`, as in dbt; a copy where there are no links.
fn link(from: &Path, to: &Path) -> Result<()> {
    let from = std::fs::canonicalize(from).map_err(|e| failed(from, &e))?;
    #[cfg(unix)]
    if std::os::unix::fs::symlink(&from, to).is_ok() {
        return Ok(());
    }
    copy(&from, to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| failed(to, &e))?;
    for entry in std::fs::read_dir(from).map_err(|e| failed(from, &e))?.filter_map(|e| e.ok()) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map_err(|e| failed(&target, &e))?;
        }
    }
    Ok(())
}

/// Removes a folder or a link, not what a link leads to.
fn remove(path: &Path) -> Result<()> {
    let Ok(kind) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if kind.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(|e| failed(path, &e))
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::environment("deps", format!("{}: {e}", path.display())).permanent()
}
