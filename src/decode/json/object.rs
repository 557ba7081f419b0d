//! Reading an object into a row of columns.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::Fields;

use super::column::{Column, Nulls};
use super::fault::{Fault, Step};
use super::keys::{Keys, START, UNKNOWN};
use super::scan::{Rescued, Scan};
use crate::decode::Formats;
use crate::error::Result;

/// One field of an object.
#[derive(Debug)]
struct Member {
    column: Column,
    /// Rows the column has. While row r is read, r + 1 says that the record has given the field already.
    len: usize,
    /// The row the field got from a key that matches only ignoring case; an exact one would win.
    inexact: usize,
}

/// The fields of a STRUCT, or of the record itself.
#[derive(Debug)]
pub(crate) struct Object {
    fields: Fields,
    pub keys: Keys,
    members: Vec<Member>,
    len: usize,
    nulls: Nulls,
}

/// The scanner's state at the start of a field's value.
#[derive(Clone, Copy)]
struct Value {
    key_at: usize,
    at: usize,
    depth: usize,
    rescued: usize,
    field: u32,
}

/// Fields of the object being read whose value does not fit. Not an error before the object's end: a later duplicate may fit.
type Failed = Vec<(u32, Box<Fault>)>;

impl Object {
    /// An empty one. `path` is its dotted name, empty for the record.
    pub fn new(fields: &Fields, path: &str, formats: &Formats) -> Result<Self> {
        let mut members = Vec::with_capacity(fields.len());
        for field in fields {
            let path = if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
            let column = Column::new(field.data_type(), &path, formats)?;
            members.push(Member { column, len: 0, inexact: usize::MAX });
        }
        let keys = Keys::new(fields.iter().map(|f| f.name().as_str()));
        Ok(Object { fields: fields.clone(), keys, members, len: 0, nulls: Nulls::default() })
    }

    /// Number of whole rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether row `row` is null as a whole.
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.contains(row)
    }

    /// The column of field `index`. Who appends to it calls [`Object::complete`] when the row is whole.
    pub fn column_mut(&mut self, index: usize) -> &mut Column {
        &mut self.members[index].column
    }

    /// Ends a row that was written through [`Object::column_mut`]: columns without a value get NULL.
    pub fn complete(&mut self) {
        for member in &mut self.members {
            if member.column.len() == self.len {
                member.column.push_null();
            }
            member.len = self.len + 1;
        }
        self.len += 1;
    }

    /// Appends a row that is null as a whole.
    pub fn push_null(&mut self) {
        self.nulls.push(self.len);
        self.complete();
    }

    /// Drops everything behind the first `len` rows, half-read rows too.
    pub fn truncate(&mut self, len: usize) {
        for member in &mut self.members {
            member.column.truncate(len);
            member.len = member.len.min(len);
            member.inexact = usize::MAX;
        }
        self.nulls.truncate(len);
        self.len = self.len.min(len);
    }

    /// Everything as arrays; empty afterwards.
    pub fn finish(&mut self) -> Result<(Fields, usize, Option<NullBuffer>, Vec<ArrayRef>)> {
        let len = std::mem::take(&mut self.len);
        let nulls = self.nulls.finish(len);
        let mut arrays = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            arrays.push(member.column.finish()?);
            member.len = 0;
            member.inexact = usize::MAX;
        }
        Ok((self.fields.clone(), len, nulls, arrays))
    }

    /// Reads the object whose brace is the next byte as one more row. After an error the row is half read: truncate.
    pub fn read(&mut self, s: &mut Scan<'_>) -> Step {
        let row = self.len;
        let mark = s.rescued.len();
        let mut failed: Option<Box<Failed>> = None;
        let mut filled = 0;
        let mut previous = START;
        s.enter()?;
        let depth = s.depth;
        if s.peek() != b'}' {
            loop {
                let key_at = s.at;
                let meaning = self.keys.read(s, &mut previous)?;
                match self.members.get_mut(meaning.field as usize) {
                    None => skip_unknown(s, key_at)?,
                    Some(member) => 'member: {
                        if member.len != row {
                            // The field has its value already: the last one counts, but an exact name beats the others.
                            if !meaning.exact && member.inexact != row {
                                skip_unknown(s, key_at)?;
                                break 'member;
                            }
                            member.column.truncate(row);
                            member.inexact = usize::MAX;
                            member.len = row;
                            filled -= 1;
                            forget(s, mark, &mut failed, meaning.field);
                        }
                        if !meaning.exact {
                            member.inexact = row;
                        }
                        let value = Value { key_at, at: s.at, depth, rescued: s.rescued.len(), field: meaning.field };
                        if let Err(fault) = member.column.read(s) {
                            member.column.truncate(row);
                            if let Some(fault) = recover(s, fault, value)? {
                                let name = self.fields[meaning.field as usize].name();
                                failed.get_or_insert_default().push((meaning.field, fault.within(name)));
                            }
                            member.column.push_null();
                        } else if s.rescued.len() > value.rescued {
                            nest(s, &member.column, value);
                        }
                        member.len = row + 1;
                        filled += 1;
                    }
                }
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
        if let Some(mut failed) = failed
            && !failed.is_empty()
        {
            return Err(failed.swap_remove(0).1);
        }
        if filled < self.members.len() {
            for member in &mut self.members {
                if member.len == row {
                    member.column.push_null();
                    member.len = row + 1;
                }
            }
        }
        self.len = row + 1;
        Ok(())
    }
}

