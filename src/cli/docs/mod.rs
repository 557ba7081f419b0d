//! `smelt docs generate` and `smelt docs serve`: the project's documentation as one page that needs no network.
//!
//! The page ([`page`]) is our own and is made of `manifest.json`, `catalog.json` and the results of the last command that ran
//! something (`last_results.json`): it fetches them beside itself, or has them inside with `--static`.

mod page;
mod serve;

pub(super) use serve::serve;

use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;

use super::Exit;
use super::args::DocsGenerate;
use super::session::Session;
use crate::error::Error;
use crate::project::artifacts::{self, RunResult, RunStatus};
use crate::runtime;

/// What of `target/` the page needs, the page first.
const FILES: [&str; 5] = ["index.html", "manifest.json", "catalog.json", "last_results.json", "run_results.json"];

pub(super) async fn generate(session: &Session, options: &DocsGenerate) -> Result<Exit, Vec<Error>> {
    let one = |e: Error| vec![e];
    // What ran last: this command's own results say only that everything compiles.
    let (project, compilation) = match options.no_compile {
        true => {
            let project = Arc::new(session.load()?);
            session.artifacts.loaded(&session.env, &project).map_err(one)?;
            (project, None)
        }
        false => {
            let (project, compilation) = session.compile().await?;
            (project, Some(compilation))
        }
    };
    let target = artifacts::target_dir(&project);
    let last = last_results(&target);
    for compiled in compilation.iter().flat_map(|c| &c.models) {
        session.artifacts.record(RunResult::new(&compiled.model.unique_id, RunStatus::Success).message("compiled"));
    }
    let (tables, errors) = match options.empty_catalog {
        true => (Vec::new(), Vec::new()),
        false => runtime::catalog_tables(&session.env, &project, compilation.as_deref()).await.map_err(one)?,
    };
    let (env, invocation) = (&session.env, &session.artifacts.invocation);
    let catalog = artifacts::catalog(&tables, &errors, invocation, env);
    artifacts::write(&project, "catalog.json", catalog.clone(), env).map_err(one)?;
    artifacts::write(&project, "last_results.json", last.clone(), env).map_err(one)?;
    let page = match options.embed {
        true => {
            let manifest = artifacts::manifest(&project, invocation, env);
            let mut data = serde_json::json!({"manifest": manifest, "catalog": catalog, "results": last});
            artifacts::redact(&mut data, env);
            page::with_data(&data)
        }
        false => page::beside_data(),
    };
    let path = artifacts::write_text(&project, "index.html", &page).map_err(one)?;
    errors.iter().for_each(|e| super::print::error(&env.redact(&format!("warning: not in the catalog: {e}"))));
    session.say(&format!("{} tables and views in the catalog; the page is {}", tables.len(), path.display()));
    if !options.embed {
        session.say("smelt docs serve shows it; with --static it opens from the disk");
    }
    Ok(if errors.is_empty() { Exit::Success } else { Exit::Failed })
}

/// Results of the last command that ran something: `run_results.json`, unless a compile or this command has replaced it.
fn last_results(target: &Path) -> Json {
    let read =
        |name: &str| -> Option<Json> { serde_json::from_str(&std::fs::read_to_string(target.join(name)).ok()?).ok() };
    let ran = |results: &Json| !matches!(results["args"]["which"].as_str(), None | Some("compile" | "generate"));
    read("run_results.json").filter(ran).or_else(|| read("last_results.json")).unwrap_or_default()
}
