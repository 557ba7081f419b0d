//! Packages: what `packages.yml` or `dependencies.yml` asks for, what `package-lock.yml` says was installed, what is there.
//!
//! `smelt deps` installs (the command line's part); loading only reads. The lock file and its hash are dbt's, so that `dbt deps` and
//! `smelt deps` accept each other's work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::LoadOptions;
use super::jinja::{Dispatch, Engine, Globals, Scope};
use super::problems::Problems;
use super::yaml::{self, Node, Text, Value};
use crate::env::Env;
use crate::error::Error;

/// Where packages are installed, below the project.
pub(super) const INSTALL_PATH: &str = "dbt_packages";
const FILES: [&str; 2] = ["packages.yml", "dependencies.yml"];
const LOCK: &str = "package-lock.yml";

/// A package as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSpec {
    pub origin: PackageOrigin,
    /// Its project's name, where a lock file says it.
    pub name: Option<String>,
    /// As dbt writes it into its hash.
    json: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageOrigin {
    /// A folder, relative to the project.
    Local(String),
    Git {
        url: String,
        /// As written, with Jinja: the URL may hold a secret.
        written: String,
        /// A branch, tag or commit; None: the default branch.
        revision: Option<String>,
        subdirectory: Option<String>,
    },
}

/// What a project asks for, and what has been installed for it.
#[derive(Debug)]
pub struct PackagePlan {
    pub specs: Vec<PackageSpec>,
    /// What the lock file holds, when it was written for these specs.
    pub locked: Option<Vec<PackageSpec>>,
    /// Where packages are installed, relative to the project.
    pub install_path: PathBuf,
}

/// Reads what the project in `options.dir` asks for.
pub fn package_plan(options: &LoadOptions, env: &Env) -> Result<PackagePlan, Vec<Error>> {
    let dir = std::path::absolute(&options.dir).map_err(|e| vec![Error::from(e)])?;
    let mut p = Problems::default();
    let globals = Globals {
        project_name: String::new(),
        package: String::new(),
        vars: options.vars.clone(),
        target: Default::default(),
        full_refresh: false,
        started_at: env.now_micros(),
        invocation_id: String::new(),
        env_overrides: Default::default(),
        env: env.clone(),
        answers: None,
        which: String::new(),
        selected: Vec::new(),
    };
    let scope = Scope::reading(&Arc::new(globals));
    let engine = Engine::new(Vec::new(), Dispatch::default(), env, &mut p);
    let specs = declared(&dir, &engine, &scope, &mut p).map(|(_, specs)| specs).unwrap_or_default();
    let lock = lock(&dir, &mut p);
    let locked = lock.filter(|lock| lock.hash == hash(&specs)).map(|lock| lock.specs);
    let project = super::settings::project_node(&dir).map_err(|e| vec![e])?;
    let install_path = match project.get("packages-install-path").or_else(|| project.get("modules-path")) {
        Some(node) => engine.render_yaml(node, &[], &scope, &mut p).text("packages-install-path", &mut p),
        None => Some(INSTALL_PATH.to_string()),
    };
    let install_path = PathBuf::from(install_path.unwrap_or_default());
    match p.errors.is_empty() {
        true => Ok(PackagePlan { specs, locked, install_path }),
        false => Err(p.errors),
    }
}

/// The packages a folder's own project asks for, with its name.
pub fn package_project(
    folder: &Path,
    options: &LoadOptions,
    env: &Env,
) -> Result<(String, Vec<PackageSpec>), Vec<Error>> {
    let node = super::settings::project_node(folder).map_err(|e| vec![e])?;
    let Some(name) = node.get("name").and_then(Node::as_str).map(str::to_string) else {
        let message = format!("the package in {} has no `name` in its project file", folder.display());
        return Err(vec![Error::user("missing-name", message)]);
    };
    let plan = package_plan(&LoadOptions { dir: folder.to_path_buf(), ..options.clone() }, env)?;
    Ok((name, plan.specs))
}

