//! What is wrong with a record, and where.

/// Why a value could not be read. Boxed: the good path moves one pointer.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Byte in the record.
    pub at: usize,
    /// The record is no JSON at all. Otherwise only a value does not fit its column, and the rest can be read.
    pub syntax: bool,
    /// Names of the columns around the value, innermost first.
    pub path: Vec<String>,
    pub message: String,
}

/// Result of reading a part of a record.
pub(crate) type Step<T = ()> = std::result::Result<T, Box<Fault>>;

impl Fault {
    /// The record's grammar is broken at `at`.
    #[cold]
    pub fn syntax(at: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { at, syntax: true, path: Vec::new(), message: message.into() })
    }

    /// The value at `at` does not fit its column.
    #[cold]
    pub fn convert(at: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { at, syntax: false, path: Vec::new(), message: message.into() })
    }

    /// The fault stands inside column `name`.
    #[cold]
    pub fn within(mut self: Box<Self>, name: &str) -> Box<Fault> {
        self.path.push(name.to_string());
        self
    }

    /// `line 1 column 17: from.customer_id: 1.5 is no BIGINT`. Columns count characters.
    pub fn reason(&self, record: &[u8]) -> String {
        let before = &record[..self.at.min(record.len())];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |i| i + 1);
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        if self.path.is_empty() {
            return format!("line {line} column {column}: {}", self.message);
        }
        let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        format!("line {line} column {column}: {}: {}", path.join("."), self.message)
    }
}

/// `text` short enough for a message.
pub(crate) fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(40) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text.into_owned(),
    }
}
