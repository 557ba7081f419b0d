//! Faults: what is wrong with a piece of SQL, by line and column of the compiled text, before it is known in which file a
//! person wrote it. [`Origin`] turns them into [`Error`]s.

use std::fmt;

use crate::error::{Error, Span};
use crate::project::SourceMap;

/// A place in compiled SQL: 1-based line and column in characters, and the width of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub line: u64,
    pub column: u64,
    pub width: u64,
}

/// One thing that is wrong with a piece of SQL.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub message: String,
    pub place: Option<Place>,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), place: None, hint: None }
    }

    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = self.place.or(place);
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Carried inside a DataFusion error from our planner hooks back to us.
impl std::error::Error for Fault {}

impl From<Fault> for datafusion::error::DataFusionError {
    fn from(fault: Fault) -> Self {
        datafusion::error::DataFusionError::External(Box::new(fault))
    }
}

/// Where a piece of SQL was written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// Compiled text with a map back to its file.
    Compiled { sql: &'a str, source_map: &'a SourceMap },
    /// A value in a YAML file: faults point at it as a whole.
    Value(&'a Span),
}

impl Origin<'_> {
    /// The fault as an error that points into the file. Without a place it points at the first word of the SQL.
    pub fn error(&self, fault: Fault) -> Error {
        let span = match self {
            Origin::Value(span) => (*span).clone(),
            Origin::Compiled { sql, source_map } => match fault.place {
                Some(p) => source_map.span_at_line(sql, p.line as usize, p.column as usize, p.width.max(1) as usize),
                None => {
                    let start = first_word(sql);
                    let width = sql[start..].find(|c: char| c.is_whitespace()).unwrap_or(sql.len() - start);
                    source_map.span(start, width)
                }
            },
        };
        let mut error = Error::user(fault.code, fault.message).with_span(span);
        if let Some(hint) = fault.hint {
            error = error.with_hint(hint);
        }
        error
    }

    pub fn errors(&self, faults: Vec<Fault>) -> Vec<Error> {
        faults.into_iter().map(|f| self.error(f)).collect()
    }
}

/// Byte offset of the first character that is neither white space nor part of a leading comment.
fn first_word(sql: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &sql[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        let skip = if trimmed.starts_with("--") {
            trimmed.find('\n').map(|i| i + 1)
        } else if trimmed.starts_with("/*") {
            trimmed.find("*/").map(|i| i + 2)
        } else {
            return at;
        };
        match skip {
            Some(n) => at += n,
            None => return 0,
        }
    }
}
