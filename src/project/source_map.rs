//! From compiled SQL back to the file a person wrote.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Span;

/// Maps byte offsets in compiled SQL to byte offsets in the model's file.
#[derive(Debug, Clone)]
pub struct SourceMap {
    file: PathBuf,
    content: Arc<str>,
    /// Ascending by start in compiled, without gaps.
    pieces: Vec<Piece>,
}

/// A run of compiled text and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Byte offset in the compiled text.
    pub compiled: usize,
    /// Byte offset in the file.
    pub file: usize,
    /// Bytes in the compiled text.
    pub len: usize,
    /// `None`: the text is copied unchanged, so offsets inside it map one to one. Otherwise all of it maps to so many bytes
    /// at `file`: the Jinja expression that produced it.
    pub produced_by: Option<usize>,
}

impl SourceMap {
    /// A map for `file`, whose text is `content`.
    pub fn new(file: PathBuf, content: impl Into<Arc<str>>, pieces: Vec<Piece>) -> Self {
        SourceMap { file, content: content.into(), pieces }
    }

    /// A file without Jinja: compiled text and file are the same.
    pub fn verbatim(file: PathBuf, content: impl Into<Arc<str>>) -> Self {
        let content = content.into();
        let pieces = vec![Piece { compiled: 0, file: 0, len: content.len(), produced_by: None }];
        SourceMap { file, content, pieces }
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.content
    }

    /// The place in the file of `len` bytes at byte `offset` of the compiled text.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        let index = self.pieces.partition_point(|p| p.compiled <= offset);
        let (at, len) = match index.checked_sub(1).map(|i| self.pieces[i]) {
            Some(Piece { file, produced_by: Some(width), .. }) => (file, width),
            Some(p) => (p.file + (offset - p.compiled).min(p.len), len),
            None => (0, len),
        };
        Span::at(self.file.clone(), &self.content, at, len)
    }

    /// The place of 1-based `line` and `column` (characters) of `compiled`, the compiled text.
    pub fn span_at_line(&self, compiled: &str, line: usize, column: usize, width: usize) -> Span {
        let start: usize = compiled.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = compiled.get(start..).unwrap_or("");
        let within: usize = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
        let bytes = rest[within..].chars().take(width).map(char::len_utf8).sum();
        self.span(start + within, bytes)
    }

    /// The map of a text in which `before` bytes stand before the compiled text and `after` behind it; both lead to its start.
    pub fn within(&self, before: usize, after: usize) -> SourceMap {
        let (at, width) = self.first();
        let around = |compiled: usize, len: usize| Piece { compiled, file: at, len, produced_by: Some(width) };
        let end = self.pieces.last().map_or(0, |p| p.compiled + p.len);
        let mut pieces = vec![around(0, before)];
        pieces.extend(self.pieces.iter().map(|p| Piece { compiled: p.compiled + before, ..*p }));
        pieces.push(around(before + end, after));
        SourceMap { pieces, ..self.clone() }
    }

    /// The map of another text, all of which leads to this one's start.
    pub fn at_start(&self, text: &str) -> SourceMap {
        let (at, width) = self.first();
        let piece = Piece { compiled: 0, file: at, len: text.len(), produced_by: Some(width) };
        SourceMap { pieces: vec![piece], ..self.clone() }
    }

    /// Start and length in the file of the first piece.
    fn first(&self) -> (usize, usize) {
        let at = self.pieces.iter().find(|p| p.len > 0);
        (at.map_or(0, |p| p.file), at.and_then(|p| p.produced_by).unwrap_or(1))
    }

    /// The whole compiled text, as one place: the start of the file's first piece.
    pub fn start(&self) -> Span {
        let (at, width) = self.first();
        Span::at(self.file.clone(), &self.content, at, width)
    }
}
