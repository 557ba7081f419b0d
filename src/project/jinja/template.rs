//! A file with Jinja in it, made ready for rendering with positions.
//!
//! minijinja says where an error stands in a template, but not which part of the template produced which part of the
//! output. So the text is cut here into literal runs and tags, and rewritten:
//!
//! 1. Before each literal run and each `{{ … }}` stands a mark: its number between two Unicode noncharacters, which no
//!    sane file contains. In the output a mark says what the text up to the next mark comes from; [`Template::unmark`]
//!    takes them out and builds the pieces of the [`SourceMap`](crate::project::SourceMap). Loops repeat marks, conditions
//!    drop them: both are what one wants.
//! 2. Where output is captured into a value (macros, `{% set x %}…{% endset %}`, call and filter blocks) there are no
//!    marks, so a template never sees one in a string it compares, trims or measures. What such a value prints maps to the
//!    `{{ … }}` that prints it, which stands in the model's own file.
//! 3. Whitespace control (`{%- -%}`) is carried out here and removed: a mark would stop it otherwise.
//! 4. Macros are wrapped behind their end, list and dict literals where they stand, and assigned values: see
//!    [`super::macros`] and [`super::containers`].
//! 5. `ref(`, `source(`, `config(`, `var(` and `env_var(` get their own position as a hidden first argument, so that the
//!    graph can point at the call that names a missing model.

use std::borrow::Cow;
use std::sync::Arc;

use super::clock::{MINUS, PLUS};
use super::containers::{DICT, LIST};
use super::macros::{ABSENT, WRAP};
use super::namespaces::exported;
use super::tokens::{
    Edit, Tokens, assigned_edits, conditional_names, has_word, is_timedelta, is_value_end, macro_body,
};
use crate::project::source_map::Piece;
use crate::project::yaml::Text;

/// Noncharacters (Unicode §23.7): reserved for a process's internal use.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// Functions that learn where they are called.
const LOCATED: [&str; 5] = ["ref", "source", "config", "var", "env_var"];

/// Where a function was called: file number and byte offset, packed into the hidden argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::project) struct Site {
    pub file: u32,
    pub offset: usize,
}

impl Site {
    pub fn pack(self) -> i64 {
        (i64::from(self.file) << 32) | self.offset as i64
    }

    pub fn unpack(packed: i64) -> Self {
        Site { file: (packed >> 32) as u32, offset: (packed & 0xffff_ffff) as usize }
    }
}

/// A part of the file that produces output.
#[derive(Debug, Clone, Copy)]
struct Marked {
    offset: usize,
    len: usize,
    literal: bool,
}

/// `{{ … }}` or `{% … %}`.
#[derive(Debug, Clone, Copy)]
pub(in crate::project) struct Tag {
    pub start: usize,
    pub end: usize,
    pub expression: bool,
    /// Its number, when its output is marked.
    mark: Option<usize>,
}

/// A rewritten file.
#[derive(Debug)]
pub(in crate::project) struct Template {
    pub text: Arc<Text>,
    /// Number of the file, as in [`Site`].
    pub file: u32,
    /// What minijinja renders.
    pub jinja: String,
    /// From offsets in `jinja` to offsets in the file.
    pub map: Vec<Piece>,
    marked: Vec<Marked>,
    pub tags: Vec<Tag>,
    /// (name, offset) of macros defined at the top level.
    pub macros: Vec<(String, usize)>,
    /// Names that `set`, `for` and macro parameters introduce: candidates for "did you mean".
    pub names: Vec<String>,
    /// Start of a tag that never ends.
    pub unclosed: Option<usize>,
}

/// Output without its marks.
#[derive(Debug)]
pub(in crate::project) struct Unmarked {
    pub sql: String,
    pub pieces: Vec<Piece>,
    /// (mark, range in `sql`) in output order.
    outputs: Vec<(usize, std::ops::Range<usize>)>,
}

impl Template {
    pub fn new(text: Arc<Text>, file: u32) -> Self {
        let content = Arc::clone(&text.content);
        let template = Template {
            text,
            file,
            jinja: String::with_capacity(content.len() * 2),
            map: Vec::new(),
            marked: Vec::new(),
            tags: Vec::new(),
            macros: Vec::new(),
            names: Vec::new(),
            unclosed: None,
        };
        Cutter { template, content: &content, at: 0, captured: 0, open_macros: Vec::new(), trim_next: false }.cut()
    }

