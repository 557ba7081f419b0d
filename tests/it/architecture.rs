//! The shape of the source tree: imports go one way, libraries stay where they belong, files fit in a head.
//!
//! The scanner knows just enough of Rust to be exact about paths: comments, strings and characters are blanked first, then
//! every `crate::` and every `super::` chain that reaches the crate's root is followed, through nested `use` groups.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules from left to right; a module imports only modules of earlier groups. Mates in a group never import each other.
const ORDER: &[&[&str]] = &[
    &["error"],
    &["types"],
    &["env"],
    &["decode", "state", "kafka"],
    &["project", "lake"],
    &["source", "functions"],
    &["plan"],
    &["operators"],
    &["runtime"],
    &["cli"],
];

/// Crates that one module alone may name.
const OWNED: &[(&str, &str)] = &[("rdkafka", "kafka"), ("minijinja", "project"), ("clap", "cli")];

/// Lines of a file without its tests.
const MAX_LINES: usize = 700;

/// Files that are longer, and must be split: the list only ever gets shorter.
const TO_SPLIT: &[&str] = &[];

/// One source file, relative to `src`.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The crate's module it belongs to; None for lib.rs and main.rs.
    fn module(&self) -> Option<&str> {
        let first = self.path.components().next()?.as_os_str().to_str()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    /// How many `super::` lead from its items to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.components().count();
        if self.path.file_name().is_some_and(|f| f == "mod.rs") { parts - 1 } else { parts }
    }
}