/// The text of the lock file: `installed` names every package with the commit it is at, `asked` is what was asked for.
pub fn lock_text(asked: &[PackageSpec], installed: &[(String, PackageOrigin)]) -> String {
    let quoted = |text: &str| {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | ':'));
        let word = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '.' | '/'));
        match plain && word && !text.ends_with(':') {
            true => text.to_string(),
            false => format!("'{}'", text.replace('\'', "''")),
        }
    };
    let mut text = String::from("packages:\n");
    for (name, origin) in installed {
        let mut entries = vec![("name", quoted(name))];
        match origin {
            PackageOrigin::Local(path) => entries.push(("local", quoted(path))),
            PackageOrigin::Git { written, revision, subdirectory, .. } => {
                entries.push(("git", quoted(written)));
                entries.extend(revision.as_ref().map(|r| ("revision", quoted(r))));
                entries.extend(subdirectory.as_ref().map(|s| ("subdirectory", quoted(s))));
            }
        }
        entries.sort();
        for (i, (key, value)) in entries.iter().enumerate() {
            text.push_str(&format!("  {} {key}: {value}\n", if i == 0 { "-" } else { " " }));
        }
    }
    text.push_str(&format!("sha1_hash: {}\n", hash(asked)));
    text
}

/// The folders of the packages that are there, relative to the project, by name; what is asked for and missing is recorded.
pub(super) fn installed(
    dir: &Path,
    install_path: &str,
    engine: &Engine,
    scope: &Arc<Scope>,
    p: &mut Problems,
) -> Vec<PathBuf> {
    let Some((file, specs)) = declared(dir, engine, scope, p) else { return Vec::new() };
    let lock = lock(dir, p);
    let folder = Path::new(install_path);
    let mut names: Vec<String> = std::fs::read_dir(dir.join(folder))
        .map(|entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|name| !name.starts_with('.') && super::settings::project_node(&dir.join(folder).join(name)).is_ok());
    names.sort();
    let missing: Vec<String> = specs
        .iter()
        .filter(|spec| {
            let name = match &spec.origin {
                PackageOrigin::Local(path) => super::settings::project_node(&dir.join(path))
                    .ok()
                    .and_then(|node| node.get("name").and_then(Node::as_str).map(str::to_string)),
                PackageOrigin::Git { .. } => lock.as_ref().and_then(|lock| lock.name_of(&spec.origin)),
            };
            name.is_none_or(|name| !names.contains(&name))
        })
        .map(|spec| spec.origin.shown())
        .collect();
    if !missing.is_empty() {
        let message =
            format!("{} of {} packages are not installed: {}", missing.len(), specs.len(), missing.join(", "));
        p.error("missing-package", file.span(0, 1), message, "run `smelt deps`");
    } else if lock.is_some_and(|lock| lock.hash != hash(&specs)) {
        let message = format!("{} has changed since packages were installed", file.file.display());
        p.warn("changed-packages", file.span(0, 1), message, "run `smelt deps`");
    }
    names.into_iter().map(|name| folder.join(name)).collect()
}

impl PackageOrigin {
    /// For messages; a URL as it is written, which shows no secret.
    pub fn shown(&self) -> String {
        match self {
            PackageOrigin::Local(path) => path.clone(),
            PackageOrigin::Git { written, subdirectory: Some(sub), .. } => format!("{written} ({sub})"),
            PackageOrigin::Git { written, .. } => written.clone(),
        }
    }
}

/// What packages.yml or dependencies.yml of `dir` asks for, and the file; None when there is neither.
fn declared(
    dir: &Path,
    engine: &Engine,
    scope: &Arc<Scope>,
    p: &mut Problems,
) -> Option<(Arc<Text>, Vec<PackageSpec>)> {
    for name in FILES {
        let Ok(content) = std::fs::read_to_string(dir.join(name)) else { continue };
        let text = Text::new(name, content);
        let Some(root) = p.ok(yaml::parse(&text)) else { continue };
        let Some(node) = root.get("packages") else { continue };
        let specs = node.items("packages", p).iter().filter_map(|item| spec(item, engine, scope, p)).collect();
        return Some((text, specs));
    }
    None
}