    /// Whether the file contains characters that marks are made of.
    pub fn has_marks_of_its_own(&self) -> Option<usize> {
        self.text.content.find([OPEN, CLOSE])
    }

    /// The offset in the file of byte `offset` of `jinja`.
    pub fn in_file(&self, offset: usize) -> usize {
        let index = self.map.partition_point(|p| p.compiled <= offset);
        match index.checked_sub(1).map(|i| self.map[i]) {
            Some(p) if p.produced_by.is_none() => p.file + (offset - p.compiled).min(p.len),
            Some(p) => p.file,
            None => 0,
        }
    }

    /// Takes the marks out of rendered output.
    pub fn unmark(&self, output: &str) -> Unmarked {
        let mut unmarked =
            Unmarked { sql: String::with_capacity(output.len()), pieces: Vec::new(), outputs: Vec::new() };
        let mut rest = output;
        let mut mark: Option<usize> = None;
        loop {
            let (run, next) = match rest.split_once(OPEN) {
                Some((run, after)) => (run, Some(after)),
                None => (rest, None),
            };
            self.add_run(&mut unmarked, mark, run);
            let Some(after) = next else { return unmarked };
            match after.split_once(CLOSE).and_then(|(number, tail)| Some((number.parse().ok()?, tail))) {
                Some((number, tail)) => {
                    mark = Some(number);
                    rest = tail;
                }
                None => rest = after,
            }
        }
    }

    fn add_run(&self, unmarked: &mut Unmarked, mark: Option<usize>, run: &str) {
        if run.is_empty() {
            return;
        }
        let compiled = unmarked.sql.len();
        unmarked.sql.push_str(run);
        let from = mark.and_then(|m| self.marked.get(m));
        let piece = match from {
            Some(m) if m.literal && run.len() <= m.len => {
                Piece { compiled, file: m.offset, len: run.len(), produced_by: None }
            }
            Some(m) => Piece { compiled, file: m.offset, len: run.len(), produced_by: Some(m.len) },
            None => Piece { compiled, file: 0, len: run.len(), produced_by: Some(1) },
        };
        unmarked.pieces.push(piece);
        if let Some(mark) = mark {
            unmarked.outputs.push((mark, compiled..compiled + run.len()));
        }
    }

    /// The tag that contains byte `offset` of the file.
    pub fn tag_at(&self, offset: usize) -> Option<&Tag> {
        self.tags.iter().find(|t| (t.start..t.end).contains(&offset))
    }

    /// The first place where `word` stands as a name inside a tag.
    pub fn find_name(&self, word: &str) -> Option<usize> {
        let content = &self.text.content;
        self.tags.iter().find_map(|tag| {
            let inside = &content[tag.start..tag.end];
            inside.match_indices(word).map(|(i, _)| i).find_map(|i| {
                let is_name = |c: char| c.is_alphanumeric() || c == '_';
                let before =
                    inside[..i].chars().next_back().is_some_and(|c| is_name(c) || c == '.' || c == '\'' || c == '"');
                let after = inside[i + word.len()..].chars().next().is_some_and(is_name);
                (!before && !after).then_some(tag.start + i)
            })
        })
    }
}

impl Unmarked {
    /// Everything `tag` printed.
    pub fn printed_by<'a>(&'a self, tag: &Tag) -> impl Iterator<Item = &'a str> {
        let mark = tag.mark;
        self.outputs.iter().filter(move |(m, _)| Some(*m) == mark).map(|(_, range)| &self.sql[range.clone()])
    }
}

/// Walks the file once, from left to right.
struct Cutter<'a> {
    template: Template,
    content: &'a str,
    at: usize,
    /// How many open blocks capture output.
    captured: usize,
    /// Names of the macros that are open.
    open_macros: Vec<Option<String>>,
    /// The tag just passed ended in `-}}`.
    trim_next: bool,
}

