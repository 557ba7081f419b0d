//! CSV → Arrow (RFC 4180): each record of a chunk is one CSV record, which may hold line breaks inside quotes.
//!
//! Cells become values by the rules for text in JSON; a cell of STRUCT, ARRAY or MAP holds JSON. An empty cell without quotes is
//! NULL, `""` is empty text. With a header columns are found by name (exactly, then ignoring case), without one by position.

use arrow::array::UInt32Array;

use super::json::column::Column;
use super::json::fault::{Fault, Step};
use super::json::keys::{Keys, UNKNOWN};
use super::json::scan::{Rescued, Scan};
use super::json::{Records, TOMBSTONE, payload};
use super::{DecodeOptions, Decoder};
use crate::error::{Error, Result};
use crate::types::{DecodedChunk, RawChunk, RecordError};

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    pub delimiter: u8,
    pub quote: u8,
    /// A cell without quotes that reads like this is NULL, besides the empty one.
    pub null: Option<String>,
    /// Names of the cells, from the file's header line ([`parse_header`]); None: the declared columns, in order.
    pub header: Option<Vec<String>>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: b',', quote: b'"', null: None, header: None }
    }
}

/// The names in a header line.
pub fn parse_header(line: &[u8], options: &CsvOptions) -> Result<Vec<String>> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let bad = |reason: String| Error::user("csv-header", format!("the CSV header cannot be read: {reason}"));
    let mut cells = Cells::default();
    std::str::from_utf8(line).map_err(|_| bad("invalid UTF-8".into()))?;
    cells.split(line, options).map_err(|fault| bad(fault.reason(line)))?;
    let names: Vec<String> =
        (0..cells.len()).map(|i| String::from_utf8_lossy(cells.get(i).0).trim().to_string()).collect();
    if let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
        return Err(bad(format!("column `{}` stands twice", names[twice])));
    }
    Ok(names)
}

/// The records of a whole file as byte ranges without their line breaks, blank lines left out. A quote that is never closed
/// makes the rest of the file one (bad) record.
pub fn split_records(content: &[u8], options: &CsvOptions) -> Vec<std::ops::Range<usize>> {
    let mut records = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut push = |start: usize, end: usize| {
        let end = if end > start && content[end - 1] == b'\r' { end - 1 } else { end };
        if content[start..end].iter().any(|b| !b.is_ascii_whitespace()) {
            records.push(start..end);
        }
    };
    for at in memchr::memchr2_iter(b'\n', options.quote, content) {
        if content[at] == options.quote {
            // A doubled quote toggles twice.
            quoted = !quoted;
        } else if !quoted {
            push(start, at);
            start = at + 1;
        }
    }
    push(start, content.len());
    records
}

