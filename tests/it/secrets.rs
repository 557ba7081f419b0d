//! Values of secret variables, and what is made of them, are on no output and in no file that smelt writes.

use std::path::Path;

use crate::support::Sandbox;

const PROJECT: &str = r#"
name: shop
target: dev
targets:
  dev:
    lake: ./lake
    connections:
      broker:
        type: kafka
        bootstrap.servers: 127.0.0.1:1
        socket.connection.setup.timeout.ms: 1000
        security.protocol: SASL_PLAINTEXT
        sasl.mechanism: PLAIN
        sasl.username: "{{ fromjson(env_var('SMELT_SECRET_TELCO'))['deep']['user'] }}"
        sasl.password: "{{ env_var('DBT_ENV_SECRET_PASSWORD') }}"
"#;

const SOURCES: &str = r#"
version: 2
sources:
  - name: telco
    config: {connector: kafka, connection: broker, format: json}
    tables:
      - name: calls
        config: {topic: calls}
        columns: [{name: id, data_type: BIGINT}]
"#;

/// A model that puts secrets, pieces of them and strings made with them into its SQL.
const MODEL: &str = "\
select id, '{{ env_var('DBT_ENV_SECRET_PASSWORD') }}' as whole,
  '{{ 'x-' ~ env_var('DBT_ENV_SECRET_PASSWORD') ~ '-y' }}' as joined,
  '{{ env_var('DBT_ENV_SECRET_PASSWORD')[0:9] }}' as piece,
  '{{ fromjson(env_var('SMELT_SECRET_TELCO'))['deep']['user'] }}' as member,
  '{{ env_var('SHOP_PLAIN') }}' as plain
from {{ source('telco', 'calls') }}
";

const VARS: [(&str, &str); 4] = [
    ("SMELT_SECRET_TELCO", r#"{"deep":{"user":"quokka-user","pin":"in\"quotes"}}"#),
    ("DBT_ENV_SECRET_PASSWORD", "zebra-in-pyjamas"),
    ("SHOP_PLAIN", "visible-value"),
    ("SMELT_LOG", "trace"),
];

/// The secrets themselves, a piece, base64 (`zebra-in-pyjamas`, `quokka-user`), and a quoted one.
const NEVER: [&str; 6] =
    ["zebra-in-", "quokka-user", "emVicmEtaW4tcHlqYW1hcw", "cXVva2thLXVzZXI", "in\"quotes", "in\\\"quotes"];

fn project(model: &str) -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/sources.yml", SOURCES),
        ("queries/calls.sql", &format!("{{{{ config(materialized='streaming_table') }}}}\n{model}")),
    ])
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    for secret in NEVER {
        let at = text.find(secret).map(|at| text[at.saturating_sub(120)..].chars().take(200).collect::<String>());
        assert_eq!(at, None, "{what} shows `{secret}`");
    }
}

/// Every file below `folder` that smelt wrote.
fn assert_files_clean(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut seen = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            seen += assert_files_clean(&path);
        } else {
            assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
            seen += 1;
        }
    }
    seen
}

#[test]
fn commands_and_their_logs_show_no_secret() {
    let sandbox = project(MODEL);
    let mut shown = String::new();
    for args in [&["compile"][..], &["plan"], &["explain", "calls"], &["ls", "--output", "json"]] {
        let ended = sandbox.smelt_with(args, &VARS).ok();
        assert_clean(&format!("{args:?}"), &ended.stdout);
        assert_clean(&format!("{args:?}"), &ended.stderr);
        shown.push_str(&ended.stdout);
    }
    assert!(shown.contains("visible-value") && shown.contains("****"), "{shown}");
    // The broker is not there: the connection's error is the most likely place for its password.
    for (args, code) in
        [(&["run", "--log-format", "text"][..], 2), (&["run", "--log-format", "json"], 2), (&["debug"], 1)]
    {
        let ended = sandbox.smelt_with(args, &VARS).fails(code, "kafka-unreachable");
        assert_clean(&format!("{args:?}"), &ended.stdout);
        assert_clean(&format!("{args:?}"), &ended.stderr);
    }
    assert!(assert_files_clean(&sandbox.path().join("lake")) > 0);
    assert!(assert_files_clean(&sandbox.path().join("target")) > 0);
}

#[test]
fn errors_that_quote_the_line_show_no_secret() {
    for (model, code) in [
        ("select id, '{{ env_var('DBT_ENV_SECRET_PASSWORD') }}' + idd as x from {{ source('telco', 'calls') }}", "idd"),
        ("select '{{ env_var('DBT_ENV_SECRET_PASSWORD') }}'' from {{ source('telco', 'calls') }}", "error["),
        ("select 1 as x from {{ source('telco', env_var('DBT_ENV_SECRET_PASSWORD')) }}", "error["),
        ("{{ exceptions.raise_compiler_error('no ' ~ env_var('DBT_ENV_SECRET_PASSWORD')) }}", "error["),
    ] {
        let sandbox = project(model);
        let ended = sandbox.smelt_with(&["compile"], &VARS).fails(2, code);
        assert_clean(model, &ended.stdout);
        assert_clean(model, &ended.stderr);
    }
}
