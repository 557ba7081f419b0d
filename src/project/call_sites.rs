//! Where the arguments of a call in a template stand, so that a wrong value is shown at its place.

use super::jinja::{Site, Template};
use crate::error::Span;

/// The value of argument `key` of the call at `site`.
pub(super) fn argument_span(template: &Template, site: Site, key: &str) -> Span {
    let content = &template.text.content;
    let end = template.tag_at(site.offset).map_or(content.len(), |t| t.end);
    let call = &content[site.offset..end];
    let mut from = 0;
    while let Some(i) = call[from..].find(key).map(|i| from + i) {
        let before = call[..i].chars().next_back().unwrap_or(' ');
        let after = call[i + key.len()..].trim_start_matches(['\'', '"']).trim_start();
        if !(before.is_alphanumeric() || before == '_') && after.starts_with(['=', ':']) && !after.starts_with("==") {
            let value = after[1..].trim_start();
            let start = site.offset + call.len() - value.len();
            return template.text.span(start, value_len(value));
        }
        from = i + key.len();
    }
    template.text.span(site.offset, "config".len())
}

/// Bytes up to the comma or bracket that ends a value.
fn value_len(value: &str) -> usize {
    let (mut depth, mut quote) = (0usize, None);
    for (i, c) in value.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '{' | '(') => depth += 1,
            (None, ',' | ')' | ']' | '}') if depth == 0 => return value[..i].trim_end().len(),
            (None, ']' | '}' | ')') => depth -= 1,
            _ => {}
        }
    }
    value.len()
}
