//! The only place that writes to stdout and stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use arrow::array::RecordBatch;
use std::io::{IsTerminal, Write};

use super::args::Output;
use crate::error::{Error, Result};

/// A line of results or progress. A reader that went away (`| head`) is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line about something wrong.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `14:05:12`, UTC.
#[allow(clippy::disallowed_methods)]
pub(super) fn clock() -> String {
    chrono::Utc::now().format("%H:%M:%S").to_string()
}

/// An instant (µs) as people write it, UTC.
pub(super) fn instant(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Rows as a table, JSON lines or CSV.
pub(super) fn batches(batches: &[RecordBatch], output: Output) -> Result<()> {
    match output {
        Output::Table => {
            let options = arrow::util::display::FormatOptions::default().with_null("NULL");
            let text = arrow::util::pretty::pretty_format_batches_with_options(batches, &options)?;
            line(&text.to_string());
        }
        Output::Json => crate::runtime::write_json_lines(batches, std::io::stdout().lock())?,
        Output::Csv => {
            let mut writer = arrow::csv::Writer::new(std::io::stdout().lock());
            for batch in batches {
                writer.write(batch)?;
            }
        }
    }
    Ok(())
}

/// What is under way, on one line of the terminal that the next one replaces; nothing where stderr is no terminal.
pub(super) struct Status {
    shown: bool,
}

impl Status {
    pub(super) fn new(quiet: bool) -> Self {
        Status { shown: !quiet && std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, text: &str) {
        if self.shown {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{text} …");
            let _ = stderr.flush();
        }
    }

    /// Before a line that stays, and at the end.
    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// All errors, and how many.
pub(super) fn errors(env: &crate::env::Env, errors: &[Error]) {
    for e in errors {
        error(&env.redact(&e.render()));
    }
    if errors.len() > 1 {
        error(&summary(errors));
    }
}

/// How many errors, and of what: `12 errors: 7 unknown-column, 3 unknown-ref, 2 type`; the most frequent first.
fn summary(errors: &[Error]) -> String {
    let mut causes: Vec<(&str, usize)> = Vec::new();
    for error in errors {
        match causes.iter_mut().find(|(code, _)| *code == error.code()) {
            Some((_, count)) => *count += 1,
            None => causes.push((error.code(), 1)),
        }
    }
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let causes: Vec<String> = causes.into_iter().map(|(code, count)| format!("{count} {code}")).collect();
    format!("{} errors: {}", errors.len(), causes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::summary;
    use crate::error::Error;

    #[test]
    fn errors_are_counted_by_cause_the_most_frequent_first() {
        let error = |code| Error::user(code, "x");
        let errors = [error("type"), error("unknown-ref"), error("unknown-column"), error("unknown-ref")];
        assert_eq!(summary(&errors), "4 errors: 2 unknown-ref, 1 type, 1 unknown-column");
    }
}

/// stderr for log lines: every line passes through [`crate::env::Env::redact`].
#[derive(Clone)]
pub(super) struct RedactedStderr(crate::env::Env);

impl RedactedStderr {
    pub(super) fn new(env: crate::env::Env) -> Self {
        RedactedStderr(env)
    }
}

impl Write for RedactedStderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = self.0.redact(&String::from_utf8_lossy(bytes));
        std::io::stderr().lock().write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for RedactedStderr {
    type Writer = RedactedStderr;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}
