//! `smelt init` as a new user takes it: the commands it prints are run as they stand, then a model is changed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Ended, Sandbox, eventually, smelt_binary};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs lines in a shell that finds `smelt`, in `sandbox`.
pub fn shell(sandbox: &Sandbox, script: &str) -> Ended {
    shell_in(sandbox.path(), script)
}

/// The same in a folder.
pub fn shell_in(folder: &Path, script: &str) -> Ended {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(folder).stdin(Stdio::null()).env("PATH", path());
    Ended::from(command.output().unwrap())
}

/// The shell's search path, with the folder of the binary under test before everything.
fn path() -> String {
    let folder = smelt_binary().parent().unwrap().to_path_buf();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// The commands that `smelt init` prints, without their comments.
fn printed(ended: &Ended) -> Vec<String> {
    let next = ended.stdout.split("Next:\n").nth(1).unwrap();
    next.lines().map(|line| line.split('#').next().unwrap().trim().to_string()).collect()
}

#[test]
fn what_init_prints_works_as_printed() {
    for folder in ["shop", "my shop"] {
        let sandbox = Sandbox::new();
        let made = sandbox.smelt(&["init", folder]).ok();
        let commands = printed(&made);
        let quoted = if folder == "shop" { "cd shop" } else { "cd 'my shop'" };
        assert_eq!(commands, [quoted, "smelt run", "smelt show gold_customers", "smelt test", "smelt up"]);
        let (last, first) = commands.split_last().unwrap();
        let ended = shell(&sandbox, &first.join("\n")).ok();
        for customer in ["ada", "grace", "edsger", "barbara", "donald"] {
            assert!(ended.stdout.contains(&format!("| {customer} ")), "{}", ended.stdout);
        }
        assert_eq!(ended.stderr, "", "a new project has no warnings");
        assert_eq!(last, "smelt up");
    }
}

#[test]
fn up_shows_new_orders_and_takes_an_edited_query() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    let mut up = sandbox.spawn(&["up"], &[]);
    let orders = || {
        let ended = sandbox.smelt(&["query", "select sum(orders) as n from gold_customers", "--output", "json"]);
        let row: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap_or_default();
        row["n"].as_i64().unwrap_or(0)
    };
    eventually("first totals", PATIENCE, || orders() > 0);
    let first = orders();
    eventually("more orders", PATIENCE, || orders() > first);
    assert!(up.log().contains("rows read"), "{}", up.log());
    // As the README of the project says.
    let query = sandbox.path().join("queries/gold/gold_customers.sql");
    let text = std::fs::read_to_string(&query).unwrap();
    let line = "  sum(amount) as revenue,\n";
    assert!(text.contains(line));
    std::fs::write(&query, text.replace(line, &format!("{line}  avg(amount) as mean_order,\n"))).unwrap();
    eventually("the new column", PATIENCE, || {
        let ended = sandbox.smelt(&["query", "select count(mean_order) as n from gold_customers", "--output", "json"]);
        ended.stdout.trim() == r#"{"n":5}"#
    });
    assert_eq!(up.stop(), Some(0));
    sandbox.smelt(&["test"]).ok();
}

#[test]
fn the_commands_of_the_new_readme_run() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    let readme = std::fs::read_to_string(sandbox.path().join("README.md")).unwrap();
    let mut commands = 0;
    for block in readme.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            shell(&sandbox, line).ok();
            commands += 1;
        }
    }
    assert_eq!(commands, 9);
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let sandbox = Sandbox::with(&[("README.md", "mine"), (".gitignore", "*.log\n")]);
    let made = sandbox.smelt(&["init", "."]).ok();
    assert!(made.stdout.contains("kept what was there: README.md, .gitignore"), "{}", made.stdout);
    assert_eq!(printed(&made)[0], "smelt run", "no cd into the folder one is in");
    assert_eq!(std::fs::read_to_string(sandbox.path().join("README.md")).unwrap(), "mine");
    let again = sandbox.smelt(&["init"]).fails(2, "already holds a project (smelt.yml)");
    assert!(again.stderr.contains("name another folder: smelt init PATH"), "{}", again.stderr);
    sandbox.write("file", "");
    sandbox.smelt(&["init", "file/shop"]).fails(2, "cannot write");
}
