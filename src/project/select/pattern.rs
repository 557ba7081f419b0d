//! Unix-style wildcards, as Python's `fnmatch` reads them: `*` any characters (dots and slashes too), `?` one, `[a-z]` and
//! `[!a-z]` one of a range. A bracket that is not closed stands for itself.

use regex::Regex;

/// A text that may contain wildcards.
#[derive(Debug, Clone)]
pub(super) struct Wildcard {
    text: String,
    ignores_case: bool,
    /// None: no wildcard in it, or none that can match.
    expression: Option<Regex>,
}

impl Wildcard {
    pub fn new(text: &str, ignores_case: bool) -> Self {
        let expression = has_wildcards(text).then(|| Regex::new(&expression(text, ignores_case)).ok()).flatten();
        Wildcard { text: text.to_string(), ignores_case, expression }
    }

    pub fn matches(&self, text: &str) -> bool {
        match &self.expression {
            Some(expression) => expression.is_match(text),
            None if self.ignores_case => self.text.to_lowercase() == text.to_lowercase(),
            None => self.text == text,
        }
    }
}

pub(super) fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

fn expression(text: &str, ignores_case: bool) -> String {
    let mut out = String::from(if ignores_case { r"(?si)\A" } else { r"(?s)\A" });
    let chars: Vec<char> = text.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => match class(&chars[i + 1..]) {
                Some((class, length)) => {
                    out.push_str(&class);
                    i += length;
                }
                None => out.push_str(r"\["),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        i += 1;
    }
    out.push_str(r"\z");
    out
}

/// The class that begins after a `[`, and how many characters of the pattern it takes.
fn class(rest: &[char]) -> Option<(String, usize)> {
    let negated = rest.first() == Some(&'!');
    let start = usize::from(negated);
    // A `]` right at the start belongs to the class.
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let mut class = String::from(if negated { "[^" } else { "[" });
    for c in &rest[start..end] {
        if matches!(c, '\\' | '[' | ']' | '^' | '&' | '~') {
            class.push('\\');
        }
        class.push(*c);
    }
    class.push(']');
    Some((class, end + 1))
}

#[cfg(test)]
mod tests {
    use super::Wildcard;

    #[test]
    fn matches_as_python_does() {
        for (pattern, text, expected) in [
            ("*", "anything.at/all", true),
            ("*_sms", "bronze.bronze_sms", true),
            ("bronze_*", "bronze.bronze_sms", false),
            ("m?del", "model", true),
            ("m?del", "mdel", false),
            ("m[aeiou]del", "model", true),
            ("m[!aeiou]del", "model", false),
            ("m[a-p]del", "model", true),
            ("a[b", "a[b", true),
            ("a[]]b", "a]b", true),
            ("a.b", "axb", false),
            ("[^a]", "^", true),
            ("", "", true),
            ("x", "X", false),
        ] {
            assert_eq!(Wildcard::new(pattern, false).matches(text), expected, "{pattern} {text}");
        }
        assert!(Wildcard::new("BRONZE_*", true).matches("bronze_x"));
    }
}
