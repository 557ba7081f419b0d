//! What is found inside a tag, and the changes that are made to its text before minijinja sees it.

use super::containers::OWN;

/// What matters inside a tag.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// (offset, length) of every name.
    pub words: Vec<(usize, usize)>,
    pub edits: Vec<Edit>,
    /// There is a `=` outside parentheses.
    pub assigns: bool,
    /// The offset after the first one that assigns.
    pub value: Option<usize>,
    /// Offset of `}}`, `-}}` and the like, and the offset after it.
    pub close: usize,
    pub end: usize,
    pub trims: bool,
}

impl Tokens {
    /// The word that ends before `at`, with nothing but blanks between.
    pub fn last_word<'a>(&self, content: &'a str, at: usize) -> Option<&'a str> {
        let (start, len) = *self.words.last()?;
        content[start + len..at].trim().is_empty().then(|| &content[start..start + len])
    }
}

/// Words behind which a bracket opens a literal.
const OPERATORS: [&str; 10] = ["in", "not", "and", "or", "if", "else", "is", "do", "elif", "set"];

/// Whether a value ends with byte `before`, which belongs to `word` if that is a word.
pub(super) fn is_value_end(before: u8, word: Option<&str>) -> bool {
    match word {
        Some(word) => !OPERATORS.contains(&word),
        None => matches!(before, b')' | b']' | b'}' | b'\'' | b'"' | b'0'..=b'9'),
    }
}

/// Whether a timedelta is written here: what is added to or subtracted from a date.
pub(super) fn is_timedelta(text: &str) -> bool {
    let text = text.trim_start();
    text.strip_prefix("modules.datetime.").unwrap_or(text).starts_with("timedelta(")
}

/// `__own(…)` around the value that a `set` assigns.
pub(super) fn assigned_edits(tokens: &Tokens) -> Vec<Edit> {
    let Some(at) = tokens.value else { return Vec::new() };
    let edit = |at, insert: String| Edit { at, remove: 0, insert };
    // Two parentheses: `a, b` without any is a tuple.
    vec![edit(at, format!(" {OWN}((")), edit(tokens.close, "))".to_string())]
}

/// The text of a macro whose opening tag ends where `rest` begins.
pub(super) fn macro_body(rest: &str) -> &str {
    &rest[..rest.find("endmacro").or_else(|| rest.find("endtest")).unwrap_or(rest.len())]
}

/// Values that every template sees: a macro that sets one of them under a condition means this one otherwise.
const VALUES: [&str; 14] = [
    "this", "model", "schema", "database", "target", "graph", "flags", "results", "execute", "config", "var",
    "modules", "api", "adapter",
];

/// Names that a macro sets in a condition only. In dbt they print nothing where the condition does not hold, and packages count on
/// it. A name that is called means something else.
pub(super) fn conditional_names(body: &str) -> Vec<&str> {
    let word_end = |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let called = |name: &str| {
        body.match_indices(name)
            .any(|(i, _)| body[i + name.len()..].trim_start().starts_with('(') && has_word(body, name))
    };
    let (mut depth, mut names) = (0usize, Vec::new());
    for (at, _) in body.match_indices("{%") {
        let tag = body[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let rest = tag[word_end(tag)..].trim_start();
        match &tag[..word_end(tag)] {
            "if" => depth += 1,
            "endif" => depth = depth.saturating_sub(1),
            "set" if depth > 0 => {
                let name = &rest[..word_end(rest)];
                let is_plain = rest[name.len()..].trim_start().starts_with(['=', '%', '-']);
                if is_plain && !name.is_empty() && !names.contains(&name) && !VALUES.contains(&name) && !called(name) {
                    names.push(name);
                }
            }
            _ => {}
        }
    }
    names
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(i, _)| !text[..i].ends_with(is_name) && !text[i + word.len()..].starts_with(is_name))
}

/// A change to a tag's text.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub at: usize,
    pub remove: usize,
    pub insert: String,
}
