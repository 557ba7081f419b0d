//! Environment variables, and the secrets among them.

use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Values of these variables, and anything derived from them, never reach a log or artifact.
const SECRET_PREFIXES: [&str; 2] = ["SMELT_SECRET_", "DBT_ENV_SECRET_"];

/// Credentials of object stores, under the names their own tools give them.
const CREDENTIALS: [&str; 10] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

/// Shorter values are not redacted: replacing every `a` would destroy the text and hide nothing.
const SHORTEST_SECRET: usize = 4;

pub(super) struct Vars {
    vars: BTreeMap<String, String>,
    secrets: Mutex<BTreeSet<String>>,
}

impl Vars {
    pub(super) fn new(vars: BTreeMap<String, String>) -> Self {
        let secrets = Mutex::new(BTreeSet::new());
        let this = Vars { vars, secrets };
        // Known from the start: an error may quote a secret before anything asked for it.
        for (name, value) in &this.vars {
            if SECRET_PREFIXES.iter().any(|p| name.starts_with(p)) || CREDENTIALS.contains(&name.as_str()) {
                this.remember_secret(value);
            }
        }
        this
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    /// All variables whose names begin so.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let named = self.vars.range(prefix.to_string()..).take_while(|(name, _)| name.starts_with(prefix));
        named.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    pub(super) fn remember_secret(&self, value: &str) {
        self.remember_text(value);
        // A key in a file has lines, and messages quote single ones.
        for line in value.lines() {
            self.remember_text(line.trim());
        }
        // A secret is often a JSON object: its members are secrets too.
        if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(value) {
            self.remember_members(&json);
        }
    }

    fn remember_members(&self, json: &Value) {
        match json {
            Value::Object(members) => members.values().for_each(|member| self.remember_members(member)),
            Value::Array(items) => items.iter().for_each(|item| self.remember_members(item)),
            Value::String(text) => self.remember_secret(text),
            Value::Number(number) => self.remember_text(&number.to_string()),
            Value::Bool(_) | Value::Null => {}
        }
    }

    /// `text` as it is, as quoted text shows it, and as base64 of it alone.
    fn remember_text(&self, text: &str) {
        if text.len() < SHORTEST_SECRET {
            return;
        }
        let debug = format!("{text:?}");
        let json = Value::from(text).to_string();
        let mut secrets = self.secrets.lock();
        secrets.insert(debug[1..debug.len() - 1].to_string());
        secrets.insert(json[1..json.len() - 1].to_string());
        secrets.insert(base64(text.as_bytes()));
        secrets.insert(text.to_string());
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let secrets = self.secrets.lock();
        let mut out = text.to_string();
        // Longest first, so that a secret inside a longer one does not leave the rest of it behind.
        let mut by_length: Vec<&String> = secrets.iter().collect();
        by_length.sort_by_key(|s| std::cmp::Reverse(s.len()));
        for secret in by_length {
            if out.contains(secret.as_str()) {
                out = out.replace(secret.as_str(), "****");
            }
        }
        out
    }
}

/// As HTTP headers carry it, without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for digit in 0..=group.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_their_members_are_redacted() {
        let vars = Vars::new(BTreeMap::from([
            ("SMELT_SECRET_TELCO".to_string(), r#"{"api_key":"KEY1234","api_secret":"hunter22"}"#.to_string()),
            ("PLAIN".to_string(), "visible".to_string()),
        ]));
        assert_eq!(vars.redact("KEY1234:hunter22 visible"), "****:**** visible");
    }

    #[test]
    fn secrets_are_redacted_however_they_are_nested_or_written() {
        let secret = r#"{"a":{"b":["in\"quotes", 12345678]},"c":"first line\nsecond line"}"#;
        let vars = Vars::new(BTreeMap::from([("DBT_ENV_SECRET_X".to_string(), secret.to_string())]));
        for shown in ["in\"quotes", r#"in\"quotes"#, "12345678", "second line", "first line\\nsecond line"] {
            assert_eq!(vars.redact(shown), "****", "{shown}");
        }
        assert_eq!(vars.redact("Authorization: c2Vjb25kIGxpbmU="), "Authorization: ****=");
    }
}
