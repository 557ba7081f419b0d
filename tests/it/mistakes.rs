//! Mistakes of a new user in YAML, Jinja, SQL and flags, and what is said of each: the cases stand in `mistakes.txt`.
//!
//! A case is `##### title`, files over a project that `smelt init` made (`=== path`), and `=== smelt ARGS → exit code` with what stderr says.
//! `SMELT_UPDATE_GOLDEN=1` writes what is said now: read the difference before you commit it.

use regex::Regex;
use std::fmt::Write;
use std::path::Path;

use crate::init::shell_in;
use crate::support::Sandbox;

struct Case {
    title: String,
    files: Vec<(String, String)>,
    command: String,
    expected: String,
}

fn cases(text: &str) -> Vec<Case> {
    let case = |part: &str| {
        let (title, rest) = part.split_once('\n').unwrap();
        let mut case =
            Case { title: title.trim().into(), files: Vec::new(), command: String::new(), expected: String::new() };
        for section in rest.split("=== ").skip(1) {
            let (name, content) = section.split_once('\n').unwrap_or((section, ""));
            match name.split_once(" → ") {
                Some((command, code)) => {
                    (case.command, case.expected) = (command.to_string(), format!("→ {code}\n{}", content.trim_end()));
                }
                None if name.starts_with("smelt ") => case.command = name.to_string(),
                None => case.files.push((name.to_string(), content.trim_end_matches('\n').to_string() + "\n")),
            }
        }
        case
    };
    text.split("##### ").skip(1).map(case).collect()
}

/// Exit code and stderr, with what differs from run to run taken out.
fn said(case: &Case) -> String {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init", "--quiet"]).ok();
    for (path, text) in &case.files {
        sandbox.write(path, text);
    }
    let ended = shell_in(sandbox.path(), &case.command);
    let text = ended.stderr.replace(&*sandbox.path().to_string_lossy(), "DIR");
    let uuid = Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap();
    format!("→ {}\n{}", ended.code.unwrap_or(-1), uuid.replace_all(text.trim_end(), "UUID")).trim_end().to_string()
}

#[test]
fn what_is_said_of_mistakes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let cases = cases(&text);
    assert!(cases.len() >= 70);
    let mut now = String::new();
    let mut different = Vec::new();
    for case in &cases {
        let said = said(case);
        if said != case.expected.trim_end() {
            different.push(format!("##### {}\n{said}\n--- expected\n{}", case.title, case.expected));
        }
        writeln!(now, "##### {}", case.title).unwrap();
        for (path, text) in &case.files {
            write!(now, "=== {path}\n{text}").unwrap();
        }
        writeln!(now, "=== {} {said}\n", case.command).unwrap();
    }
    if std::env::var_os("SMELT_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, now).unwrap();
        return;
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

/// Whatever goes wrong, the message says where it is or what to do.
#[test]
fn every_error_has_a_place_or_a_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes.txt");
    for case in cases(&std::fs::read_to_string(path).unwrap()) {
        let helps = ["  --> ", "  = ", "did you mean", "tip:", "For more information", "possible values"];
        let helped = helps.iter().any(|help| case.expected.contains(help)) || case.expected.starts_with("→ 0");
        assert!(helped, "{}\n{}", case.title, case.expected);
        for raw in ["Internal error", "DataFusion", "Utf8", "Ident {", "Span("] {
            assert!(!case.expected.contains(raw), "{}: `{raw}` is no user's word\n{}", case.title, case.expected);
        }
    }
}
