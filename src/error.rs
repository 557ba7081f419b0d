//! One error type for the whole engine.
//!
//! A caller decides by [`ErrorKind`] (whose fault it is, so who must act) and [`Error::is_retryable`]; a person reads
//! [`Error::render`]: message, file:line:column, the source line with carets, and what to do. Causes stay
//! attached as text, so nothing of a library's error types leaks into signatures.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// `Result` with smelt's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, and so who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The project, its SQL, its data or the command line is wrong: the user changes something.
    User,
    /// Something outside failed (broker, disk, object store): retry, or mend the environment.
    Environment,
    /// Another smelt instance owns the lake now: this process must stop writing.
    Fenced,
    /// A table holds something else than the engine believes (locator miss, negative weight):
    /// the model is recomputed and compared with its table.
    Diverged,
    /// A defect in smelt.
    Internal,
}

/// A place in a file a person wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Path as the user would type it, relative to the project.
    pub file: PathBuf,
    /// 1-based line.
    pub line: usize,
    /// 1-based column, counted in characters.
    pub column: usize,
    /// Width of the marked text in characters, at least 1.
    pub width: usize,
    /// The text of the line, without its line break. Places of one line share it: a properties file has many.
    pub text: Arc<str>,
}

impl Span {
    /// The span of `len` bytes at byte `offset` of `content`, which is the text of `file`. Offsets past the end mark the end.
    pub fn at(file: impl Into<PathBuf>, content: &str, offset: usize, len: usize) -> Self {
        let mut offset = offset.min(content.len());
        while !content.is_char_boundary(offset) {
            offset -= 1;
        }
        let line_start = content[..offset].rfind('\n').map_or(0, |i| i + 1);
        let line_end = content[offset..].find('\n').map_or(content.len(), |i| offset + i);
        let mut end = (offset + len).min(line_end);
        while !content.is_char_boundary(end) {
            end += 1;
        }
        Span {
            file: file.into(),
            line: content[..line_start].matches('\n').count() + 1,
            column: content[line_start..offset].chars().count() + 1,
            width: content[offset..end].chars().count().max(1),
            text: content[line_start..line_end].trim_end_matches('\r').into(),
        }
    }
}

/// An error with everything a person needs to act on it. Cheap to move: one pointer.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    code: &'static str,
    message: String,
    span: Option<Span>,
    hint: Option<String>,
    retryable: bool,
}

