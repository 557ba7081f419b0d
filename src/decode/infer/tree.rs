//! A JSON value as it stands in a record: numbers and texts unread, so that nothing is lost before a type is chosen.

use crate::decode::json::fault::{Fault, Step};
use crate::decode::json::not_an_object;
use crate::decode::json::scan::{Scan, unescape};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Null,
    Boolean(bool),
    /// Its text.
    Number(String),
    Text(String),
    List(Vec<Tree>),
    /// Members in the order written; a key may stand twice.
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// The object a record holds; the reason, if it holds none, is the one its dead letter would have.
    pub fn record(bytes: &[u8]) -> Result<Tree, String> {
        let reason = |fault: Box<Fault>| fault.reason(bytes);
        if let Err(e) = std::str::from_utf8(bytes) {
            return Err(reason(Fault::syntax(e.valid_up_to(), "invalid UTF-8")));
        }
        let mut s = Scan::default();
        s.start(bytes);
        s.space();
        if s.peek() != b'{' {
            return Err(reason(not_an_object(&mut s)));
        }
        let tree = read(&mut s).map_err(reason)?;
        s.end().map_err(reason)?;
        Ok(tree)
    }

    /// The last value of `key`, when this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.members().iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The members of an object; none of something else.
    pub fn members(&self) -> &[(String, Tree)] {
        match self {
            Tree::Object(members) => members,
            _ => &[],
        }
    }
}

fn read(s: &mut Scan<'_>) -> Step<Tree> {
    Ok(match s.peek() {
        b'"' => Tree::Text(text(s)?),
        b'-' | b'0'..=b'9' => {
            let at = s.at;
            s.number()?;
            Tree::Number(String::from_utf8_lossy(&s.bytes[at..s.at]).into_owned())
        }
        b't' => {
            s.literal("true")?;
            Tree::Boolean(true)
        }
        b'f' => {
            s.literal("false")?;
            Tree::Boolean(false)
        }
        b'n' => {
            s.literal("null")?;
            Tree::Null
        }
        b'{' => {
            let mut members = Vec::new();
            s.enter()?;
            while s.peek() != b'}' {
                if s.peek() != b'"' {
                    return Err(s.unexpected("a key in double quotes"));
                }
                let key = text(s)?;
                s.expect(b':', "`:`")?;
                members.push((key, read(s)?));
                if separator(s, b'}')? && s.peek() == b'}' {
                    return Err(s.unexpected("a key in double quotes"));
                }
            }
            s.leave();
            Tree::Object(members)
        }
        b'[' => {
            let mut items = Vec::new();
            s.enter()?;
            while s.peek() != b']' {
                items.push(read(s)?);
                if separator(s, b']')? && s.peek() == b']' {
                    return Err(s.unexpected("a value"));
                }
            }
            s.leave();
            Tree::List(items)
        }
        _ => return Err(s.unexpected("a value")),
    })
}

/// Skips a comma, if one stands there; otherwise the container must end.
fn separator(s: &mut Scan<'_>, close: u8) -> Step<bool> {
    s.space();
    match s.peek() {
        b',' => {
            s.at += 1;
            s.space();
            Ok(true)
        }
        byte if byte == close => Ok(false),
        _ => Err(s.unexpected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" })),
    }
}

fn text(s: &mut Scan<'_>) -> Step<String> {
    let text = s.string()?;
    let mut bytes = Vec::with_capacity(text.raw.len());
    unescape(text, |piece| bytes.extend_from_slice(piece))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
