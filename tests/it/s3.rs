//! A lake and its input on S3: the same promises over a store that is reached through HTTP.
//!
//! The server is moto's (tests/python/s3_server.py): create-if-absent, conditional and ranged requests, listings in pages.

use crate::python;
use crate::support::Sandbox;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    vars: Vec<(String, String)>,
}

impl Server {
    /// None, with a note, where the Python environment is missing and not required.
    fn start() -> Option<Self> {
        if !python::available() {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/s3_server.py");
        let mut child = Command::new(python::python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the S3 server starts");
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        let vars = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", port.trim())),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "smelt".into()),
            ("AWS_SECRET_ACCESS_KEY", "hush-hush-secret".into()),
        ];
        let vars = vars.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        Some(Server { child, input, output, vars })
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "ok", "{command}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SMELT_YML: &str = "
name: shop
targets:
  dev: {lake: s3://lake/shop, state_snapshots: {min_rows: 0}}
";
const SOURCES: &str = "
version: 2
sources:
  - name: shop
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: 's3://landing/orders/2026-*/*.json'}
        columns:
          - {name: id, data_type: BIGINT}
          - {name: customer, data_type: STRING}
          - {name: amount, data_type: 'DECIMAL(10,2)'}
";
const BRONZE: &str =
    "{{ config(materialized='streaming_table') }} select id, customer, amount from {{ source('shop', 'orders') }}";
const TOTALS: &str =
    "select customer, count(*) as orders, sum(amount) as amount from {{ ref('bronze_orders') }} group by customer";

fn project() -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", SMELT_YML),
        ("models/sources.yml", SOURCES),
        ("queries/bronze_orders.sql", BRONZE),
        ("queries/totals.sql", TOTALS),
    ])
}

fn land(server: &mut Server, sandbox: &Sandbox, number: usize) {
    let rows: String = (0..10)
        .map(|n| {
            let id = number * 10 + n;
            format!("{{\"id\":{id},\"customer\":\"{}\",\"amount\":\"2.50\"}}\n", ["ada", "bob"][id % 2])
        })
        .collect();
    let name = format!("orders-{number}.json");
    sandbox.write(&name, rows);
    let path = sandbox.path().join(name);
    server.tell(&format!("put landing orders/2026-{:02}/{number}.json {}", number % 12 + 1, path.display()));
}

fn totals(sandbox: &Sandbox, vars: &[(&str, &str)]) -> Vec<String> {
    let query = ["query", "select * from totals order by customer", "--output", "json"];
    sandbox.smelt_with(&query, vars).ok().stdout.lines().map(str::to_string).collect()
}

#[test]
fn a_lake_on_s3_is_exactly_once_too() {
    let Some(mut server) = Server::start() else { return };
    server.tell("bucket lake");
    server.tell("bucket landing");
    let sandbox = project();
    land(&mut server, &sandbox, 0);
    let vars: Vec<(String, String)> = server.vars.clone();
    let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    sandbox.smelt_with(&["run"], &vars).ok();
    assert_eq!(
        totals(&sandbox, &vars),
        [r#"{"customer":"ada","orders":5,"amount":12.50}"#, r#"{"customer":"bob","orders":5,"amount":12.50}"#]
    );
    // Killed at one point after the other, a file further each time.
    for (number, point) in ["after-upload", "after-log-put", "after-log-put:2", "before-epochs-row", "after-epochs-row"]
        .into_iter()
        .enumerate()
    {
        land(&mut server, &sandbox, number + 1);
        let mut with = vars.clone();
        with.push(("SMELT_CRASH_AT", point));
        let ended = sandbox.smelt_with(&["run"], &with);
        assert_eq!(ended.code, None, "{point} was not reached:\n{}{}", ended.stdout, ended.stderr);
    }
    sandbox.smelt_with(&["run"], &vars).ok();
    let expected =
        [r#"{"customer":"ada","orders":30,"amount":75.00}"#, r#"{"customer":"bob","orders":30,"amount":75.00}"#];
    assert_eq!(totals(&sandbox, &vars), expected);
    sandbox.smelt_with(&["optimize"], &vars).ok();
    sandbox.smelt_with(&["vacuum"], &vars).ok();
    assert_eq!(totals(&sandbox, &vars), expected);
    // State is stored there and serves, through compaction and vacuum.
    land(&mut server, &sandbox, 6);
    let ended = sandbox.smelt_with(&["run"], &vars).ok();
    let said = ended.stdout + &ended.stderr;
    assert!(!said.contains("state"), "{said}");
    let expected =
        [r#"{"customer":"ada","orders":35,"amount":87.50}"#, r#"{"customer":"bob","orders":35,"amount":87.50}"#];
    assert_eq!(totals(&sandbox, &vars), expected);
    let found = python::query_with(
        python::Engine::DeltaRs,
        &[("t", Path::new("s3://lake/shop/default/totals"))],
        &["select customer, orders, amount from t"],
        &vars,
    );
    let found: Vec<String> = found[0].iter().map(ToString::to_string).collect();
    // The canonical form: decimals as text, names in order.
    assert_eq!(
        found,
        [r#"{"amount":"87.50","customer":"ada","orders":35}"#, r#"{"amount":"87.50","customer":"bob","orders":35}"#]
    );
}

#[test]
fn an_s3_that_cannot_be_reached_is_an_error_in_time_without_secrets() {
    let sandbox = project();
    let vars = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "smelt"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush-secret"),
    ];
    let started = Instant::now();
    let ended = sandbox.smelt_with(&["run"], &vars);
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("s3://lake/shop"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hush-hush") && !ended.stdout.contains("hush-hush"), "{}", ended.stderr);
}
