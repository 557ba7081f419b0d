//! Everything wrong with a project, collected: a person mends ten mistakes in one go, not in ten runs.

use std::collections::BTreeSet;

use crate::error::{Error, Span};

/// Errors and warnings found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub errors: Vec<Error>,
    pub warnings: Vec<Error>,
    /// Models whose SQL is not what was meant: their errors are recorded.
    pub flawed: BTreeSet<String>,
}

impl Problems {
    /// Records an error at `span`.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let error = Error::user(code, message).with_span(span);
        self.errors.push(if hint.is_empty() { error } else { error.with_hint(hint) });
    }

    /// Records something worth saying that stops nothing.
    pub fn warn(&mut self, code: &'static str, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let warning = Error::user(code, message).with_span(span);
        self.warnings.push(if hint.is_empty() { warning } else { warning.with_hint(hint) });
    }

    /// The value, or `None` with the error recorded.
    pub fn ok<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|e| self.errors.push(e)).ok()
    }
}

/// "did you mean `x`?", or what there is to choose from.
pub(super) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, choices: &str) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    match crate::error::did_you_mean(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there are no {choices}"),
        None if known.len() <= 12 => format!("{choices}: {}", known.join(", ")),
        None => format!("{choices}: {}, … ({} in all)", known[..12].join(", "), known.len()),
    }
}
