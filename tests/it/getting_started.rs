//! docs/getting-started.md, as a new user takes it: commands are run and files are written, in the order of the page.

use std::path::Path;
use std::time::Duration;

use crate::init::shell_in;
use crate::support::{Sandbox, eventually};

/// A fenced block: its language and its text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut parts = page.split("\n```");
    parts.next();
    while let (Some(block), _) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').unwrap();
        found.push((language.to_string(), format!("{text}\n")));
    }
    found
}

#[test]
fn the_page_works_as_it_stands() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/getting-started.md")).unwrap();
    let sandbox = Sandbox::new();
    let mut folder = sandbox.path().to_path_buf();
    let (mut commands, mut files) = (0, 0);
    let mut inferred = String::new();
    for (language, text) in blocks(&page) {
        let first = text.lines().next().unwrap_or_default();
        let named = first.strip_prefix("-- ").or_else(|| first.strip_prefix("# ")).filter(|n| n.contains('/'));
        match (language.as_str(), named) {
            ("console", _) => {
                for line in text.lines().map(|line| line.strip_prefix("$ ").unwrap()) {
                    commands += 1;
                    match line.strip_prefix("cd ") {
                        Some(to) => folder = folder.join(to),
                        None if line == "smelt up" => up(&sandbox, &folder),
                        None => {
                            let ended = shell_in(&folder, line);
                            assert_eq!(ended.code, Some(0), "{line}\n{}{}", ended.stdout, ended.stderr);
                            if line.starts_with("smelt source infer") {
                                inferred.push_str(&ended.stdout);
                            }
                        }
                    }
                }
            }
            ("sql" | "yaml", Some(name)) => {
                files += 1;
                std::fs::write(folder.join(name), &text).unwrap();
            }
            // What the page shows of the output.
            ("yaml", None) => text.lines().for_each(|line| assert!(inferred.contains(line), "{line}\n{inferred}")),
            _ => {}
        }
    }
    assert!(commands >= 30 && files == 4, "{commands} commands, {files} files");
    let shown = shell_in(&folder, "smelt query 'select paid from bronze_payments order by paid' --output csv").ok();
    assert_eq!(shown.stdout.trim(), "paid\n7.00\n12.50");
    // The error that the page shows is what is said.
    let query = folder.join("queries/gold/gold_customers.sql");
    let text = std::fs::read_to_string(&query).unwrap();
    std::fs::write(&query, text.replace("sum(amount)", "sum(amout)")).unwrap();
    let said = shell_in(&folder, "smelt compile").fails(2, "error[unknown-column]");
    assert!(page.contains(said.stderr.trim_end()), "{}", said.stderr);
}

/// Runs until orders have arrived, as somebody who watches does.
fn up(sandbox: &Sandbox, folder: &Path) {
    let mut up = sandbox.spawn(&["up", "--project-dir", folder.to_str().unwrap()], &[]);
    eventually("up reads orders", Duration::from_secs(60), || up.log().contains("rows read"));
    assert_eq!(up.stop(), Some(0));
}
