//! The sample project, whole: the generator's traffic through the real binary, every table compared with the generator's own
//! record, in one epoch and in many.

use md5::{Digest, Md5};
use serde_json::Value;
use std::path::Path;

use crate::broker::Broker;
use crate::support::{Sandbox, eventually};
use std::time::Duration;

/// A sandbox with the repository's sample project in it.
pub fn sample() -> Sandbox {
    let sandbox = Sandbox::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["smelt.yml", "queries", "models", "macros"] {
        copy(&root.join(name), &sandbox.path().join(name));
    }
    sandbox
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// The generator's record.
pub fn manifest(sandbox: &Sandbox, path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(sandbox.path().join(path)).unwrap()).unwrap()
}

/// Rows and checksum of a table over `columns`, as the generator defines them (docs/telecom.md): the sum over the rows of the first 60
/// bits of md5 of the columns' texts joined by U+001F.
fn digest(sandbox: &Sandbox, target: &str, table: &str, columns: &[&str]) -> (u64, String) {
    let types = sandbox.smelt(&["show", table, "--columns", "--target", target]).ok().stdout;
    let kind = |column: &str| -> String {
        let line = types.lines().find(|l| l.split_whitespace().next() == Some(column));
        line.unwrap_or_else(|| panic!("{table} has no column {column}:\n{types}"))
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_string()
    };
    let select: Vec<String> = columns
        .iter()
        .map(|c| match kind(c).as_str() {
            "TIMESTAMP" => format!("to_char({c}, '%Y-%m-%d %H:%M:%S') as {c}"),
            "DOUBLE" => (*c).to_string(),
            _ => format!("cast({c} as string) as {c}"),
        })
        .collect();
    let sql = format!("select {} from {table}", select.join(", "));
    let ended = sandbox.smelt(&["query", &sql, "--output", "json", "--target", target]).ok();
    let (mut rows, mut sum) = (0u64, 0u128);
    for line in ended.stdout.lines() {
        let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let texts: Vec<String> = columns
            .iter()
            .map(|c| match &row[*c] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                Value::Number(number) => format!("{:.6}", number.as_f64().unwrap()),
                other => other.to_string(),
            })
            .collect();
        let hash = Md5::digest(texts.join("\u{1f}").as_bytes());
        let first: [u8; 8] = std::array::from_fn(|i| hash[i]);
        rows += 1;
        sum += u128::from(u64::from_be_bytes(first) >> 4);
    }
    (rows, sum.to_string())
}

