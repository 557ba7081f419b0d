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
