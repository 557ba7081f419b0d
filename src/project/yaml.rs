//! YAML that remembers where everything stands.
//!
//! A file's text is parsed into [`Node`]s, each with its line and column; the typed readers on [`Node`] say what was
//! expected, at that place, when a value is something else. Nothing after this file handles YAML syntax.
//!
//! Invariants: mapping order is the order written; a key stands once in its mapping (`<<` merges first, then own keys win).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan, Tag};

use crate::error::{Error, Result, Span};

/// A file of the project and its content.
#[derive(Debug)]
pub(super) struct Text {
    /// Relative to the project.
    pub file: PathBuf,
    pub content: Arc<str>,
    /// The whole file, where `content` is a part of it with blanks around.
    whole: Option<Arc<str>>,
    /// Those of `content`, once one is asked for.
    lines: OnceLock<Vec<Arc<str>>>,
}

impl Text {
    pub fn new(file: impl Into<PathBuf>, content: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Text { file: file.into(), content: content.into(), whole: None, lines: OnceLock::new() })
    }

    /// A part of this text: `content` has it at its place, and blanks everywhere else.
    pub fn part(&self, content: String) -> Arc<Self> {
        debug_assert_eq!(content.len(), self.content.len());
        let whole = Some(Arc::clone(&self.content));
        Arc::new(Text { file: self.file.clone(), content: content.into(), whole, lines: OnceLock::new() })
    }

    /// The text of 1-based line `number`; empty where there is none.
    fn line(&self, number: usize) -> Arc<str> {
        let lines = self.lines.get_or_init(|| self.content.lines().map(Arc::from).collect());
        number.checked_sub(1).and_then(|at| lines.get(at)).cloned().unwrap_or_default()
    }

    /// What a person sees in the file; places in it are those of `content`.
    pub fn shown(&self) -> &Arc<str> {
        self.whole.as_ref().unwrap_or(&self.content)
    }

    /// The span of `len` bytes at byte `offset`.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        Span::at(self.file.clone(), self.shown(), offset, len)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub value: Value,
    pub mark: Mark,
    pub text: Arc<Text>,
    /// What stands in the file, where `value` is what its Jinja gives.
    pub written: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
    /// Its Jinja failed: the error is recorded, and nothing more is said about the value.
    Failed,
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_mark: Mark,
    pub value: Node,
}

/// 1-based line and column, both in characters, and a width in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

impl Node {
    pub fn span(&self) -> Span {
        self.span_of(self.mark)
    }

    /// The span of another mark of the same file.
    pub fn span_of(&self, mark: Mark) -> Span {
        let (line, column) = (mark.line.max(1), mark.column.max(1));
        let text = self.text.line(line);
        let width = text.trim_end().chars().skip(column - 1).take(mark.width).count().max(1);
        Span { file: self.text.file.clone(), line, column, width, text }
    }

    /// The value under `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// The entries of a mapping; none when it is something else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// What it is, for messages: `a list`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Failed => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The same as it is written in the file: Jinja as text.
    pub fn written_json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match (&self.written, &self.value) {
            (Some(text), _) => J::String(text.to_string()),
            (None, Value::Seq(items)) => J::Array(items.iter().map(Node::written_json).collect()),
            (None, Value::Map(entries)) => {
                J::Object(entries.iter().map(|e| (e.key.clone(), e.value.written_json())).collect())
            }
            (None, _) => self.json(),
        }
    }

    /// The value as JSON, positions forgotten.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match &self.value {
            Value::Null | Value::Failed => J::Null,
            Value::Bool(b) => J::Bool(*b),
            Value::Int(i) => J::from(*i),
            Value::Float(f) => J::from(*f),
            Value::Str(s) => J::String(s.clone()),
            Value::Seq(items) => J::Array(items.iter().map(Node::json).collect()),
            Value::Map(entries) => J::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect()),
        }
    }
}

/// Parses the one document of a YAML file. An empty file is `Null`.
pub(super) fn parse(text: &Arc<Text>) -> Result<Node> {
    let content = text.content.strip_prefix('\u{feff}').unwrap_or(&text.content);
    let mut builder = Builder { text, anchors: BTreeMap::new(), stack: Vec::new(), root: None, documents: 0 };
    for event in Parser::new_from_str(content) {
        match event {
            Ok((event, span)) => builder.event(event, span)?,
            Err(e) => return Err(builder.syntax(*e.marker(), e.info())),
        }
    }
    Ok(builder.root.unwrap_or(Node {
        value: Value::Null,
        mark: Mark { line: 1, column: 1, width: 1 },
        text: Arc::clone(text),
        written: None,
    }))
}

struct Builder<'a> {
    text: &'a Arc<Text>,
    anchors: BTreeMap<usize, Node>,
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