/// Compares every table with the generator's record. `files`: the traffic came from files.
#[track_caller]
pub fn assert_equals_manifest(sandbox: &Sandbox, target: &str, manifest: &Value, files: bool) {
    let tables = manifest["tables"].as_object().unwrap();
    assert!(tables.len() >= 15, "{:?}", tables.keys());
    for (table, expected) in tables {
        let expected_sum = match (files, expected.get("from_files")) {
            (true, Some(other)) if !other.is_null() => other,
            _ => expected,
        };
        let columns: Vec<&str> =
            expected_sum["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let (rows, checksum) = digest(sandbox, target, table, &columns);
        assert_eq!(rows, expected["rows"].as_u64().unwrap(), "rows of {table}");
        assert_eq!(checksum, expected_sum["checksum"].as_str().unwrap(), "content of {table}");
    }
}

/// The figures the specification names.
#[track_caller]
pub fn assert_reference_figures(sandbox: &Sandbox, target: &str) {
    let value = |sql: &str| -> i64 {
        let ended = sandbox.smelt(&["query", sql, "--output", "json", "--target", target]).ok();
        let row: serde_json::Map<String, Value> = serde_json::from_str(ended.stdout.trim()).unwrap();
        row.values().next().unwrap().as_i64().unwrap()
    };
    for (table, rows) in [
        ("bronze_call_events", 3355),
        ("bronze_sms_events", 1805),
        ("silver_call_events", 3250),
        ("silver_sms_events", 1750),
        ("silver_quarantine", 60),
        ("fact_events", 5000),
        ("dim_date", 7),
        ("dim_time", 1440),
        ("dim_user", 500),
        ("dim_cell_site", 83),
        ("dim_device_tac", 5),
        ("gold_user_360", 500),
    ] {
        assert_eq!(value(&format!("select count(*) as n from {table}")), rows, "{table}");
    }
    for (column, unknown) in [("sender_id", 50), ("sender_site_id", 25), ("sender_device_id", 25)] {
        let sql = format!("select count(*) as n from fact_events where {column} is null");
        assert_eq!(value(&sql), unknown, "{column}");
    }
}

fn run_from_files(slices: &str, limits: &[&str]) -> Sandbox {
    let sandbox = sample();
    sandbox.smelt(&["generate", "--to-dir", "data", "--slices", slices]).ok();
    let mut args = vec!["run", "--target", "files"];
    args.extend_from_slice(limits);
    sandbox.smelt(&args).ok();
    sandbox
}

fn gold(sandbox: &Sandbox, target: &str) -> Vec<Vec<String>> {
    ["dim_date", "dim_user", "dim_cell_site", "dim_device_tac", "fact_events", "gold_user_daily", "gold_user_360"]
        .iter()
        .map(|table| {
            let sql = format!("select * from {table}");
            let ended = sandbox.smelt(&["query", &sql, "--output", "json", "--target", target]).ok();
            let mut rows: Vec<String> = ended.stdout.lines().map(str::to_string).collect();
            rows.sort();
            rows
        })
        .collect()
}

#[test]
fn exact_figures_from_files_in_one_epoch_and_in_hundreds() {
    let one = run_from_files("7", &["--epoch-files", "10000"]);
    assert_reference_figures(&one, "files");
    assert_equals_manifest(&one, "files", &manifest(&one, "data/manifest.json"), true);
    let tested = one.smelt(&["test", "--target", "files"]).ok();
    assert!(tested.stdout.contains("ERROR=0"), "{}", tested.stdout);

    let many = run_from_files("56", &["--epoch-files", "1"]);
    let epochs =
        many.smelt(&["query", "select count(*) as n from epochs", "--output", "json", "--target", "files"]).ok();
    let epochs: Value = serde_json::from_str(epochs.stdout.trim()).unwrap();
    assert!(epochs["n"].as_i64().unwrap() >= 200, "{epochs}");
    assert_reference_figures(&many, "files");
    assert_equals_manifest(&many, "files", &manifest(&many, "data/manifest.json"), true);
    assert_eq!(gold(&one, "files"), gold(&many, "files"));
}

/// The sample against a broker of its own: (sandbox, variables).
fn kafka_sample(servers: &str) -> (Sandbox, Vec<(String, String)>) {
    (sample(), vec![("KAFKA".to_string(), servers.to_string())])
}

fn borrowed(vars: &[(String, String)]) -> Vec<(&str, &str)> {
    vars.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

#[test]
fn exact_figures_through_kafka_in_one_epoch_and_in_hundreds() {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let (one, vars) = kafka_sample(&servers);
    let generate = [
        "generate",
        "--bootstrap-servers",
        &servers,
        "--reference-dir",
        "data",
        "--transactional",
        "--slices",
        "7",
        "--manifest",
        "manifest.json",
    ];
    one.smelt(&generate).ok();
    one.smelt_with(&["run", "--epoch-files", "10000"], &borrowed(&vars)).ok();
    assert_reference_figures(&one, "dev");
    let expected = manifest(&one, "manifest.json");
    assert_equals_manifest(&one, "dev", &expected, false);

    let (many, vars) = kafka_sample(&servers);
    copy(&one.path().join("data"), &many.path().join("data"));
    many.smelt_with(&["run", "--epoch-rows", "20", "--epoch-files", "1"], &borrowed(&vars)).ok();
    assert_reference_figures(&many, "dev");
    assert_equals_manifest(&many, "dev", &expected, false);
    assert_eq!(gold(&one, "dev"), gold(&many, "dev"));

    let files = run_from_files("7", &["--epoch-files", "10000"]);
    assert_eq!(gold(&one, "dev"), gold(&files, "files"), "the same star from Kafka and from files");
    broker.stop();
}

/// Kills `smelt up` with SIGKILL at random moments while events flow; returns when everything has arrived.
pub fn kill_while_events_flow(events: u64, kills: u32, rate: u64) {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let (sandbox, vars) = kafka_sample(&servers);
    let (events_text, rate_text) = (events.to_string(), rate.to_string());
    let mut generator = sandbox.spawn(
        &[
            "generate",
            "--bootstrap-servers",
            &servers,
            "--reference-dir",
            "data",
            "--events",
            &events_text,
            "--rate",
            &rate_text,
            "--slices",
            "7",
            "--manifest",
            "manifest.json",
        ],
        &[],
    );
    // smelt may start before the topics are there.
    eventually("the reference data is there", Duration::from_secs(60), || {
        sandbox.path().join("data/device_tacs").exists()
    });
    std::thread::sleep(Duration::from_secs(2));
    let between = Duration::from_secs_f64((events as f64 / rate as f64 * 0.9 / f64::from(kills)).max(0.5));
    for kill in 0..kills {
        let mut running = sandbox.spawn(&["up"], &borrowed(&vars));
        // Not evenly: a kill must hit uploads, puts and idle moments alike.
        std::thread::sleep(between.mul_f64(0.6 + 0.8 * f64::from((kill * 7) % 10) / 10.0));
        running.kill();
    }
    assert_eq!(generator.wait(Duration::from_secs(1200)), Some(0), "{}", generator.log());
    // Dimensions show the last snapshot: one more of what is there now.
    sandbox.smelt_with(&["build"], &borrowed(&vars)).ok();
    assert_equals_manifest(&sandbox, "dev", &manifest(&sandbox, "manifest.json"), false);
    broker.stop();
}

#[test]
fn six_sigkills_while_two_hundred_thousand_events_flow() {
    kill_while_events_flow(200_000, 6, 20_000);
}

#[test]
fn a_crash_at_each_named_point_on_kafka_is_exactly_once() {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let (sandbox, vars) = kafka_sample(&servers);
    sandbox
        .smelt(&["generate", "--bootstrap-servers", &servers, "--reference-dir", "data", "--manifest", "manifest.json"])
        .ok();
    // One lake, killed at one point after the other, a few rows further each time. Maintenance needs many small commits.
    for (point, epoch_rows) in [
        ("table-created-before-log:3", "300"),
        ("after-upload:7", "300"),
        ("after-uploads:4", "300"),
        ("before-log-put:9", "300"),
        ("after-log-put:11", "300"),
        ("compaction-after-write", "10"),
        ("compaction-after-put", "10"),
        ("checkpoint-before", "10"),
        ("checkpoint-after", "10"),
        ("after-log-put:26", "300"),
        ("before-epochs-row:2", "300"),
        ("after-epochs-row:2", "300"),
    ] {
        let mut with = borrowed(&vars);
        with.push(("SMELT_CRASH_AT", point));
        let ended = sandbox.smelt_with(&["run", "--epoch-rows", epoch_rows, "--epoch-files", "1"], &with);
        assert_eq!(ended.code, None, "{point} was not reached:\n{}{}", ended.stdout, ended.stderr);
    }
    sandbox.smelt_with(&["build"], &borrowed(&vars)).ok();
    assert_reference_figures(&sandbox, "dev");
    assert_equals_manifest(&sandbox, "dev", &manifest(&sandbox, "manifest.json"), false);
    broker.stop();
}

/// Takes the second load of the reference data away, or puts it back.
fn second_load(sandbox: &Sandbox, there: bool) {
    for entity in ["event_users", "cell_sites", "device_tacs"] {
        let load = sandbox.path().join("data").join(entity).join("load-2.ndjson");
        let away = sandbox.path().join(format!("{entity}-2.ndjson"));
        let (from, to) = if there { (away, load) } else { (load, away) };
        std::fs::rename(from, to).unwrap();
    }
}

/// Rows of tables, as text.
fn counts(sandbox: &Sandbox, target: &str, tables: &[&str]) -> Vec<i64> {
    let count = |table: &&str| {
        let sql = format!("select count(*) as n from {table}");
        let ended = sandbox.smelt(&["query", &sql, "--output", "json", "--target", target]).ok();
        serde_json::from_str::<Value>(ended.stdout.trim()).unwrap()["n"].as_i64().unwrap()
    };
    tables.iter().map(count).collect()
}

const HISTORY: [&str; 5] = ["cdc_users", "cdc_cell_site", "dim_user_history", "dim_user", "dim_cell_site"];

fn take_two_snapshots(sandbox: &Sandbox, target: &str, vars: &[(&str, &str)], expected: &Value, files: bool) {
    second_load(sandbox, false);
    let build = |planned: &str| sandbox.smelt_with(&["build", "--target", target, "--planned", planned], vars).ok();
    let built = build("2026-01-12T02:00:00Z");
    assert!(built.stdout.contains("ERROR=0"), "{}", built.stdout);
    assert_eq!(counts(sandbox, target, &HISTORY), [500, 83, 500, 500, 83]);
    second_load(sandbox, true);
    let snapshot = ["snapshot", "--target", target, "--planned", "2026-01-13T02:00:00Z"];
    // What the second load says goes as far as silver; then the snapshot is killed wherever it can be.
    sandbox.smelt_with(&["run", "--target", target], vars).ok();
    assert_eq!(counts(sandbox, target, &HISTORY), [500, 83, 500, 500, 83], "`run` takes no second snapshot");
    for point in ["after-upload", "after-uploads:2", "before-epochs-row", "after-epochs-row"] {
        let mut with = vars.to_vec();
        with.push(("SMELT_CRASH_AT", point));
        let ended = sandbox.smelt_with(&snapshot, &with);
        let committed = counts(sandbox, target, &HISTORY[..2]) == [550, 86];
        assert!(ended.code.is_none() || committed, "{point} was not reached:\n{}{}", ended.stdout, ended.stderr);
    }
    sandbox.smelt_with(&snapshot, vars).ok();
    assert_eq!(counts(sandbox, target, &HISTORY[..2]), [550, 86]);
    build("2026-01-13T02:00:00Z");
    assert_eq!(counts(sandbox, target, &HISTORY), [550, 86, 550, 500, 83]);
    let text = |sql: &str| sandbox.smelt(&["query", sql, "--output", "json", "--target", target]).ok().stdout;
    // Of those who changed, one version ends when the other begins: at the planned instants.
    let versions = text(
        "select valid_from, valid_to, is_current, count(*) as n from dim_user_history group by 1, 2, 3 order by 1, 2",
    );
    let lines: Vec<Value> = versions.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let shown: Vec<String> =
        lines.iter().map(|v| format!("{} {} {}", v["valid_from"], v["valid_to"], v["n"])).collect();
    assert_eq!(
        shown,
        [
            r#""2026-01-12T02:00:00Z" "2026-01-13T02:00:00Z" 50"#,
            r#""2026-01-12T02:00:00Z" null 450"#,
            r#""2026-01-13T02:00:00Z" null 50"#
        ]
    );
    // A retry of a run that was committed repeats nothing, and neither does a later one without changes.
    for planned in ["2026-01-13T02:00:00Z", "2026-01-14T02:00:00Z"] {
        let built = build(planned);
        assert!(built.stdout.contains("ERROR=0"), "{}", built.stdout);
        assert_eq!(counts(sandbox, target, &HISTORY), [550, 86, 550, 500, 83]);
    }
    assert_equals_manifest(sandbox, target, expected, files);
}

#[test]
fn snapshots_have_their_exact_versions_from_files() {
    let sandbox = sample();
    sandbox.smelt(&["generate", "--to-dir", "data"]).ok();
    let expected = manifest(&sandbox, "data/manifest.json");
    take_two_snapshots(&sandbox, "files", &[], &expected, true);
}

#[test]
fn snapshots_have_their_exact_versions_through_kafka() {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let (sandbox, vars) = kafka_sample(&servers);
    let generate =
        ["generate", "--bootstrap-servers", &servers, "--reference-dir", "data", "--manifest", "manifest.json"];
    sandbox.smelt(&generate).ok();
    let expected = manifest(&sandbox, "manifest.json");
    take_two_snapshots(&sandbox, "dev", &borrowed(&vars), &expected, false);
    broker.stop();
}
