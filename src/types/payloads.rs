//! What records carry.

use arrow::array::{Array, ArrayBuilder as _, BinaryArray, BinaryBuilder, StringArray, StringBuilder};
use std::sync::Arc;

/// The payloads of a run of records: texts, which nearly all are, and beside them the few that are not UTF-8. Each is checked once, when it is
/// copied here; from then on its type says that it is text.
#[derive(Debug, Clone)]
pub struct Payloads {
    texts: StringArray,
    /// By index, ascending.
    others: Vec<(u32, Arc<[u8]>)>,
}

/// A payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    Text(&'a str),
    /// Not UTF-8.
    Bytes(&'a [u8]),
    /// The null value that deletes a key.
    Tombstone,
}

impl Payloads {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Payload `i`.
    #[inline]
    pub fn get(&self, i: usize) -> Payload<'_> {
        if self.texts.is_valid(i) {
            return Payload::Text(self.texts.value(i));
        }
        match self.others.binary_search_by_key(&(i as u32), |(at, _)| *at) {
            Ok(found) => Payload::Bytes(&self.others[found].1),
            Err(_) => Payload::Tombstone,
        }
    }

    /// The texts; NULL where the payload is none.
    pub fn texts(&self) -> &StringArray {
        &self.texts
    }

    /// The payloads that are no text; NULL elsewhere.
    pub fn others(&self) -> BinaryArray {
        if self.others.is_empty() {
            return BinaryArray::new_null(self.len());
        }
        let mut out = BinaryBuilder::new();
        let mut others = self.others.iter().peekable();
        for i in 0..self.len() as u32 {
            out.append_option(others.next_if(|(at, _)| *at == i).map(|(_, bytes)| bytes));
        }
        out.finish()
    }

    /// Those of `len` records from `from` on; texts are not copied.
    pub fn slice(&self, from: usize, len: usize) -> Self {
        let range = from as u32..(from + len) as u32;
        let others = self.others.iter().filter(|(at, _)| range.contains(at));
        Payloads {
            texts: self.texts.slice(from, len),
            others: others.map(|(at, bytes)| (at - range.start, Arc::clone(bytes))).collect(),
        }
    }
}

impl Payload<'_> {
    /// Its bytes; none of a tombstone.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Text(text) => text.as_bytes(),
            Payload::Bytes(bytes) => bytes,
            Payload::Tombstone => &[],
        }
    }
}

impl From<BinaryArray> for Payloads {
    fn from(values: BinaryArray) -> Self {
        // All valid, which is checked once over the whole buffer: no copy.
        if let Ok(texts) = StringArray::try_from_binary(values.clone()) {
            return Payloads { texts, others: Vec::new() };
        }
        values.iter().collect()
    }
}

impl<T: AsRef<[u8]>> FromIterator<Option<T>> for Payloads {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(values: I) -> Self {
        let mut builder = PayloadsBuilder::default();
        values.into_iter().for_each(|value| builder.push(value.as_ref().map(AsRef::as_ref)));
        builder.finish()
    }
}

/// Payloads being gathered.
#[derive(Debug)]
pub struct PayloadsBuilder {
    texts: StringBuilder,
    others: Vec<(u32, Arc<[u8]>)>,
    /// Number and bytes of texts that there will be room for from the first one on.
    room: (usize, usize),
}

impl Default for PayloadsBuilder {
    fn default() -> Self {
        PayloadsBuilder { texts: StringBuilder::new(), others: Vec::new(), room: (0, 0) }
    }
}

impl PayloadsBuilder {
    /// Appends a payload; none is a tombstone.
    #[inline]
    pub fn push(&mut self, payload: Option<&[u8]>) {
        if self.texts.is_empty() {
            // Not before: of a thousand partitions few may have records.
            self.texts = StringBuilder::with_capacity(self.room.0, self.room.1);
        }
        match payload.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
            Some(Ok(text)) => self.texts.append_value(text),
            Some(Err(bytes)) => {
                self.others.push((self.texts.len() as u32, Arc::from(bytes)));
                self.texts.append_null();
            }
            None => self.texts.append_null(),
        }
    }

    /// What was appended. The next payloads will probably be about as many and as long: where there is no room for the last one of them, the
    /// buffer is moved to one of twice the size.
    pub fn finish(&mut self) -> Payloads {
        let some_more = |size: usize| size + size / 4;
        self.room = (some_more(self.texts.len()), some_more(self.texts.values_slice().len()));
        let texts = std::mem::take(&mut self.texts).finish();
        Payloads { texts, others: std::mem::take(&mut self.others) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_stands_beside() {
        let all: [Option<&[u8]>; 5] = [Some(b"a"), Some(&[0xff]), None, Some("\u{e9}".as_bytes()), Some(&[0xfe, b'x'])];
        for payloads in [all.iter().copied().collect::<Payloads>(), BinaryArray::from_iter(all).into()] {
            let read: Vec<&[u8]> = (0..5).map(|i| payloads.get(i)).map(|p| all_of(p)).collect();
            assert_eq!(read, [&b"a"[..], &[0xff], b"-", "\u{e9}".as_bytes(), &[0xfe, b'x']]);
            assert_eq!(payloads.texts(), &StringArray::from(vec![Some("a"), None, None, Some("\u{e9}"), None]));
            let others = BinaryArray::from(vec![None, Some(&[0xff][..]), None, None, Some(&[0xfe, b'x'])]);
            assert_eq!(payloads.others(), others);
            let tail = payloads.slice(2, 3);
            assert_eq!((tail.get(0), tail.get(2)), (Payload::Tombstone, Payload::Bytes(&[0xfe, b'x'])));
            assert_eq!(tail.others(), others.slice(2, 3));
        }
    }

    fn all_of(payload: Payload<'_>) -> &[u8] {
        match payload {
            Payload::Text(text) => text.as_bytes(),
            Payload::Bytes(bytes) => bytes,
            Payload::Tombstone => b"-",
        }
    }
}
