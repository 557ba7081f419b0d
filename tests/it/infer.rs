//! `smelt source infer`: what it prints is pasted into a project as it stands, and reads what it was made from.

use crate::support::Sandbox;

#[test]
fn from_a_path_to_rows_without_dead_letters() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    sandbox.write(
        "data/calls-1.json",
        "{\"sid\": \"CA1\", \"from\": {\"number\": \"+2010\"}, \"cost\": 1.25, \"at\": \"2026-01-05T08:00:00Z\"}\n\
         {\"sid\": \"CA2\", \"from\": {\"number\": 2011}, \"cost\": \"2\", \"at\": \"2026-01-05T08:01:00Z\", \"tags\": [\"x\"]}\n",
    );
    let printed = sandbox.smelt(&["source", "infer", "data/calls-*.json", "--name", "telco.calls"]).ok();
    assert!(printed.stdout.contains("path: \"data/calls-*.json\""), "{}", printed.stdout);
    sandbox.write("models/telco.yml", &printed.stdout);
    sandbox.write("queries/bronze/bronze_calls.sql", "select * from {{ source('telco', 'calls') }}");
    sandbox.smelt(&["run", "--select", "bronze_calls"]).ok();
    assert_eq!(
        sandbox.rows("select sid, \"from\".number as n, cost, at, _rescued from bronze_calls"),
        [
            r#"{"sid":"CA1","n":"+2010","cost":1.25,"at":"2026-01-05T08:00:00Z","_rescued":null}"#,
            r#"{"sid":"CA2","n":null,"cost":2.00,"at":"2026-01-05T08:01:00Z","_rescued":"{\"from\":{\"number\":2011}}"}"#,
        ]
    );
    assert_eq!(sandbox.count("bronze.bronze_calls__dead_letter"), 0);
}

#[test]
fn mistakes_say_what_to_write() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    sandbox.smelt(&["source", "infer", "data/nothing.json"]).fails(2, "names no file with anything in it");
    sandbox.smelt(&["source", "infer", "kafka://localhost:9092"]).fails(2, "write kafka://HOST:PORT/TOPIC");
    sandbox
        .smelt(&["source", "infer", "kafka:///t", "--connection", "telco"])
        .fails(2, "no connection `telco` in target `dev`");
    sandbox.write("data/array.json", "[\n  {\"a\": 1}\n]\n");
    sandbox.smelt(&["source", "infer", "data/array.json"]).fails(2, "smelt reads one object per line");
    sandbox.write("data/x.json", "{\"a\": 1}\n");
    sandbox.smelt(&["source", "infer", "data/x.json", "--format", "jsn"]).fails(2, "possible values: json, csv");
}
