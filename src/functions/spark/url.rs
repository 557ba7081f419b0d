//! `parse_url(url, part[, key])`: a part of a URL as it is written, as Spark has it from Java's `URI`. `try_parse_url`: NULL where a text is none.
//!
//! Parts are HOST, PATH, QUERY, REF, PROTOCOL, FILE, AUTHORITY and USERINFO; a key names a value in the query. What a URL does not have is NULL.

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [("parse_url", true), ("try_parse_url", false)].into_iter().map(|(name, strict)| {
        ScalarUDF::from(ParseUrl { name, strict, signature: Signature::user_defined(Volatility::Immutable) })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ParseUrl {
    name: &'static str,
    strict: bool,
    signature: Signature,
}

impl ScalarUDFImpl for ParseUrl {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.len() {
            2 | 3 if types.iter().all(|t| t.is_string() || t.is_null()) => Ok(vec![DataType::Utf8; types.len()]),
            _ => plan_err!("{} takes a URL, a part and perhaps a key: {}(url, 'QUERY', 'id')", self.name, self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let text = |a: &ColumnarValue| Ok(cast(&a.to_array(rows)?, &DataType::Utf8)?);
        let columns = args.args.iter().map(text).collect::<Result<Vec<_>>>()?;
        let columns: Vec<_> = columns.iter().map(|c| c.as_string::<i32>()).collect();
        let [urls, parts, keys @ ..] = columns.as_slice() else { return plan_err!("{} takes two texts", self.name) };
        let mut found = StringBuilder::with_capacity(rows, rows * 16);
        for row in 0..rows {
            if columns.iter().any(|c| c.is_null(row)) {
                found.append_null();
                continue;
            }
            match Url::read(urls.value(row)) {
                Some(url) => found.append_option(url.part(parts.value(row), keys.first().map(|k| k.value(row)))),
                None if self.strict => {
                    return exec_err!("`{}` is no URL; try_parse_url gives NULL for what is none", urls.value(row));
                }
                None => found.append_null(),
            }
        }
        let found = found.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

/// The components of RFC 3986, as they are written.
#[derive(Debug, Default)]
struct Url<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    /// None of `mailto:x@y` and its like.
    path: Option<&'a str>,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// None where `text` is no URL.
    fn read(text: &'a str) -> Option<Self> {
        let mut url = Url::default();
        let (rest, fragment) = cut(text, '#');
        url.fragment = fragment;
        let mut rest = rest;
        if let Some((scheme, behind)) = rest.split_once(':')
            && !scheme.contains(['/', '?'])
        {
            let mut letters = scheme.chars();
            let fits = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
                && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            if !fits || behind.is_empty() {
                return None;
            }
            (url.scheme, rest) = (Some(scheme), behind);
        }
        if url.scheme.is_none() || rest.starts_with('/') {
            let (hierarchy, query) = cut(rest, '?');
            url.query = query;
            url.path = Some(hierarchy);
            if let Some(behind) = hierarchy.strip_prefix("//") {
                let at = behind.find('/').unwrap_or(behind.len());
                let (authority, path) = behind.split_at(at);
                (url.authority, url.path) = ((!authority.is_empty()).then_some(authority), Some(path));
            }
        }
        let brackets = url.authority.map_or(0, |a| a.matches(['[', ']']).count());
        (is_written(text)
            && text.matches(['[', ']']).count() == brackets
            && fragment.is_none_or(|fragment| !fragment.contains('#')))
        .then_some(url)
    }

    fn part(&self, part: &str, key: Option<&str>) -> Option<String> {
        if part != "QUERY" && key.is_some() {
            return None;
        }
        match (part, key) {
            ("QUERY", Some(key)) => {
                let pairs = self.query?.split('&').filter_map(|pair| pair.split_once('='));
                pairs.filter(|(k, _)| *k == key).map(|(_, value)| value.to_string()).next()
            }
            ("QUERY", None) => self.query.map(String::from),
            ("HOST", _) => self.server().map(|(_, host)| host.to_string()),
            ("USERINFO", _) => self.server().and_then(|(user, _)| user.map(String::from)),
            ("AUTHORITY", _) => self.authority.map(String::from),
            ("PATH", _) => self.path.map(String::from),
            ("REF", _) => self.fragment.map(String::from),
            ("PROTOCOL", _) => self.scheme.map(String::from),
            ("FILE", _) => self.path.map(|path| match self.query {
                Some(query) => format!("{path}?{query}"),
                None => path.to_string(),
            }),
            _ => None,
        }
    }

    /// The user and the host, where the authority is that of a server: `user@host:port`.
    fn server(&self) -> Option<(Option<&'a str>, &'a str)> {
        let authority = self.authority?;
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, authority),
        };
        let (host, port) = match server.rfind(']') {
            Some(end) => server.split_at(end + 1),
            None => server.split_at(server.find(':').unwrap_or(server.len())),
        };
        let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        let is_address = host.starts_with('[') && host.ends_with(']');
        let is_port = port.is_empty() || port.starts_with(':') && port[1..].chars().all(|c| c.is_ascii_digit());
        (!host.is_empty() && (is_name || is_address) && is_port).then_some((user, host))
    }
}

/// What stands before the first `mark`, and behind it.
fn cut(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// Whether every character may stand in a URL, and every `%` before two digits.
fn is_written(text: &str) -> bool {
    let bytes = text.as_bytes();
    let escaped = |i: usize| bytes.get(i + 1..i + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    text.char_indices().all(|(i, c)| match c {
        '%' => escaped(i),
        ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => false,
        c => !c.is_control() && !c.is_whitespace(),
    })
}
