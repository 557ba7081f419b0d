//! From compiled SQL back to the file a person wrote.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Span;

/// Maps byte offsets in compiled SQL to byte offsets in the model's file.
#[derive(Debug, Clone)]
pub struct SourceMap {
    file: PathBuf,
    content: Arc<str>,
    /// (start in compiled, start in file, length in compiled, verbatim), ascending by start in compiled.
    pieces: Vec<Piece>,
}

/// A run of compiled text and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Byte offset in the compiled text.
    pub compiled: usize,
    /// Byte offset in the file.
    pub file: usize,
    /// Bytes in the compiled text.
    pub len: usize,
    /// The text is copied unchanged, so offsets inside it map one to one; otherwise all of it maps to `file`
    /// (the start of the Jinja expression that produced it).
    pub verbatim: bool,
}

impl SourceMap {
    /// A map for `file`, whose text is `content`.
    pub fn new(file: PathBuf, content: impl Into<Arc<str>>, pieces: Vec<Piece>) -> Self {
        SourceMap { file, content: content.into(), pieces }
    }

    /// A file without Jinja: compiled text and file are the same.
    pub fn verbatim(file: PathBuf, content: impl Into<Arc<str>>) -> Self {
        let content = content.into();
        let pieces = vec![Piece { compiled: 0, file: 0, len: content.len(), verbatim: true }];
        SourceMap { file, content, pieces }
    }

    /// The place in the file of `len` bytes at byte `offset` of the compiled text.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        let index = self.pieces.partition_point(|p| p.compiled <= offset);
        let at = match index.checked_sub(1).map(|i| self.pieces[i]) {
            Some(p) if p.verbatim => p.file + (offset - p.compiled).min(p.len),
            Some(p) => p.file,
            None => 0,
        };
        Span::at(self.file.clone(), &self.content, at, len)
    }

    /// The place of 1-based `line` and `column` (characters) of `compiled`, the compiled text.
    pub fn span_at_line(&self, compiled: &str, line: usize, column: usize, width: usize) -> Span {
        let start: usize = compiled.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = compiled.get(start..).unwrap_or("");
        let within: usize = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
        self.span(start + within, width)
    }
}
