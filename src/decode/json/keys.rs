//! Which field a key means.
//!
//! Records of one topic look alike, so an object remembers every spelling of a key it has met and which one followed which:
//! reading a key is usually one comparison with the one expected next, whatever order the producer writes in and also for
//! fields without a column.

use hashbrown::HashMap;

use super::fault::Step;
use super::scan::{Scan, Text, unescape};

/// No field: the value is skipped.
pub(crate) const UNKNOWN: u32 = u32::MAX;
/// Before the first key of an object.
pub(crate) const START: u32 = 0;
/// Spellings remembered at most; further ones are looked up each time.
const MAX_SPELLINGS: usize = 1024;
/// Longer keys are not remembered.
const MAX_LENGTH: usize = 256;

/// What a key means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meaning {
    /// Index of the field, or [`UNKNOWN`].
    pub field: u32,
    /// Whether it is the field's name, and not merely equal but for case.
    pub exact: bool,
}

#[derive(Debug)]
struct Spelling {
    /// `"name":`, as it stands in records.
    quoted: Vec<u8>,
    meaning: Meaning,
}

/// The keys of an object.
#[derive(Debug)]
pub(crate) struct Keys {
    names: Vec<(String, String)>,
    spellings: Vec<Spelling>,
    /// By position in `spellings` + 1 (0: the object's start), the spelling that came next the last time.
    successors: Vec<u32>,
    by_text: HashMap<Vec<u8>, u32>,
}

impl Keys {
    /// The keys of an object with fields `names`, expected in this order.
    pub fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut keys = Keys {
            names: names.map(|n| (n.to_string(), n.to_lowercase())).collect(),
            spellings: Vec::new(),
            successors: vec![0],
            by_text: HashMap::new(),
        };
        for field in 0..keys.names.len() {
            let name = keys.names[field].0.clone().into_bytes();
            if !name.iter().any(|b| matches!(b, b'"' | b'\\') || *b < 0x20) {
                keys.learn(&name, Meaning { field: field as u32, exact: true });
                let last = keys.successors.len() - 1;
                keys.successors[last] = last as u32;
            }
        }
        keys
    }

    fn learn(&mut self, raw: &[u8], meaning: Meaning) -> u32 {
        let quoted = [b"\"", raw, b"\":"].concat();
        let spelling = self.spellings.len() as u32;
        self.spellings.push(Spelling { quoted, meaning });
        self.successors.push(u32::MAX);
        self.by_text.insert(raw.to_vec(), spelling);
        spelling
    }

    /// Reads a key, its colon and the space around; `previous` is what the last call left there, [`START`] at first.
    #[inline]
    pub fn read(&mut self, s: &mut Scan<'_>, previous: &mut u32) -> Step<Meaning> {
        let expected = self.successors[*previous as usize];
        if let Some(spelling) = self.spellings.get(expected as usize)
            && s.bytes[s.at..].starts_with(&spelling.quoted)
        {
            s.at += spelling.quoted.len();
            s.space();
            *previous = expected + 1;
            return Ok(spelling.meaning);
        }
        self.find(s, previous)
    }

    #[inline(never)]
    fn find(&mut self, s: &mut Scan<'_>, previous: &mut u32) -> Step<Meaning> {
        if s.peek() != b'"' {
            return Err(s.unexpected("a key in double quotes"));
        }
        let key = s.string()?;
        let spelling = match self.by_text.get(key.raw) {
            Some(spelling) => *spelling,
            None => {
                let meaning = self.meaning(key)?;
                if self.spellings.len() >= MAX_SPELLINGS || key.raw.len() > MAX_LENGTH {
                    s.expect(b':', "`:`")?;
                    return Ok(meaning);
                }
                self.learn(key.raw, meaning)
            }
        };
        s.expect(b':', "`:`")?;
        self.successors[*previous as usize] = spelling;
        *previous = spelling + 1;
        Ok(self.spellings[spelling as usize].meaning)
    }

    fn meaning(&self, key: Text<'_>) -> Step<Meaning> {
        let mut text = Vec::with_capacity(key.raw.len());
        unescape(key, |piece| text.extend_from_slice(piece))?;
        let name = String::from_utf8_lossy(&text);
        Ok(self.resolve(&name))
    }

    /// The field called `name`: exactly, else ignoring case.
    pub fn resolve(&self, name: &str) -> Meaning {
        if let Some(field) = self.names.iter().position(|(exact, _)| exact == name) {
            return Meaning { field: field as u32, exact: true };
        }
        let lower = name.to_lowercase();
        match self.names.iter().position(|(_, folded)| *folded == lower) {
            Some(field) => Meaning { field: field as u32, exact: false },
            None => Meaning { field: UNKNOWN, exact: false },
        }
    }
}