#[test]
fn imports_go_one_way() {
    let mut violations = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = rank(module) else {
            violations.push(format!("src/{}: module `{module}` is not in ORDER", source.path.display()));
            continue;
        };
        for (line, used) in crate_paths(&source.text, source.depth()) {
            let allowed = used == module || rank(&used).is_none_or(|r| r < own);
            if !allowed {
                violations.push(format!("src/{}:{line}: `{module}` imports `{used}`", source.path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "a module imports only modules to its left:\n{}", violations.join("\n"));
}

#[test]
fn lib_lists_the_modules_in_that_order() {
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let listed: Vec<usize> = lib
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(|m| rank(m).unwrap_or_else(|| panic!("module `{m}` is not in ORDER")))
        .collect();
    assert!(listed.is_sorted(), "src/lib.rs lists its modules in another order than ORDER");
}

#[test]
fn libraries_stay_behind_their_module() {
    let mut violations = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let code = blank_comments_and_text(&source.text);
        for (library, owner) in OWNED {
            if module == *owner {
                continue;
            }
            for (offset, _) in code.match_indices(&format!("{library}::")) {
                if !code[..offset].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    let line = line_of(&code, offset);
                    violations.push(format!("src/{}:{line}: only `{owner}` knows {library}", source.path.display()));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn files_fit_in_a_head() {
    let long: Vec<String> = sources()
        .filter(|s| !is_test_file(&s.path) && !TO_SPLIT.iter().any(|f| s.path == Path::new(f)))
        .filter_map(|s| {
            let lines = s.text.lines().take_while(|l| l.trim_end() != "#[cfg(test)]").count();
            (lines > MAX_LINES).then(|| format!("src/{}: {lines} lines without its tests", s.path.display()))
        })
        .collect();
    assert!(long.is_empty(), "one subject per file, under {MAX_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn modules_narrate_themselves() {
    let silent: Vec<String> = sources()
        .filter(|s| !is_test_file(&s.path))
        .filter(|s| !s.text.trim_start().starts_with("//!"))
        .map(|s| format!("src/{}", s.path.display()))
        .collect();
    assert!(silent.is_empty(), "these files do not say what they are for:\n{}", silent.join("\n"));
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|group| group.contains(&module))
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

fn sources() -> impl Iterator<Item = Source> {
    let mut folders = vec![src()];
    let mut files = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.insert(path);
            }
        }
    }
    files.into_iter().map(|path| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(src()).unwrap().to_path_buf(),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// (line, first segment below the crate's root) of every path in `text`, whose items stand `depth` modules below the root.
fn crate_paths(text: &str, depth: usize) -> Vec<(usize, String)> {
    let code = blank_comments_and_text(text);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next_root(&code, at, depth) {
        at = start;
        let rest = &code[start..];
        let trimmed = rest.trim_start();
        let line = line_of(&code, start + rest.len() - trimmed.len());
        let names = if let Some(group) = trimmed.strip_prefix('{') { group_heads(group) } else { vec![ident(trimmed)] };
        found.extend(names.into_iter().filter(|n| !n.is_empty()).map(|n| (line, n)));
    }
    found
}

/// Where the next path below the crate's root starts, at or after `from`: behind `crate::`, or behind a chain of `super::` that
/// climbs to the root.
fn next_root(code: &str, from: usize, depth: usize) -> Option<usize> {
    let crate_at = find_word(code, from, "crate::").map(|i| i + "crate::".len());
    let climb = "super::".repeat(depth);
    let super_at = if depth == 0 { None } else { find_word(code, from, &climb).map(|i| i + climb.len()) };
    match (crate_at, super_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn find_word(code: &str, from: usize, word: &str) -> Option<usize> {
    code[from..].match_indices(word).map(|(i, _)| from + i).find(|&i| {
        let before = &code[..i];
        // `$crate::` counts, `my_crate::` does not, and `super::super::` is one chain.
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with("super::")
    })
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First segments of the members of a `use` group, given the text behind its brace.
fn group_heads(text: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut expects_head = true;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_head = true,
            c if expects_head && !c.is_whitespace() => {
                heads.push(ident(&text[i..]));
                expects_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// The same text, with everything inside comments, strings and character literals replaced by spaces: offsets and lines stay.
fn blank_comments_and_text(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut i = 0;
    while i < chars.len() {
        let end = match (chars[i], chars.get(i + 1)) {
            ('/', Some('/')) => (i..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len()),
            ('/', Some('*')) => block_comment_end(&chars, i),
            ('"', _) => string_end(&chars, i),
            ('r', Some('"' | '#')) if i == 0 || !is_word(chars[i - 1]) => raw_string_end(&chars, i),
            ('\'', _) => char_end(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| blank(*c)));
            i = end;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier (`r#type`) is no string.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    (open + 1..chars.len())
        .find(|&i| chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes)
        .map_or(chars.len(), |i| i + 1 + hashes)
}

/// `'x'`, `'\n'`, `'\u{1F}'`; a lifetime is no character.
fn char_end(chars: &[char], start: usize) -> usize {
    match chars.get(start + 1) {
        Some('\\') => (start + 3..chars.len()).find(|&i| chars[i] == '\'').map_or(chars.len(), |i| i + 1),
        Some(_) if chars.get(start + 2) == Some(&'\'') => start + 3,
        _ => start,
    }
}

/// The scanner itself: what it must find, and what it must not.
mod scanner {
    use super::*;

    fn used(text: &str, depth: usize) -> Vec<String> {
        crate_paths(text, depth).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn finds_paths_in_plain_uses_groups_and_expressions() {
        let text = "use crate::lake::Table;\nuse crate::{error::{Error, Result}, plan,\n  types::*};\nlet x = crate::env::Env::real();";
        assert_eq!(used(text, 2), ["lake", "error", "plan", "types", "env"]);
    }

    #[test]
    fn finds_chains_of_super_that_reach_the_root() {
        assert_eq!(used("use super::super::lake::Table; use super::sibling::X;", 2), ["lake"]);
        assert_eq!(used("use super::lake::Table;", 1), ["lake"]);
    }

    #[test]
    fn reads_past_comments_strings_and_characters() {
        let text = "// crate::a\n/* crate::b /* crate::c */ */ \"crate::d \\\" crate::e\" r#\"crate::f\"# '\"' crate::g <'a> '\\'' r#crate";
        assert_eq!(used(text, 1), ["g"]);
    }

    #[test]
    fn names_the_line() {
        assert_eq!(crate_paths("\n\nuse crate::plan;", 1), [(3, "plan".to_string())]);
    }
}
