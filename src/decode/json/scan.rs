//! The scanner: a cursor over one record's bytes that knows JSON's grammar (RFC 8259) and nothing of types.
//!
//! The bytes are valid UTF-8 (the decoder has checked), so text between two quotes is text. Inside a record nothing is allocated
//! unless something is wrong: strings come back as slices of the record.

use super::fault::{Fault, Step};
use super::number::{self, Number};

/// Containers nest at most so deep, counted from the record's root.
pub(crate) const MAX_DEPTH: usize = 128;

/// A string as it stands in the record, without its quotes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub raw: &'a [u8],
    /// Where `raw` begins in the record.
    pub at: usize,
    /// Whether `raw` has escapes, so that it must go through [`unescape`].
    pub escaped: bool,
}

/// One field that has no column, or whose value is not of its column's type.
#[derive(Debug, Clone)]
pub(crate) struct Rescued {
    /// Index of the field in its object; `u32::MAX` for an unknown one.
    pub field: u32,
    /// The key as it stands in the record, without quotes.
    pub key: Vec<u8>,
    /// The value as JSON text.
    pub value: Vec<u8>,
}

/// Cursor over a record, with what reading needs besides: buffers live here so that they are allocated once per decoder.
#[derive(Debug, Default)]
pub(crate) struct Scan<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// Containers open at `at`.
    pub depth: usize,
    /// Whether unknown and unconvertible fields are kept in `rescued` (else unknown ones are dropped, unconvertible ones fail).
    pub rescue: bool,
    /// Rescued fields of the objects being read, innermost last.
    pub rescued: Vec<Rescued>,
    /// For text with escapes.
    pub scratch: Vec<u8>,
}

impl<'a> Scan<'a> {
    /// Starts at the beginning of another record.
    #[inline]
    pub fn start(&mut self, bytes: &'a [u8]) {
        self.bytes = bytes;
        self.at = 0;
        self.depth = 0;
        self.rescued.clear();
    }

    /// The next byte; 0 at the end (a NUL is not JSON anywhere outside a string, and not bare inside one).
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space.
    #[inline(always)]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// After the last value of a record: only white space may follow.
    #[inline]
    pub fn end(&mut self) -> Step {
        self.space();
        if self.at < self.bytes.len() {
            return Err(Fault::syntax(self.at, "unexpected text after the end of the record"));
        }
        Ok(())
    }

    /// Skips `byte` and white space after it.
    #[inline(always)]
    pub fn expect(&mut self, byte: u8, wanted: &'static str) -> Step {
        self.space();
        if self.peek() != byte {
            return Err(self.unexpected(wanted));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    #[cold]
    pub fn unexpected(&self, wanted: &'static str) -> Box<Fault> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Fault::syntax(self.at, format!("the record ends where {wanted} should stand"));
        };
        let rest = String::from_utf8_lossy(&self.bytes[self.at..(self.at + 4).min(self.bytes.len())]).into_owned();
        match rest.chars().next() {
            Some(c) if !c.is_control() => Fault::syntax(self.at, format!("expected {wanted}, found `{c}`")),
            _ => Fault::syntax(self.at, format!("expected {wanted}, found byte 0x{byte:02x}")),
        }
    }

    /// Enters the container whose bracket is the next byte.
    #[inline(always)]
    pub fn enter(&mut self) -> Step {
        if self.depth == MAX_DEPTH {
            return Err(Fault::syntax(self.at, "nested deeper than 128 levels"));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Leaves the container whose closing bracket is the next byte.
    #[inline(always)]
    pub fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// The string whose opening quote is the next byte. Escapes are not looked at yet.
    #[inline]
    pub fn string(&mut self) -> Step<Text<'a>> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = find_special(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text { raw: &self.bytes[start..at], at: start, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => {
                    return Err(Fault::syntax(at, "a control character inside a string must be escaped"));
                }
                None => return Err(Fault::syntax(start - 1, "this string is never closed")),
            }
        }
    }

    /// The number that starts at the next byte, a digit or `-`.
    #[inline]
    pub fn number(&mut self) -> Step<Number> {
        match number::parse::<false>(self.bytes, self.at) {
            Ok((number, end)) => {
                self.at = end;
                Ok(number)
            }
            Err((at, message)) => Err(Fault::syntax(at, message)),
        }
    }

    /// Skips `word`, one of JSON's literals.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Step {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.unexpected("a value"))
    }

    /// Skips the value at the cursor, whatever it is, and checks its grammar. Not recursive: open containers are bits.
    pub fn skip(&mut self) -> Step {
        let base = self.depth;
        // Bit 0 belongs to the innermost container; set for an object.
        let mut objects: u128 = 0;
        loop {
            match self.peek() {
                b'"' => self.skip_string()?,
                b'-' | b'0'..=b'9' => drop(self.number()?),
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'{' => {
                    self.enter()?;
                    if self.peek() == b'}' {
                        self.leave();
                    } else {
                        objects = (objects << 1) | 1;
                        self.skip_key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.enter()?;
                    if self.peek() == b']' {
                        self.leave();
                    } else {
                        objects <<= 1;
                        continue;
                    }
                }
                _ => return Err(self.unexpected("a value")),
            }
            // A value has ended: so may the containers around it.
            loop {
                if self.depth == base {
                    return Ok(());
                }
                self.space();
                let object = objects & 1 == 1;
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return Err(self.unexpected(if object { "`,` or `}`" } else { "`,` or `]`" })),
                }
                self.leave();
                objects >>= 1;
            }
        }
    }

    fn skip_string(&mut self) -> Step {
        let text = self.string()?;
        if text.escaped {
            unescape(text, |_| {})?;
        }
        Ok(())
    }

    fn skip_key(&mut self) -> Step {
        if self.peek() != b'"' {
            return Err(self.unexpected("a key in double quotes"));
        }
        self.skip_string()?;
        self.expect(b':', "`:`")
    }
}

/// Index of the next quote, backslash or control character at or after `at`; the length when there is none.
///
/// Eight bytes at a time: `(x - 1) & !x & 0x80` marks zero bytes of x, exactly up to and including the first one, which is the
/// one we ask for; bytes below 0x20 likewise.
#[inline(always)]
fn find_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGH;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Gives the text of a string with escapes to `sink`, piece by piece.
pub(crate) fn unescape(text: Text<'_>, mut sink: impl FnMut(&[u8])) -> Step {
    let raw = text.raw;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &raw[at..]) {
        sink(&raw[at..at + found]);
        let start = at + found;
        at = start + 2;
        let fault = |message: &'static str| Fault::syntax(text.at + start, message);
        let byte = match raw.get(start + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let unit = hex4(raw, at).ok_or_else(|| fault("\\u needs four hexadecimal digits"))?;
                at += 4;
                let mut code = unit;
                if (0xD800..0xDC00).contains(&unit) && raw[at..].starts_with(b"\\u") {
                    let low = hex4(raw, at + 2).ok_or_else(|| fault("\\u needs four hexadecimal digits"))?;
                    if (0xDC00..0xE000).contains(&low) {
                        code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                        at += 6;
                    }
                }
                // What is left of the surrogates is no character.
                let c = char::from_u32(code).ok_or_else(|| fault("a lone surrogate is no character"))?;
                sink(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(fault("unknown escape")),
        };
        sink(&[byte]);
    }
    sink(&raw[at..]);
    Ok(())
}

fn hex4(raw: &[u8], at: usize) -> Option<u32> {
    raw.get(at..at + 4)?.iter().try_fold(0, |n, b| Some(n * 16 + (*b as char).to_digit(16)?))
}