/// The cells of a record as texts, empty ones without quotes as `None`; the reason if it is no CSV record.
pub fn cells(record: &[u8], options: &CsvOptions) -> std::result::Result<Vec<Option<String>>, String> {
    let mut cells = Cells::default();
    cells.split(record, options).map_err(|fault| fault.reason(record))?;
    let cell = |i| {
        let (text, _, quoted) = cells.get(i);
        (quoted || !text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    };
    Ok((0..cells.len()).map(cell).collect())
}

/// The cells of one record.
#[derive(Debug, Default)]
struct Cells {
    text: Vec<u8>,
    /// End of each cell in `text`, where it begins in the record, and whether it stood in quotes.
    cells: Vec<(usize, usize, bool)>,
}

impl Cells {
    fn len(&self) -> usize {
        self.cells.len()
    }

    /// Cell `i`, where it stands, and whether it was quoted.
    fn get(&self, i: usize) -> (&[u8], usize, bool) {
        let start = if i == 0 { 0 } else { self.cells[i - 1].0 };
        let (end, at, quoted) = self.cells[i];
        (&self.text[start..end], at, quoted)
    }

    fn split(&mut self, record: &[u8], options: &CsvOptions) -> Step {
        self.text.clear();
        self.cells.clear();
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        let mut at = 0;
        loop {
            let start = at;
            let quoted = record.get(at) == Some(&options.quote);
            if quoted {
                at += 1;
                loop {
                    let Some(len) = memchr::memchr(options.quote, &record[at..]) else {
                        return Err(Fault::syntax(start, "this quote is never closed"));
                    };
                    self.text.extend_from_slice(&record[at..at + len]);
                    at += len + 1;
                    if record.get(at) != Some(&options.quote) {
                        break;
                    }
                    self.text.push(options.quote);
                    at += 1;
                }
                if record.get(at).is_some_and(|b| *b != options.delimiter) {
                    return Err(Fault::syntax(at, "unexpected text after a closing quote"));
                }
            } else {
                let rest = &record[at..];
                let cell = &rest[..memchr::memchr(options.delimiter, rest).unwrap_or(rest.len())];
                if let Some(stray) = memchr::memchr3(options.quote, b'\n', b'\r', cell) {
                    let what = if cell[stray] == options.quote { "a quote" } else { "a line break" };
                    return Err(Fault::syntax(at + stray, format!("{what} inside a cell without quotes")));
                }
                self.text.extend_from_slice(cell);
                at += cell.len();
            }
            self.cells.push((self.text.len(), start, quoted));
            if at == record.len() {
                return Ok(());
            }
            at += 1;
        }
    }
}

/// `format: csv`.
#[derive(Debug)]
pub struct CsvDecoder {
    records: Records,
    options: CsvOptions,
    /// Per cell its name and the column it goes to, or [`UNKNOWN`].
    targets: Vec<(String, u32)>,
    cells: Cells,
}

impl CsvDecoder {
    pub fn new(options: &DecodeOptions) -> Result<Self> {
        let declared = options.columns.fields();
        let keys = Keys::new(declared.iter().map(|f| f.name().as_str()));
        let mut targets = Vec::new();
        match &options.csv.header {
            None => targets.extend(declared.iter().enumerate().map(|(i, f)| (f.name().clone(), i as u32))),
            Some(header) => {
                let meanings: Vec<_> = header.iter().map(|name| keys.resolve(name)).collect();
                for (i, name) in header.iter().enumerate() {
                    // A column is filled once: by its exact name, else by the first that matches.
                    let rivals = |j: &usize| meanings[*j].field == meanings[i].field;
                    let best = (0..meanings.len()).filter(rivals).find(|j| meanings[*j].exact);
                    let best = best.or_else(|| (0..meanings.len()).find(rivals));
                    targets.push((name.clone(), if best == Some(i) { meanings[i].field } else { UNKNOWN }));
                }
            }
        }
        Ok(CsvDecoder {
            records: Records::new(options)?,
            options: options.csv.clone(),
            targets,
            cells: Cells::default(),
        })
    }

    fn record(&mut self, s: &mut Scan<'_>, payload: Step<&[u8]>) -> Step {
        let payload = payload?;
        // The cells of this record live only as long as it does, the scanner as long as the chunk: it serves for what it rescues.
        s.start(b"");
        self.cells.split(payload, &self.options)?;
        if self.cells.len() != self.targets.len() {
            let message = format!("{} cells, but {} columns", self.cells.len(), self.targets.len());
            return Err(Fault::syntax(0, message));
        }
        for (i, (name, target)) in self.targets.iter().enumerate() {
            let (text, at, quoted) = self.cells.get(i);
            let null = !quoted && (text.is_empty() || self.options.null.as_ref().is_some_and(|n| n.as_bytes() == text));
            if *target == UNKNOWN {
                if s.rescue && !null {
                    s.rescued.push(rescued(UNKNOWN, name, text));
                }
                continue;
            }
            let column = self.records.root.column_mut(*target as usize);
            let row = column.len();
            if null {
                column.push_null();
            } else if let Err(message) = push_cell(column, text) {
                column.truncate(row);
                if !s.rescue {
                    return Err(Fault::convert(at, message).within(name));
                }
                column.push_null();
                s.rescued.push(rescued(*target, name, text));
            }
        }
        self.records.root.complete();
        self.records.rescue(s);
        Ok(())
    }
}

/// Appends the value of a cell.
fn push_cell(column: &mut Column, text: &[u8]) -> std::result::Result<(), String> {
    if !matches!(column, Column::Struct(_) | Column::List(_) | Column::Map(_)) {
        return column.push_text(text);
    }
    let mut s = Scan::default();
    s.start(text);
    s.space();
    column.read(&mut s).and_then(|()| s.end()).map_err(|fault| fault.reason(text))
}

fn rescued(field: u32, name: &str, text: &[u8]) -> Rescued {
    let json = |text: &str| serde_json::Value::from(text).to_string().into_bytes();
    let quoted = json(name);
    Rescued { field, key: quoted[1..quoted.len() - 1].to_vec(), value: json(&String::from_utf8_lossy(text)) }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk> {
        let mut s = self.records.scan();
        let mut records = Vec::with_capacity(chunk.len());
        let mut errors = Vec::new();
        for i in 0..chunk.len() {
            let row = self.records.len();
            let read = match payload(chunk, i) {
                Some(payload) => {
                    self.record(&mut s, payload).map_err(|fault| fault.reason(chunk.values.get(i).bytes()))
                }
                None => Err(TOMBSTONE.to_string()),
            };
            if let Err(reason) = read {
                errors.push(RecordError { record: i as u32, reason });
                if !self.records.give_up(row) {
                    continue;
                }
            }
            records.push(i as u32);
        }
        let (rows, rescued) = self.records.finish()?;
        Ok(DecodedChunk { rows, records: UInt32Array::from(records), weights: None, rescued, errors })
    }
}
