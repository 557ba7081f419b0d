//! The options of `smelt generate`.

use serde_json::Value;

use crate::support::Sandbox;

fn manifest(args: &[&str]) -> Value {
    let sandbox = Sandbox::new();
    let mut all = vec!["generate", "--to-dir", "data", "--manifest", "manifest.json", "--events", "1000"];
    all.extend_from_slice(args);
    sandbox.smelt(&all).ok();
    serde_json::from_str(&std::fs::read_to_string(sandbox.path().join("manifest.json")).unwrap()).unwrap()
}

fn total(manifest: &Value, kind: &str) -> u64 {
    manifest["topics"].as_object().unwrap().values().map(|topic| topic[kind].as_u64().unwrap()).sum()
}

#[test]
fn shares_decide_how_many_bad_records_there_are() {
    let made = manifest(&["--malformed", "0.05", "--duplicates", "0", "--impossible-dates", "0.01", "--users", "40"]);
    assert_eq!(total(&made, "base"), 1000);
    assert_eq!(total(&made, "malformed"), 50);
    assert_eq!(total(&made, "duplicates"), 0);
    assert_eq!(total(&made, "impossible_dates"), 10);
    assert_eq!(made["tables"]["dim_user"]["rows"], 40);
}

#[test]
fn start_and_days_decide_when_it_happens() {
    let made = manifest(&["--profile", "ref", "--start", "2026-02-01", "--days", "3"]);
    assert_eq!(made["tables"]["dim_date"]["rows"], 3);
    assert_ne!(made, manifest(&["--days", "3"]), "the start changes the traffic");
}

#[test]
fn one_slice_is_the_same_file_as_in_all() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["generate", "--to-dir", "all", "--events", "500", "--slices", "4"]).ok();
    sandbox.smelt(&["generate", "--to-dir", "one", "--events", "500", "--slices", "4", "--slice", "2"]).ok();
    let mut compared = 0;
    let mut folders = vec![sandbox.path().join("one")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "ndjson" || e == "json") && !path.ends_with("manifest.json")
            {
                let other = sandbox.path().join("all").join(path.strip_prefix(sandbox.path().join("one")).unwrap());
                assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap(), "{}", path.display());
                compared += 1;
            }
        }
    }
    assert!(compared >= 2, "{compared}");
}

#[test]
fn wrong_options_are_usage_errors() {
    let sandbox = Sandbox::new();
    let generate = |flag: &str, value: &str| sandbox.smelt(&["generate", "--to-dir", "data", flag, value]);
    generate("--malformed", "1.5").fails(2, "between 0 and 1");
    generate("--days", "0").fails(2, "1 to 36500");
    generate("--start", "soon").fails(2, "write 2026-01-05");
    generate("--profile", "rfe").fails(2, "there is one profile: ref");
    generate("--slice", "2").fails(2, "slices 1 to 1");
    assert!(!sandbox.path().join("data").exists(), "nothing is written");
}
