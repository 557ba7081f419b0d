//! `{% docs name %} … {% enddocs %}` in Markdown files, and `{{ doc('name') }}` in descriptions.
//!
//! Descriptions are resolved in the YAML tree, before anything reads it: so every description there is may refer to a block.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::inventory::DocsBlock;
use super::problems::{Problems, suggest};
use super::yaml::{Entry, Node, Text, Value};
use crate::error::Span;

static TAGS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{%[-+]?\s*(?:docs\s+([A-Za-z_][A-Za-z0-9_]*)|enddocs)\s*[-+]?%\}").ok());
static CALLS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"\{\{-?\s*doc\(\s*['"]([^'"]*)['"]\s*(?:,\s*['"]([^'"]*)['"]\s*)?\)\s*-?\}\}"#).ok());

/// Every block of a project, by name.
#[derive(Debug, Default)]
pub(super) struct DocsBlocks(Vec<(DocsBlock, Span)>);

impl DocsBlocks {
    /// The blocks of Markdown files; a name that stands twice and a block that never ends are recorded.
    pub fn read(files: &[Arc<Text>], p: &mut Problems) -> Self {
        let mut blocks = DocsBlocks::default();
        for text in files {
            blocks.read_file(text, p);
        }
        blocks
    }

    fn read_file(&mut self, text: &Arc<Text>, p: &mut Problems) {
        let Some(tags) = TAGS.as_ref() else { return };
        let mut open: Option<(&str, std::ops::Range<usize>)> = None;
        for found in tags.captures_iter(&text.content) {
            let tag = found.get(0).map_or(0..0, |m| m.range());
            match (found.get(1), open.take()) {
                (Some(name), None) => open = Some((name.as_str(), tag)),
                (None, Some((name, start))) => {
                    let block = DocsBlock {
                        name: name.to_string(),
                        path: text.file.clone(),
                        text: text.content[start.end..tag.start].trim().to_string(),
                    };
                    self.add(block, text.span(start.start, start.len()), p);
                }
                (Some(_), Some((name, _))) => {
                    let message = format!("docs block `{name}` has not ended here");
                    p.error("docs-block", text.span(tag.start, tag.len()), message, "write {% enddocs %} before it");
                    return;
                }
                (None, None) => {
                    let message = "no docs block begins before this end";
                    p.error(
                        "docs-block",
                        text.span(tag.start, tag.len()),
                        message,
                        "write {% docs name %} … {% enddocs %}",
                    );
                }
            }
        }
        if let Some((name, tag)) = open {
            let message = format!("docs block `{name}` never ends");
            p.error("docs-block", text.span(tag.start, tag.len()), message, "write {% enddocs %} after its text");
        }
    }

    fn add(&mut self, block: DocsBlock, span: Span, p: &mut Problems) {
        match self.0.iter().find(|(b, _)| b.name == block.name) {
            Some((first, _)) => {
                let message = format!("docs block `{}` is defined twice", block.name);
                let hint = format!("it is also in {}: rename one of them", first.path.display());
                p.error("duplicate-docs", span, message, hint);
            }
            None => self.0.push((block, span)),
        }
    }

    pub fn into_blocks(self) -> Vec<DocsBlock> {
        self.0.into_iter().map(|(block, _)| block).collect()
    }

    /// `node` with every `doc()` in a `description` replaced by its block; an unknown block is recorded.
    pub fn resolve(&self, node: Node, p: &mut Problems) -> Node {
        let value = match node.value {
            Value::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|entry| match (entry.key.as_str(), &entry.value.value) {
                        ("description", Value::Str(text)) => {
                            let value = Value::Str(self.text(text, &entry.value, p));
                            Entry { value: Node { value, ..entry.value }, ..entry }
                        }
                        _ => Entry { value: self.resolve(entry.value, p), ..entry },
                    })
                    .collect(),
            ),
            Value::Seq(items) => Value::Seq(items.into_iter().map(|item| self.resolve(item, p)).collect()),
            other => other,
        };
        Node { value, ..node }
    }

    fn text(&self, text: &str, node: &Node, p: &mut Problems) -> String {
        let Some(calls) = CALLS.as_ref() else { return text.to_string() };
        calls
            .replace_all(text, |call: &regex::Captures<'_>| {
                // `doc('package', 'name')` names the block last.
                let name = call.get(2).or(call.get(1)).map_or("", |m| m.as_str());
                if let Some((block, _)) = self.0.iter().find(|(b, _)| b.name == name) {
                    return block.text.clone();
                }
                let hint = suggest(name, self.0.iter().map(|(b, _)| b.name.as_str()), "docs blocks");
                p.error("unknown-docs", node.span(), format!("no docs block `{name}`"), hint);
                String::new()
            })
            .into_owned()
    }
}
