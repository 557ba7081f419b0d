//! What a project file asks of dbt itself: `require-dbt-version`, and settings that would change what dbt does and mean nothing here.

use super::problems::Problems;
use super::yaml::{Node, Value};

/// The dbt-core whose behaviour smelt follows, and is compared with in tests.
const FOLLOWED: [u64; 3] = [1, 10, 23];

/// Checks what the file of the project, or of a package, asks for.
pub(super) fn check(root: &Node, name: &str, p: &mut Problems) {
    if let Some(node) = root.get("require-dbt-version") {
        let [major, minor, patch] = FOLLOWED;
        for text in requirements(node, p) {
            match is_met(&text) {
                Some(true) => {}
                Some(false) => {
                    let message =
                        format!("`{name}` asks for dbt {text}, and smelt follows dbt {major}.{minor}.{patch}");
                    let hint = "what it uses of another version may be unknown here, or mean something else";
                    p.warn("dbt-version", node.span(), message, hint);
                }
                None => {
                    let message = format!("`{text}` is no version to compare with");
                    p.error("bad-version", node.span(), message, "write [\">=1.8.0\", \"<2.0.0\"]");
                }
            }
        }
    }
}

/// Notes settings of the root project that have no effect.
pub(super) fn note(root: &Node, p: &mut Problems) {
    let says = |key: &str| root.get(key).filter(|n| !matches!(n.value, Value::Null | Value::Bool(false)));
    if let Some(node) = says("quoting") {
        let message = "`quoting` has no effect: relations are always quoted, and found in any case";
        p.warn("ignored-config", node.span(), message, "leave it to dbt");
    }
}

/// A text or a list of texts, each of which may hold several, with commas.
fn requirements(node: &Node, p: &mut Problems) -> Vec<String> {
    let texts = node.texts("require-dbt-version", p).unwrap_or_default();
    let parts = texts.iter().flat_map(|text| text.split(','));
    parts.map(|part| part.trim().to_string()).filter(|part| !part.is_empty()).collect()
}

/// Whether the version followed meets `>=1.8.0`; None: that is no requirement.
fn is_met(requirement: &str) -> Option<bool> {
    let version = requirement.trim_start_matches(['<', '>', '=']);
    let operator = &requirement[..requirement.len() - version.len()];
    let mut wanted = [0; 3];
    let mut parts = version.trim().split('.');
    for (i, place) in wanted.iter_mut().enumerate() {
        match parts.next() {
            // `0-rc1`, `0b2`: what comes before a release counts as the release.
            Some(part) => {
                let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                *place = part[..digits].parse().ok()?;
            }
            None if i > 0 => break,
            None => return None,
        }
    }
    match operator {
        "" | "=" | "==" => Some(FOLLOWED == wanted),
        ">=" => Some(FOLLOWED >= wanted),
        ">" => Some(FOLLOWED > wanted),
        "<=" => Some(FOLLOWED <= wanted),
        "<" => Some(FOLLOWED < wanted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_met;

    #[test]
    fn requirements_are_compared_as_versions() {
        for met in
            [">=1.8.0", "<2.0.0", ">= 1.0", ">1.9.99", "<=1.10.23", "=1.10.23", "1.10.23", ">=1.10.0-rc1", ">=1.8.0b3"]
        {
            assert_eq!(is_met(met), Some(true), "{met}");
        }
        for unmet in [">=1.11.0", "<1.8.0", "1.9.0", ">1.10.23", ">=2"] {
            assert_eq!(is_met(unmet), Some(false), "{unmet}");
        }
        for wrong in ["newest", ">=", "=>1.0.0", "~1.8"] {
            assert_eq!(is_met(wrong), None, "{wrong}");
        }
    }
}
