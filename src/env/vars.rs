//! Environment variables, and the secrets among them.

use parking_lot::Mutex;
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
        if value.len() >= SHORTEST_SECRET {
            self.secrets.lock().insert(value.to_string());
        }
        // A secret is often a JSON object: its members are secrets too.
        if let Ok(serde_json::Value::Object(members)) = serde_json::from_str(value) {
            for member in members.values().filter_map(|v| v.as_str()) {
                self.remember_secret(member);
            }
        }
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
}