impl Cutter<'_> {
    fn cut(mut self) -> Template {
        while let Some((start, kind)) = self.next_tag() {
            self.literal(start, self.content[start + 2..].starts_with('-'));
            match kind {
                b'#' => self.comment(start),
                b'{' => self.expression(start),
                _ => self.statement(start),
            }
        }
        self.literal(self.content.len(), false);
        self.template
    }

    fn next_tag(&self) -> Option<(usize, u8)> {
        let bytes = self.content.as_bytes();
        let mut at = self.at;
        loop {
            at += memchr::memchr(b'{', &bytes[at..])?;
            match bytes.get(at + 1) {
                Some(kind @ (b'{' | b'%' | b'#')) => return Some((at, *kind)),
                _ => at += 1,
            }
        }
    }

    /// The literal run from here to `end`.
    fn literal(&mut self, end: usize, trim_end: bool) {
        let (mut from, mut to) = (self.at, end);
        if self.trim_next {
            from = end - self.content[from..end].trim_start().len();
        }
        if trim_end && from < to {
            to = from + self.content[from..to].trim_end().len();
        }
        self.trim_next = false;
        self.at = end;
        if from < to {
            self.mark(from, to - from, true);
            self.copy(from, to);
        }
    }

    fn comment(&mut self, start: usize) {
        match self.content[start + 2..].find("#}") {
            Some(i) => {
                let end = start + 2 + i + 2;
                self.trim_next = i > 0 && self.content.as_bytes()[end - 3] == b'-';
                self.at = end;
            }
            // minijinja says what is wrong with it.
            None => self.rest_verbatim(start),
        }
    }

    fn expression(&mut self, start: usize) {
        let Some(tokens) = self.lex(start + 2, b'}') else { return self.rest_verbatim(start) };
        let mark = self.mark(start, tokens.end - start, false);
        self.tag(start, &tokens, &tokens.edits);
        self.template.tags.push(Tag { start, end: tokens.end, expression: true, mark });
    }

    fn statement(&mut self, start: usize) {
        let Some(tokens) = self.lex(start + 2, b'%') else { return self.rest_verbatim(start) };
        let words: Vec<&str> = tokens.words.iter().map(|(at, len)| &self.content[*at..*at + *len]).collect();
        let name = words.first().copied().unwrap_or("");
        if name == "raw" {
            return self.raw(start, &tokens);
        }
        // dbt's generic tests are macros with another name.
        let mut edits = tokens.edits.clone();
        match (name, words.get(1), tokens.words.get(1)) {
            ("test" | "data_test", Some(_), Some((at, _))) => {
                edits.insert(0, Edit { at: tokens.words[0].0, remove: name.len(), insert: "macro".to_string() });
                edits.insert(1, Edit { at: *at, remove: 0, insert: "test_".to_string() });
            }
            ("endtest" | "enddata_test", ..) => {
                edits.push(Edit { at: tokens.words[0].0, remove: name.len(), insert: "endmacro".to_string() });
            }
            _ => {}
        }
        match name {
            "macro" | "test" | "data_test" => {
                edits.extend(self.rest_parameters(&tokens));
                let prefix = if name == "macro" { "" } else { "test_" };
                self.open_macros.push(words.get(1).map(|name| format!("{prefix}{name}")));
            }
            "set" => edits.extend(assigned_edits(&tokens)),
            _ => {}
        }
        edits.sort_by_key(|e| e.at);
        let opens = match name {
            "macro" | "test" | "data_test" | "call" | "filter" => true,
            "set" => !tokens.assigns,
            _ => false,
        };
        match name {
            "macro" | "test" | "data_test" => {
                if let (Some(defined), Some((at, _)), 0) = (words.get(1), tokens.words.get(1), self.captured) {
                    let prefix = if name == "macro" { "" } else { "test_" };
                    self.template.macros.push((format!("{prefix}{defined}"), *at));
                }
                self.template.names.extend(words.iter().skip(2).map(|w| w.to_string()));
            }
            "set" => self.template.names.extend(words.get(1).map(|w| w.to_string())),
            "for" => {
                let names = words.iter().skip(1).take_while(|w| **w != "in");
                self.template.names.extend(names.map(|w| w.to_string()));
            }
            _ => {}
        }
        // A call or filter block prints where it stands.
        let mark = match name {
            "call" | "filter" => self.mark(start, tokens.end - start, false),
            _ => None,
        };
        self.tag(start, &tokens, &edits);
        self.template.tags.push(Tag { start, end: tokens.end, expression: false, mark });
        if matches!(name, "macro" | "test" | "data_test") {
            let body = macro_body(&self.content[tokens.end..]);
            for conditional in conditional_names(body).iter().filter(|n| !words.contains(*n)) {
                self.insert(&format!("{{% set {conditional} = {ABSENT} %}}"), self.at);
            }
        }
        if matches!(name, "endmacro" | "endtest" | "enddata_test")
            && let Some(Some(defined)) = self.open_macros.pop()
        {
            self.insert(&format!("{{% set {defined} = {WRAP}({defined}) %}}"), self.at);
            if let Cow::Owned(exported) = exported(&defined) {
                self.insert(&format!("{{% set {exported} = {defined} %}}"), self.at);
            }
        }
        if opens {
            self.captured += 1;
        } else if matches!(name, "endmacro" | "endtest" | "enddata_test" | "endcall" | "endfilter" | "endset") {
            self.captured = self.captured.saturating_sub(1);
        }
    }

    /// `varargs` and `kwargs` as parameters of the macro that `tokens` opens, where its text uses them.
    fn rest_parameters(&self, tokens: &Tokens) -> Option<Edit> {
        let body = macro_body(&self.content[tokens.end..]);
        let used: Vec<&str> = [("varargs", "varargs=[]"), ("kwargs", "kwargs={}")]
            .iter()
            .filter(|(name, _)| has_word(body, name))
            .map(|(_, parameter)| *parameter)
            .collect();
        let at = tokens.end.min(tokens.close);
        let at = self.content[..at].rfind(')').filter(|at| *at >= tokens.words.first().map_or(0, |w| w.0))?;
        if used.is_empty() {
            return None;
        }
        let empty = self.content[..at].trim_end().ends_with(['(', ',']);
        Some(Edit { at, remove: 0, insert: format!("{}{}", if empty { "" } else { ", " }, used.join(", ")) })
    }

    fn raw(&mut self, start: usize, tokens: &Tokens) {
        let inside = tokens.end;
        let mut at = inside;
        let end = loop {
            let Some(i) = self.content[at..].find("{%") else { return self.rest_verbatim(start) };
            let tag = at + i;
            match self.lex(tag + 2, b'%') {
                Some(end) if end.words.len() == 1 && self.content[end.words[0].0..].starts_with("endraw") => {
                    break (tag, end);
                }
                _ => at = tag + 2,
            }
        };
        let (close, close_tokens) = end;
        let (mut from, mut to) = (inside, close);
        if tokens.trims {
            from = to - self.content[from..to].trim_start().len();
        }
        if self.content[close + 2..].starts_with('-') && from < to {
            to = from + self.content[from..to].trim_end().len();
        }
        if from < to {
            self.mark(from, to - from, true);
            self.insert("{% raw %}", from);
            self.copy(from, to);
            self.insert("{% endraw %}", to);
        }
        self.at = close_tokens.end;
        self.trim_next = close_tokens.trims;
    }

    /// Copies a tag, without its whitespace control and with positions in its calls.
    fn tag(&mut self, start: usize, tokens: &Tokens, edits: &[Edit]) {
        self.copy(start, start + 2);
        let mut from = start + 2;
        if self.content[from..].starts_with(['-', '+']) {
            self.insert(" ", from);
            from += 1;
        }
        for edit in edits {
            self.copy(from, edit.at);
            self.insert(&edit.insert, edit.at);
            from = edit.at + edit.remove;
        }
        self.copy(from, tokens.close);
        // `-}}` has become ` }}`.
        if tokens.end - tokens.close > 2 {
            self.insert(" ", tokens.close);
        }
        self.copy(tokens.end - 2, tokens.end);
        self.at = tokens.end;
        self.trim_next = tokens.trims;
    }

    /// Reads the inside of a tag from `at` to its end, `}}` or `%}`.
    fn lex(&self, at: usize, closer: u8) -> Option<Tokens> {
        let bytes = self.content.as_bytes();
        let mut tokens = Tokens::default();
        let (mut at, mut depth) = (at, 0usize);
        // Whether what each open bracket closes is an argument: of `__list`, `__dict`, `__plus`, `__minus`.
        let mut open: Vec<bool> = Vec::new();
        let mut shifts = false;
        if matches!(bytes.get(at), Some(b'-' | b'+')) {
            at += 1;
        }
        let mut before = b' ';
        while let Some(byte) = bytes.get(at).copied() {
            let sign = usize::from(matches!(byte, b'-' | b'+') && depth == 0);
            if depth == 0 && bytes.get(at + sign) == Some(&closer) && bytes.get(at + sign + 1) == Some(&b'}') {
                tokens.close = at;
                tokens.end = at + sign + 2;
                tokens.trims = byte == b'-';
                return Some(tokens);
            }
            match byte {
                b'\'' | b'"' => {
                    at += 1;
                    while *bytes.get(at)? != byte {
                        at += 1 + usize::from(bytes[at] == b'\\');
                    }
                }
                b'+' | b'-' if is_timedelta(&self.content[at + 1..]) => {
                    let filter = if byte == b'+' { PLUS } else { MINUS };
                    tokens.edits.push(Edit { at, remove: 1, insert: format!("|{filter}(") });
                    shifts = true;
                }
                b'(' => {
                    depth += 1;
                    let closes = shifts && tokens.last_word(self.content, at) == Some("timedelta");
                    shifts &= !closes;
                    open.push(closes);
                }
                b'[' | b'{' => {
                    depth += 1;
                    // Behind a value it is an index.
                    let literal = !is_value_end(before, tokens.last_word(self.content, at));
                    if literal {
                        let function = if byte == b'[' { LIST } else { DICT };
                        tokens.edits.push(Edit { at, remove: 0, insert: format!("{function}(") });
                    }
                    open.push(literal);
                }
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if open.pop() == Some(true) {
                        tokens.edits.push(Edit { at: at + 1, remove: 0, insert: ")".to_string() });
                    }
                }
                b'=' if depth == 0 => {
                    let compares = bytes.get(at + 1) == Some(&b'=') || matches!(before, b'=' | b'!' | b'<' | b'>');
                    if !compares && !tokens.assigns {
                        tokens.value = Some(at + 1);
                    }
                    tokens.assigns = true;
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    let len = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                    self.name(&mut tokens, at, len, before);
                    at += len - 1;
                }
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                before = byte;
            }
            at += 1;
        }
        None
    }

    fn name(&self, tokens: &mut Tokens, at: usize, len: usize, before: u8) {
        let defines = tokens.words.len() == 1 && {
            let (first, len) = tokens.words[0];
            matches!(&self.content[first..first + len], "macro" | "set")
        };
        tokens.words.push((at, len));
        if !LOCATED.contains(&&self.content[at..at + len]) || matches!(before, b'.' | b'|') || defines {
            return;
        }
        let after = &self.content[at + len..];
        let Some(arguments) = after.trim_start().strip_prefix('(') else { return };
        let packed = Site { file: self.template.file, offset: at }.pack();
        let empty = arguments.trim_start().starts_with(')');
        let insert = if empty { packed.to_string() } else { format!("{packed}, ") };
        tokens.edits.push(Edit { at: self.content.len() - arguments.len(), remove: 0, insert });
    }

    fn mark(&mut self, offset: usize, len: usize, literal: bool) -> Option<usize> {
        if self.captured > 0 {
            return None;
        }
        let number = self.template.marked.len();
        self.template.marked.push(Marked { offset, len, literal });
        self.insert(&format!("{OPEN}{number}{CLOSE}"), offset);
        Some(number)
    }

    fn copy(&mut self, from: usize, to: usize) {
        if from < to {
            let piece = Piece { compiled: self.template.jinja.len(), file: from, len: to - from, produced_by: None };
            self.template.map.push(piece);
            self.template.jinja.push_str(&self.content[from..to]);
        }
    }

    fn insert(&mut self, text: &str, at: usize) {
        let piece = Piece { compiled: self.template.jinja.len(), file: at, len: text.len(), produced_by: Some(0) };
        self.template.map.push(piece);
        self.template.jinja.push_str(text);
    }

    fn rest_verbatim(&mut self, start: usize) {
        self.template.unclosed = Some(start);
        self.copy(start, self.content.len());
        self.at = self.content.len();
    }
}