/// Skips the value of a field without a column; `key_at` is where its key stands.
#[inline]
fn skip_unknown(s: &mut Scan<'_>, key_at: usize) -> Step {
    let value_at = s.at;
    s.skip()?;
    if s.rescue {
        let value = s.bytes[value_at..s.at].to_vec();
        rescue(s, key_at, UNKNOWN, value);
    }
    Ok(())
}

/// After a value that does not fit its column: goes on behind it, if the record's grammar allows. Returns the fault unless the
/// value is rescued.
#[cold]
fn recover(s: &mut Scan<'_>, fault: Box<Fault>, value: Value) -> Step<Option<Box<Fault>>> {
    if fault.syntax {
        return Err(fault);
    }
    s.rescued.truncate(value.rescued);
    s.depth = value.depth;
    s.at = value.at;
    s.skip()?;
    if !s.rescue {
        return Ok(Some(fault));
    }
    let text = s.bytes[value.at..s.at].to_vec();
    rescue(s, value.key_at, value.field, text);
    Ok(None)
}

/// A duplicate replaces the field: what was wrong with the earlier value no longer matters.
#[cold]
fn forget(s: &mut Scan<'_>, mark: usize, failed: &mut Option<Box<Failed>>, field: u32) {
    if let Some(failed) = failed {
        failed.retain(|(other, _)| *other != field);
    }
    let mut index = 0;
    s.rescued.retain(|item| {
        index += 1;
        index <= mark || item.field != field
    });
}

/// What was rescued inside a field's value becomes one rescued member of this object.
#[cold]
fn nest(s: &mut Scan<'_>, column: &Column, value: Value) {
    let text = match column {
        Column::Struct(_) => to_object(&s.rescued[value.rescued..]),
        // Which item of an ARRAY or MAP it was is clear only from the whole.
        _ => s.bytes[value.at..s.at].to_vec(),
    };
    s.rescued.truncate(value.rescued);
    rescue(s, value.key_at, value.field, text);
}

fn rescue(s: &mut Scan<'_>, key_at: usize, field: u32, value: Vec<u8>) {
    let mut key = Scan { bytes: s.bytes, at: key_at, ..Scan::default() };
    let key = key.string().map(|text| text.raw.to_vec()).unwrap_or_default();
    s.rescued.push(Rescued { field, key, value });
}

/// Rescued members as JSON text. Of members with one key the last stays.
pub(crate) fn to_object(items: &[Rescued]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (i, item) in items.iter().enumerate() {
        if items[i + 1..].iter().any(|later| later.key == item.key) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(&item.key);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(&item.value);
    }
    out.push(b'}');
    out
}