impl Error {
    /// An error of `kind`; `code` is its stable name in kebab-case (`unknown-column`).
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, code, message: message.into(), span: None, hint: None, retryable: false }))
    }

    /// The user must change something.
    pub fn user(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, code, message)
    }

    /// Something outside failed. Retryable unless [`Error::permanent`] says otherwise.
    pub fn environment(code: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Environment, code, message);
        error.0.retryable = true;
        error
    }

    /// A defect in smelt.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal", message)
    }

    /// A table differs from what the engine believes it holds.
    pub fn diverged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Diverged, "diverged", message)
    }

    /// Trying again will not help.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.retryable = false;
        self
    }

    /// Where it stands in a file a person wrote.
    #[must_use]
    pub fn with_span(mut self, span: Span) -> Self {
        self.0.span = Some(span);
        self
    }

    /// What to do about it, or "did you mean".
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The message becomes `context: message`, unless it begins so already.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        let context = format!("{context}: ");
        if !self.0.message.starts_with(&context) {
            self.0.message.insert_str(0, &context);
        }
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Its stable name.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it stands, when it stands in a file.
    pub fn span(&self) -> Option<&Span> {
        self.0.span.as_ref()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The error as a person reads it:
    ///
    /// ```text
    /// error[unknown-column]: no column `call_durationn` in `silver_calls`
    ///   --> queries/gold/user_daily.sql:7:14
    /// 7 |   sum(call_durationn) as seconds
    ///   |       ^^^^^^^^^^^^^^ did you mean `call_duration`?
    /// ```
    pub fn render(&self) -> String {
        self.render_as("error")
    }

    /// The same as a warning.
    pub fn render_warning(&self) -> String {
        self.render_as("warning")
    }

    fn render_as(&self, level: &str) -> String {
        let mut out = format!("{level}[{}]: {}", self.0.code, self.0.message);
        let Some(span) = &self.0.span else {
            if let Some(hint) = &self.0.hint {
                out.push_str(&format!("\n  = {hint}"));
            }
            return out;
        };
        let gutter = span.line.to_string();
        let pad = " ".repeat(gutter.len());
        out.push_str(&format!("\n{pad} --> {}:{}:{}", span.file.display(), span.line, span.column));
        out.push_str(&format!("\n{gutter} | {}", span.text));
        // Tabs stay tabs so that the carets stand below what they mark.
        let lead: String =
            span.text.chars().take(span.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        out.push_str(&format!("\n{pad} | {lead}{}", "^".repeat(span.width)));
        if let Some(hint) = &self.0.hint {
            out.push_str(&format!(" {hint}"));
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(span) = &self.0.span {
            write!(f, " ({}:{}:{})", span.file.display(), span.line, span.column)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0.kind, self.render())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Error::environment("io", e.to_string())
    }
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        let message = e.to_string();
        // The only trace of the cause that every store's error keeps.
        if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
            return Error::environment("disk-full", message)
                .with_hint("free space on the lake's disk; the next attempt goes on from the last commit");
        }
        Error::environment("object-store", message)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as A;
        match e {
            A::IoError(m, _) => Error::environment("io", m),
            A::ArithmeticOverflow(m) => Error::user("overflow", m),
            A::DivideByZero => Error::user("divide-by-zero", "division by zero"),
            A::CastError(m) => Error::user("cast", m),
            A::ParseError(m) => Error::user("cast", m),
            other => Error::internal(other.to_string()),
        }
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        Error::environment("parquet", e.to_string())
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            D::ArrowError(e, _) => (*e).into(),
            D::ParquetError(e) => (*e).into(),
            D::ObjectStore(e) => (*e).into(),
            D::IoError(e) => e.into(),
            D::Context(context, inner) => Error::from(*inner).context(context),
            D::Diagnostic(_, inner) => Error::from(*inner),
            D::Collection(mut all) if !all.is_empty() => Error::from(all.swap_remove(0)),
            D::Shared(inner) => shared(&inner),
            D::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::environment("external", other.to_string()),
            },
            D::ResourcesExhausted(m) => Error::environment("out-of-memory", m).permanent(),
            D::Internal(m) => Error::internal(m),
            D::Execution(m) => Error::user("execution", m),
            other => Error::user("sql", other.strip_backtrace()),
        }
    }
}

/// An error several consumers share: ours when it holds one, else its text.
fn shared(error: &datafusion::error::DataFusionError) -> Error {
    use datafusion::error::DataFusionError as D;
    match error {
        D::Shared(inner) => shared(inner),
        D::Context(context, inner) => shared(inner).context(context),
        D::Diagnostic(_, inner) => shared(inner),
        D::External(inner) => match inner.downcast_ref::<Error>() {
            Some(own) => own.clone(),
            None => Error::environment("external", inner.to_string()),
        },
        D::Execution(m) => Error::user("execution", m.clone()),
        D::ResourcesExhausted(m) => Error::environment("out-of-memory", m.clone()).permanent(),
        other => Error::user("execution", other.strip_backtrace()),
    }
}

/// The name among `known` nearest to `name`, if one is near enough to be what was meant.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= (k.chars().count().max(name.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_line_the_carets_and_the_hint() {
        let content = "select\n  sum(call_durationn) as seconds\nfrom t";
        let error = Error::user("unknown-column", "no column `call_durationn` in `silver_calls`")
            .with_span(Span::at("queries/gold/user_daily.sql", content, content.find("call_d").unwrap(), 14))
            .with_hint("did you mean `call_duration`?");
        assert_eq!(
            error.render(),
            "error[unknown-column]: no column `call_durationn` in `silver_calls`\n\
             \x20 --> queries/gold/user_daily.sql:2:7\n\
             2 |   sum(call_durationn) as seconds\n\
             \x20 |       ^^^^^^^^^^^^^^ did you mean `call_duration`?"
        );
    }

    #[test]
    fn spans_survive_offsets_past_the_end_and_inside_characters() {
        let span = Span::at("f", "aé", 2, 10);
        assert_eq!((span.line, span.column), (1, 2));
        let span = Span::at("f", "a\n", 99, 1);
        assert_eq!((span.line, span.column), (2, 1));
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(did_you_mean("call_durationn", ["call_duration", "sid"]), Some("call_duration"));
        assert_eq!(did_you_mean("zzz", ["call_duration", "sid"]), None);
    }
}