/// A collection whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    /// A mapping's key that waits for its value.
    key: Option<(String, Mark)>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: YamlSpan) -> Result<()> {
        let mark = mark(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Error::user("yaml", "a second YAML document in one file")
                        .with_span(self.span(mark))
                        .with_hint("split the file at `---`"));
                }
            }
            Event::SequenceStart(anchor, _) => self.open(Value::Seq(Vec::new()), mark, anchor)?,
            Event::MappingStart(anchor, _) => self.open(Value::Map(Vec::new()), mark, anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    self.add(merged(open.node), open.anchor)?;
                }
            }
            Event::Scalar(value, style, anchor, tag) => {
                let value = scalar(&value, style, tag.as_deref());
                self.add(Node { value, mark, text: Arc::clone(self.text), written: None }, anchor)?;
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(mut node) => {
                    node.mark = mark;
                    self.add(node, 0)?;
                }
                None => return Err(self.syntax(span.start, "alias of an unknown anchor")),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, value: Value, mark: Mark, anchor: usize) -> Result<()> {
        let waits_for_key =
            matches!(self.stack.last(), Some(Open { node: Node { value: Value::Map(_), .. }, key: None, .. }));
        if waits_for_key {
            // `key: {{ var('x') }}` without quotes is a mapping in a mapping to YAML.
            let span = self.span(mark);
            let error = Error::user("yaml", "a mapping or list cannot be a key").with_span(span.clone());
            return Err(if span.text.contains("{{") {
                error.with_hint("put the Jinja expression in quotes: \"{{ … }}\"")
            } else {
                error.with_hint("put the key in quotes")
            });
        }
        self.stack.push(Open {
            node: Node { value, mark, text: Arc::clone(self.text), written: None },
            anchor,
            key: None,
        });
        Ok(())
    }

    fn add(&mut self, mut node: Node, anchor: usize) -> Result<()> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Seq(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => {
                    let key = match node.value {
                        Value::Str(s) => s,
                        Value::Int(i) => i.to_string(),
                        Value::Float(f) => f.to_string(),
                        Value::Bool(b) => b.to_string(),
                        _ => "null".to_string(),
                    };
                    if key != "<<"
                        && let Some(first) = entries.iter().find(|e| e.key == key)
                    {
                        let line = first.key_mark.line;
                        return Err(Error::user("duplicate-key", format!("key `{key}` stands twice in one mapping"))
                            .with_span(self.span(node.mark))
                            .with_hint(format!("it is also on line {line}: remove one of them")));
                    }
                    open.key = Some((key, node.mark));
                }
                Some((key, key_mark)) => {
                    if matches!(node.value, Value::Null) {
                        // An absent value has no place of its own.
                        node.mark = key_mark;
                    }
                    entries.push(Entry { key, key_mark, value: node });
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn span(&self, mark: Mark) -> Span {
        Node { value: Value::Null, mark, text: Arc::clone(self.text), written: None }.span()
    }

    fn syntax(&self, at: Marker, info: &str) -> Error {
        let span = self.span(Mark { line: at.line(), column: at.col() + 1, width: 1 });
        let (line, previous) = (Arc::clone(&span.text), self.text.line(span.line - 1));
        let error = Error::user("yaml", format!("invalid YAML: {info}")).with_span(span);
        if [&line, &previous].iter().any(|l| l.contains(": {{") || l.contains(": {%")) {
            error.with_hint("put the Jinja expression in quotes: \"{{ … }}\"")
        } else if line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t') {
            error.with_hint("indent with spaces, not tabs")
        } else if info.contains("mapping values are not allowed") {
            error.with_hint("text with a colon and a space in it needs quotes")
        } else if info.contains("did not find expected '-'") {
            error.with_hint("keys of a list's item stand below each other: indent it as far as the key after the `-`")
        } else if info.contains("simple key expect") || info.contains("could not find expected ':'") {
            error.with_hint("is a colon missing behind the key, here or on the line above?")
        } else if info.contains("flow") {
            error.with_hint("is a `{`, `[` or quote left open above?")
        } else {
            error
        }
    }
}

/// Resolves `<<: *base` (and a list of them): the mapping's own keys win.
fn merged(node: Node) -> Node {
    let Node { value: Value::Map(entries), mark, text, written } = node else { return node };
    if entries.iter().all(|e| e.key != "<<") {
        return Node { value: Value::Map(entries), mark, text, written };
    }
    let (bases, own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|e| e.key == "<<");
    let mut all = own;
    for base in bases {
        let maps = match base.value.value {
            Value::Seq(items) => items,
            _ => vec![base.value],
        };
        for map in maps {
            for entry in map.entries() {
                if all.iter().all(|e| e.key != entry.key) {
                    all.push(entry.clone());
                }
            }
        }
    }
    Node { value: Value::Map(all), mark, text, written }
}

fn mark(span: YamlSpan) -> Mark {
    Mark {
        line: span.start.line(),
        column: span.start.col() + 1,
        width: span.end.index().saturating_sub(span.start.index()).max(1),
    }
}

/// YAML 1.2's core schema; `yes` and `no` stay text and are understood where a boolean is expected.
fn scalar(value: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Value::Str(value.to_string());
    }
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Some(hex) = value.strip_prefix("0x")
        && let Ok(i) = i64::from_str_radix(hex, 16)
    {
        return Value::Int(i);
    }
    if let Ok(i) = value.parse::<i64>() {
        return Value::Int(i);
    }
    // `inf` and `nan` parse as Rust floats but are words to YAML.
    if value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
        && value.bytes().any(|b| b.is_ascii_digit())
        && let Ok(f) = value.parse::<f64>()
    {
        return Value::Float(f);
    }
    Value::Str(value.to_string())
}