fn spec(written: &Node, engine: &Engine, scope: &Arc<Scope>, p: &mut Problems) -> Option<PackageSpec> {
    const KEYS: [&str; 5] = ["git", "local", "revision", "subdirectory", "warn-unpinned"];
    for (key, remedy) in [
        (
            "package",
            "no hub is asked: write git: https://github.com/… with its revision, or copy it and write local: path",
        ),
        ("tarball", "unpack it and write local: path, or write git: with a revision"),
        ("private", "write git: with the repository's full URL"),
    ] {
        if let Some(node) = written.get(key) {
            let message = format!("packages of the kind `{key}` cannot be installed: `{}`", node.shown());
            p.error("unsupported-package", node.span(), message.replace("``", "`"), remedy);
            return None;
        }
    }
    if !written.check_keys("a package", &[&KEYS[..], &["name", "unrendered", "warn_unpinned"]].concat(), p) {
        return None;
    }
    let node = engine.render_yaml(written, &[], scope, p);
    let text = |key: &str, p: &mut Problems| node.get(key).and_then(|n| n.text(key, p));
    let name = text("name", p);
    let origin = match (text("local", p), text("git", p)) {
        (Some(path), None) => PackageOrigin::Local(path),
        (None, Some(url)) => PackageOrigin::Git {
            written: written.get("git").and_then(Node::as_str).unwrap_or(&url).to_string(),
            url,
            revision: text("revision", p),
            subdirectory: text("subdirectory", p),
        },
        _ => {
            p.error("bad-package", written.span(), "a package has `local` or `git`", "write - local: ../shared");
            return None;
        }
    };
    Some(PackageSpec { json: hashed(&node, written), origin, name })
}

/// A package as dbt serialises it before it hashes: every field of its class by name, keys sorted, as Python writes JSON.
fn hashed(node: &Node, written: &Node) -> String {
    let field = |key: &str| node.get(key).map_or(serde_json::Value::Null, Node::json);
    let mut members: Vec<(&str, String)> = match node.get("local") {
        Some(_) => vec![("local", python_json(&field("local")))],
        None => vec![
            ("git", python_json(&field("git"))),
            ("revision", python_json(&field("revision"))),
            ("subdirectory", python_json(&field("subdirectory"))),
            ("warn-unpinned", python_json(&field("warn-unpinned"))),
        ],
    };
    members.push(("unrendered", python_json(&written.json())));
    members.sort();
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}

/// `json.dumps(value, sort_keys=True)`.
fn python_json(value: &serde_json::Value) -> String {
    use serde_json::Value as J;
    match value {
        J::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            let members: Vec<String> =
                sorted.iter().map(|(k, v)| format!("{}: {}", J::from(k.as_str()), python_json(v))).collect();
            format!("{{{}}}", members.join(", "))
        }
        J::Array(items) => format!("[{}]", items.iter().map(python_json).collect::<Vec<_>>().join(", ")),
        J::String(s) => {
            let escape = |c: char| match c.is_ascii() {
                true => c.to_string(),
                false => c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect(),
            };
            J::from(s.as_str()).to_string().chars().map(escape).collect()
        }
        other => other.to_string(),
    }
}

fn hash(specs: &[PackageSpec]) -> String {
    let mut lines: Vec<&str> = specs.iter().map(|s| s.json.as_str()).collect();
    lines.sort_unstable();
    Sha1::digest(lines.join("\n").as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

struct Lock {
    specs: Vec<PackageSpec>,
    hash: String,
}

impl Lock {
    fn name_of(&self, origin: &PackageOrigin) -> Option<String> {
        let place = |origin: &PackageOrigin| match origin {
            PackageOrigin::Local(path) => (path.clone(), None),
            PackageOrigin::Git { written, subdirectory, .. } => (written.clone(), subdirectory.clone()),
        };
        self.specs.iter().find(|s| place(&s.origin) == place(origin))?.name.clone()
    }
}

fn lock(dir: &Path, p: &mut Problems) -> Option<Lock> {
    let text = Text::new(LOCK, std::fs::read_to_string(dir.join(LOCK)).ok()?);
    let root = p.ok(yaml::parse(&text))?;
    let text = |node: &Node, key: &str| {
        node.get(key).map(|n| n.json()).and_then(|v| match v {
            serde_json::Value::String(s) => Some(s),
            serde_json::Value::Null => None,
            other => Some(other.to_string()),
        })
    };
    let items = match root.get("packages").map(|n| &n.value) {
        Some(Value::Seq(items)) => items.as_slice(),
        _ => &[],
    };
    let spec = |node: &Node| {
        let origin = match (text(node, "local"), text(node, "git")) {
            (Some(path), _) => PackageOrigin::Local(path),
            (None, Some(url)) => PackageOrigin::Git {
                written: url.clone(),
                url,
                revision: text(node, "revision"),
                subdirectory: text(node, "subdirectory"),
            },
            // Installed from somewhere else by dbt itself.
            (None, None) => return None,
        };
        Some(PackageSpec { origin, name: text(node, "name"), json: String::new() })
    };
    let hash = text(&root, "sha1_hash").unwrap_or_default();
    Some(Lock { specs: items.iter().filter_map(spec).collect(), hash })
}
