//! The texts a project is made of: files below its folders, and the parts of files that are queries of their own.

use regex::Regex;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::problems::Problems;
use super::yaml::{Node, Text};
use crate::error::Error;

/// The `{% snapshot name %} … {% endsnapshot %}` blocks of a file, each with its name, as a text in which everything else is blank: its
/// positions are the file's.
pub(super) fn snapshot_blocks(text: &Arc<Text>) -> Result<Vec<(String, Arc<Text>)>, Error> {
    static TAGS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%[-+]?\s*(?:snapshot\s+([A-Za-z_][A-Za-z0-9_]*)|endsnapshot)\s*[-+]?%\}").ok());
    let Some(tags) = TAGS.as_ref() else { return Err(Error::internal("the expression for snapshot tags is broken")) };
    let content = &text.content;
    let mut blocks = Vec::new();
    let mut open: Option<(String, Range<usize>)> = None;
    let stray = |tag: Range<usize>, message: &str| {
        Err(Error::user("snapshot-block", message)
            .with_span(text.span(tag.start, tag.len()))
            .with_hint("write {% snapshot name %} … {% endsnapshot %}"))
    };
    for found in tags.captures_iter(content) {
        let tag = found.get(0).map_or(0..0, |m| m.range());
        match (found.get(1), open.take()) {
            (Some(name), None) => open = Some((name.as_str().to_string(), tag)),
            (None, Some((name, start))) => {
                let blank = |part: &str| -> String {
                    part.chars()
                        .flat_map(|c| std::iter::repeat_n(if c == '\n' { '\n' } else { ' ' }, c.len_utf8()))
                        .collect()
                };
                let inner = start.end..tag.start;
                let (before, after) = (blank(&content[..inner.start]), blank(&content[inner.end..]));
                let block = format!("{before}{}{after}", &content[inner]);
                blocks.push((name, text.part(block)));
            }
            (Some(_), Some((name, _))) => return stray(tag, &format!("snapshot `{name}` has not ended here")),
            (None, None) => return stray(tag, "no snapshot begins before this end"),
        }
    }
    match open {
        Some((name, tag)) => stray(tag, &format!("snapshot `{name}` never ends")),
        None => Ok(blocks),
    }
}

/// The text without its `{% materialization … %}` blocks, each of which is noted: how tables are made is not for macros here.
pub(super) fn without_materializations(text: &Arc<Text>, p: &mut Problems) -> Arc<Text> {
    static BLOCK: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let block = r"(?s)\{%[-+]?\s*materialization\s+([A-Za-z_]\w*).*?\{%[-+]?\s*endmaterialization\s*[-+]?%\}";
        Regex::new(block).ok()
    });
    let Some(block) = BLOCK.as_ref().filter(|_| text.content.contains("materialization")) else {
        return Arc::clone(text);
    };
    let mut content = text.content.to_string();
    for found in block.captures_iter(&text.content) {
        let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else { continue };
        let message = format!("the custom materialization `{}` has no effect", name.as_str());
        let hint = "smelt makes tables its own way: give its models another `materialized`";
        p.warn("custom-materialization", text.span(name.start(), name.len()), message, hint);
        let blank: String = whole.as_str().bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        content.replace_range(whole.range(), &blank);
    }
    text.part(content)
}

/// The query of a snapshot declared by its `relation:`, in a text in which `ref(…)` stands where the YAML has it.
pub(super) fn relation_query(relation: &Node, p: &mut Problems) -> Option<Arc<Text>> {
    let written = relation.text("relation", p)?;
    let call = written.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
    if !(call.starts_with("ref(") || call.starts_with("source(")) {
        let message = format!("`relation` must be ref('…') or source('…', '…'), found `{written}`");
        p.error("bad-relation", relation.span(), message, "write relation: ref('silver_users')");
        return None;
    }
    let line = relation.text.content.lines().nth(relation.mark.line - 1).unwrap_or_default();
    let column = line.char_indices().nth(relation.mark.column - 1).map_or(line.len(), |(at, _)| at);
    let column = line[column..].find(call).map_or(column, |at| column + at);
    let mut query = "\n".repeat(relation.mark.line.saturating_sub(2));
    query.push_str("select * from\n");
    query.push_str(&" ".repeat(column.saturating_sub(2)));
    query.push_str(&format!("{{{{{call}}}}}"));
    Some(Text::new(relation.text.file.clone(), query))
}

pub(super) fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A path of the project file without `./` and a trailing slash.
pub(super) fn plain(path: &str) -> PathBuf {
    Path::new(path).components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

/// The files with `extension` below `paths`, by name, each with the folders between the path and the file. Hidden files
/// and folders are not looked at; a path that does not exist has no files.
pub(super) fn files(dir: &Path, paths: &[String], extension: &str, p: &mut Problems) -> Vec<(Arc<Text>, Vec<String>)> {
    let mut found = Vec::new();
    for path in paths {
        let root = plain(path);
        walk(dir, &root, &mut Vec::new(), extension, &mut found, p);
    }
    found
}

fn walk(
    dir: &Path,
    folder: &Path,
    below: &mut Vec<String>,
    extension: &str,
    found: &mut Vec<(Arc<Text>, Vec<String>)>,
    p: &mut Problems,
) {
    let unreadable = |path: &Path, e: std::io::Error| {
        Error::environment("unreadable-file", format!("cannot read {}: {e}", path.display())).permanent()
    };
    let entries = match std::fs::read_dir(dir.join(folder)) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return,
        Err(e) => return p.errors.push(unreadable(folder, e)),
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| !n.starts_with('.')).collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        if dir.join(&path).is_dir() {
            below.push(name);
            walk(dir, &path, below, extension, found, p);
            below.pop();
        } else if path.extension().is_some_and(|e| e == extension) {
            match std::fs::read(dir.join(&path)).map(String::from_utf8) {
                Ok(Ok(content)) => found.push((Text::new(path, content), below.clone())),
                Ok(Err(_)) => p.errors.push(Error::user("not-utf8", format!("{} is not UTF-8 text", path.display()))),
                Err(e) => p.errors.push(unreadable(&path, e)),
            }
        }
    }
}
