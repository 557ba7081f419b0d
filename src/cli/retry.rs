//! `smelt retry`: what failed, again.
//!
//! A smelt that runs on this lake is asked to try its stopped models again, which it does by opening from the lake. Where none
//! runs, the last command is repeated with its flags, for the nodes that failed or were skipped: `run_results.json` has both.

use clap::CommandFactory;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;

use super::args::{Cli, Global};
use super::session::Session;
use crate::error::{Error, Result};
use crate::project;
use crate::runtime;

/// Statuses that are worth another attempt.
const AGAIN: [&str; 5] = ["error", "fail", "skipped", "runtime error", "partial success"];
/// Commands that can be repeated.
const COMMANDS: [&str; 7] = ["run", "build", "test", "snapshot", "seed", "compile", "run-operation"];
/// Flags of the last command that say nothing about this one: which nodes is known by name now, and the rest is this
/// command line's.
const LEFT_OUT: [&str; 11] = [
    "select",
    "exclude",
    "selector",
    "resource_type",
    "exclude_resource_type",
    "indirect_selection",
    "project_dir",
    "log_format",
    "quiet",
    "take_over",
    "reset_source",
];

/// What a retry comes to.
pub(super) enum Retry {
    /// Said and done.
    Done,
    /// This command line is to be run.
    Run(Box<Cli>),
}

pub(super) async fn prepare(session: &Session, global: &Global, state: Option<&Path>) -> Result<Retry, Vec<Error>> {
    let project = session.load()?;
    if let Some(running) = runtime::ask_to_retry(&session.env, &project).await.map_err(|e| vec![e])? {
        session.say(&format!("asked process {running}, which runs on this lake, to try its stopped models again"));
        return Ok(Retry::Done);
    }
    let dir = state.map_or_else(|| session.dir.join("target"), |state| session.dir.join(state));
    let Some(results) = project::artifact(&dir, "run_results.json").map_err(|e| vec![e])? else {
        let message = format!("no previous run: {} has no run_results.json", dir.display());
        return Err(vec![Error::user("no-state", message).with_hint("`smelt run`, `build` or `test` writes it")]);
    };
    let ids = failed(&results);
    // What a schedule asked for can be had by hand.
    let which = match results["args"]["which"].as_str().unwrap_or_default() {
        "up" => "build",
        which => which,
    };
    if !COMMANDS.contains(&which) {
        let message = format!("the last command was `{which}`, which cannot be repeated");
        return Err(vec![Error::user("no-retry", message).with_hint(format!("it can be: {}", COMMANDS.join(", ")))]);
    }
    if ids.is_empty() {
        session.say(&format!("Nothing to do: nothing failed in the last `smelt {which}`"));
        return Ok(Retry::Done);
    }
    let mut cli = Cli::read(arguments(which, &results["args"])).map_err(|e| {
        let message = format!("the flags of the last `smelt {which}` are not understood: {e}");
        vec![Error::user("no-retry", message).with_hint("run the command itself again")]
    })?;
    cli.global = overridden(global, cli.global);
    match cli.command.selection_mut() {
        Some(selection) => selection.ids = Some(ids),
        // It has one node.
        None if which == "run-operation" => {}
        None => return Err(vec![Error::internal(format!("`{which}` has no selection"))]),
    }
    Ok(Retry::Run(Box::new(cli)))
}

/// Unique ids of the nodes that did not succeed.
fn failed(results: &Json) -> BTreeSet<String> {
    let results = results["results"].as_array().map_or(&[][..], Vec::as_slice);
    let again = |r: &&Json| r["status"].as_str().is_some_and(|s| AGAIN.contains(&s));
    results.iter().filter(again).filter_map(|r| r["unique_id"].as_str().map(str::to_string)).collect()
}

/// Of this command line where it says something, else of the last.
fn overridden(now: &Global, then: Global) -> Global {
    Global {
        project_dir: now.project_dir.clone(),
        target: now.target.clone().or(then.target.clone()),
        vars: now.vars.clone().or(then.vars.clone()),
        lake: now.lake.clone().or(then.lake.clone()),
        profile: now.profile.clone().or(then.profile.clone()),
        profiles_dir: now.profiles_dir.clone().or(then.profiles_dir.clone()),
        warn_error: now.warn_error || then.warn_error,
        threads: now.threads.or(then.threads),
        quiet: now.quiet,
        log_format: now.log_format,
        fail_fast: now.fail_fast || then.fail_fast,
        ..then
    }
}

/// The last command line, as far as this version has its flags.
fn arguments(which: &str, args: &Json) -> Vec<String> {
    let root = Cli::command();
    let mut line = vec!["smelt".to_string(), which.to_string()];
    let command = root.get_subcommands().find(|c| c.get_name() == which);
    let known =
        root.get_arguments().filter(|a| a.is_global_set()).chain(command.into_iter().flat_map(|c| c.get_arguments()));
    for argument in known {
        let id = argument.get_id().as_str();
        let Some(value) = args.get(id) else { continue };
        let Some(long) = argument.get_long() else {
            // An argument without a flag stands for itself: the macro of an operation.
            line.extend(value.as_str().map(str::to_string));
            continue;
        };
        if LEFT_OUT.contains(&id) || id.starts_with("no_") {
            continue;
        }
        let flag = format!("--{long}");
        let takes_value = argument.get_action().takes_values();
        let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_string);
        match value {
            Json::Bool(true) if !takes_value => line.push(flag),
            Json::Null | Json::Bool(_) => {}
            Json::Array(items) if items.is_empty() => {}
            Json::Array(items) => {
                line.push(flag);
                line.extend(items.iter().map(text));
            }
            Json::Object(members) if members.is_empty() => {}
            other if takes_value => line.push(format!("{flag}={}", text(other))),
            _ => {}
        }
    }
    line
}
