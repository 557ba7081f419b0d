//! Debezium change events as JSON → rows with weights.
//!
//! An event is `{before, after, op, ts_ms, …}`, bare or as `payload` beside Kafka Connect's `schema`; `op` is c (create), r
//! (read by a snapshot), u (update), d (delete).
//!
//! - Without a primary key the rows are Z-set changes: `before` counts −1, `after` +1, so an update or delete needs its whole
//!   `before` (PostgreSQL: `REPLICA IDENTITY FULL`). Tombstones say nothing new and give no row.
//! - With a primary key they are upserts and deletes: `after` is +1, a delete −1 with the row in `before`, or with only the
//!   key columns from the record's key. So is a tombstone, since after compaction it can be all that is left of a delete.
//!
//! An event is good or bad as a whole: an update with a bad `after` leaves no `before` either.

use arrow::array::{Array, BinaryArray, Int64Array, UInt32Array};

use super::json::fault::{Fault, Step};
use super::json::scan::Scan;
use super::json::{Records, payload};
use super::{DecodeOptions, Decoder};
use crate::error::{Error, Result, did_you_mean};
use crate::types::{DecodedChunk, RawChunk, RecordError};

/// Where the parts of an event begin in the record; `None` when absent.
#[derive(Debug, Default, Clone, Copy)]
struct Envelope {
    before: Option<usize>,
    after: Option<usize>,
    op: Option<usize>,
    payload: Option<usize>,
}

/// `format: debezium-json`.
#[derive(Debug)]
pub struct DebeziumJsonDecoder {
    records: Records,
    /// Indices of the primary key's columns.
    key: Vec<usize>,
    names: Vec<String>,
    weights: Vec<i64>,
}

impl DebeziumJsonDecoder {
    pub fn new(options: &DecodeOptions) -> Result<Self> {
        let fields = options.columns.fields();
        let mut key = Vec::new();
        for name in &options.primary_key {
            let position = fields.iter().position(|f| f.name() == name);
            let position =
                position.or_else(|| fields.iter().position(|f| f.name().to_lowercase() == name.to_lowercase()));
            let Some(position) = position else {
                let error =
                    Error::user("unknown-column", format!("primary_key names `{name}`, which is no declared column"));
                let near = did_you_mean(name, fields.iter().map(|f| f.name().as_str()));
                return Err(match near {
                    Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                    None => error,
                });
            };
            key.push(position);
        }
        let names = key.iter().map(|i| fields[*i].name().clone()).collect();
        Ok(DebeziumJsonDecoder { records: Records::new(options)?, key, names, weights: Vec::new() })
    }

    fn event<'a>(&mut self, s: &mut Scan<'a>, payload: Step<&'a [u8]>, key: Option<&'a [u8]>) -> Step {
        s.start(payload?);
        s.space();
        let Some((envelope, op)) = read_event(s)? else {
            return self.tombstone(s, key);
        };
        let present = |at: Option<usize>| at.filter(|at| s.bytes[*at] != b'n');
        let (before, after) = (present(envelope.before), present(envelope.after));
        let keyed = !self.key.is_empty();
        let op_at = envelope.op.unwrap_or(0);
        let missing = |what: &str| Fault::convert(op_at, what);
        match op {
            b'c' | b'r' => self.row(s, after.ok_or_else(|| missing("an event that creates a row has no `after`"))?, 1),
            b'u' => {
                let after = after.ok_or_else(|| missing("an update has no `after`"))?;
                if !keyed {
                    let before = before.ok_or_else(|| {
                        missing("an update has no `before`: declare a primary_key, or have the database log whole rows")
                    })?;
                    self.row(s, before, -1)?;
                }
                self.row(s, after, 1)
            }
            b'd' => match before {
                Some(before) if !keyed => self.row(s, before, -1),
                // The key is in `before` unless the database does not log it.
                Some(before) => {
                    let row = self.records.len();
                    match (self.row(s, before, -1), key) {
                        (Err(fault), Some(key)) if !fault.syntax => {
                            self.truncate(row);
                            self.delete_by(s, key)
                        }
                        (read, _) => read,
                    }
                }
                None if keyed => match key {
                    Some(key) => self.delete_by(s, key),
                    None => Err(missing("a delete has neither `before` nor a record key")),
                },
                None => {
                    Err(missing("a delete has no `before`: declare a primary_key, or have the database log whole rows"))
                }
            },
            // A logical decoding message.
            b'm' => Ok(()),
            b't' => Err(missing("the table was truncated (op t): no single row says so; reload the source")),
            _ => Err(missing("op is none of c, r, u, d")),
        }
    }

    /// Reads the row at `at` with `weight`.
    fn row(&mut self, s: &mut Scan<'_>, at: usize, weight: i64) -> Step {
        s.at = at;
        s.depth = 0;
        if s.peek() != b'{' {
            return Err(Fault::convert(at, "`before` and `after` are objects"));
        }
        self.records.read(s)?;
        self.weights.push(weight);
        self.check_key(at)
    }

    /// The last row's key must be whole.
    fn check_key(&mut self, at: usize) -> Step {
        let row = self.records.len() - 1;
        for (i, name) in self.key.iter().zip(&self.names) {
            if self.records.root.column_mut(*i).is_null(row) {
                return Err(Fault::convert(at, format!("the primary key's column `{name}` is NULL")));
            }
        }
        Ok(())
    }

    fn tombstone<'a>(&mut self, s: &mut Scan<'a>, key: Option<&'a [u8]>) -> Step {
        match key {
            Some(key) if !self.key.is_empty() => self.delete_by(s, key),
            _ => Ok(()),
        }
    }

    /// A row with weight −1 that has nothing but the key columns, from the record's key: an object of them, or the bare value of
    /// the only one; either may be the `payload` beside a `schema`.
    fn delete_by<'a>(&mut self, s: &mut Scan<'a>, key: &'a [u8]) -> Step {
        self.read_key(s, key).map_err(|mut fault| {
            fault.message = format!("record key, character {}: {}", fault.at + 1, fault.message);
            fault.at = 0;
            fault
        })
    }

    fn read_key<'a>(&mut self, s: &mut Scan<'a>, key: &'a [u8]) -> Step {
        if let Err(e) = std::str::from_utf8(key) {
            return Err(Fault::syntax(e.valid_up_to(), "invalid UTF-8"));
        }
        s.start(key);
        s.space();
        let mut at = s.at;
        if s.peek() == b'{' {
            let envelope = read_envelope(s)?;
            // A key column may itself be called payload; then it is no wrapper.
            if let Some(payload) =
                envelope.payload.filter(|_| !self.names.iter().any(|n| n.eq_ignore_ascii_case("payload")))
            {
                at = payload;
            }
        } else {
            s.skip()?;
        }
        s.end()?;
        s.at = at;
        s.depth = 0;
        // What else the key holds is not worth rescuing.
        s.rescue = false;
        let read = match (s.peek(), &self.key[..]) {
            (b'{', _) => self.records.root.read(s),
            (_, [only]) => {
                let read = self.records.root.column_mut(*only).read(s);
                if read.is_ok() {
                    self.records.root.complete();
                }
                read
            }
            _ => Err(Fault::convert(at, "the record key is no object")),
        };
        s.rescue = self.records.rescues();
        s.rescued.clear();
        read?;
        self.records.rescue(s);
        self.weights.push(-1);
        self.check_key(at)
    }

    fn truncate(&mut self, row: usize) {
        self.records.truncate(row);
        self.weights.truncate(row);
    }
}

/// The event in the record and its `op`; `None` for a wrapped tombstone (`payload: null`). The cursor ends behind the record.
fn read_event(s: &mut Scan<'_>) -> Step<Option<(Envelope, u8)>> {
    if s.peek() != b'{' {
        return Err(super::json::not_an_object(s));
    }
    let mut envelope = read_envelope(s)?;
    s.end()?;
    if envelope.op.is_none()
        && let Some(payload) = envelope.payload
    {
        s.at = payload;
        match s.peek() {
            b'n' => return Ok(None),
            b'{' => envelope = read_envelope(s)?,
            _ => return Err(Fault::convert(payload, "`payload` is no object")),
        }
    }
    let Some(at) = envelope.op else {
        return Err(Fault::convert(0, "no change event: `op` is missing"));
    };
    let op = match &s.bytes[at..] {
        [b'"', op, b'"', ..] => *op,
        _ => return Err(Fault::convert(at, "op is none of c, r, u, d")),
    };
    Ok(Some((envelope, op)))
}

/// Where the parts of the object at the cursor begin; its grammar is checked on the way.
fn read_envelope(s: &mut Scan<'_>) -> Step<Envelope> {
    let mut envelope = Envelope::default();
    s.enter()?;
    if s.peek() != b'}' {
        loop {
            if s.peek() != b'"' {
                return Err(s.unexpected("a key in double quotes"));
            }
            let key_at = s.at;
            let key = s.string()?;
            if key.escaped {
                s.at = key_at;
                s.skip()?;
            }
            s.expect(b':', "`:`")?;
            let at = Some(s.at);
            match key.raw {
                b"before" => envelope.before = at,
                b"after" => envelope.after = at,
                b"op" => envelope.op = at,
                b"payload" => envelope.payload = at,
                _ => {}
            }
            s.skip()?;
            s.space();
            match s.peek() {
                b',' => {
                    s.at += 1;
                    s.space();
                }
                b'}' => break,
                _ => return Err(s.unexpected("`,` or `}`")),
            }
        }
    }
    s.leave();
    Ok(envelope)
}

fn key_of(keys: Option<&BinaryArray>, i: usize) -> Option<&[u8]> {
    keys.filter(|keys| !keys.is_null(i)).map(|keys| keys.value(i))
}

impl Decoder for DebeziumJsonDecoder {
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk> {
        let mut s = self.records.scan();
        let mut records: Vec<u32> = Vec::with_capacity(chunk.len());
        let mut errors = Vec::new();
        self.weights = Vec::with_capacity(chunk.len());
        for i in 0..chunk.len() {
            let row = self.records.len();
            let key = key_of(chunk.keys.as_ref(), i);
            let read = match payload(chunk, i) {
                None => self.tombstone(&mut s, key),
                Some(payload) => self.event(&mut s, payload, key),
            };
            if let Err(fault) = read {
                errors.push(RecordError { record: i as u32, reason: fault.reason(chunk.values.get(i).bytes()) });
                self.weights.truncate(row);
                if self.records.give_up(row) {
                    self.weights.push(1);
                }
            }
            records.resize(self.records.len(), i as u32);
        }
        let (rows, rescued) = self.records.finish()?;
        let weights = Some(Int64Array::from(std::mem::take(&mut self.weights)));
        Ok(DecodedChunk { rows, records: UInt32Array::from(records), weights, rescued, errors })
    }
}
