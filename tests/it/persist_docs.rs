//! `persist_docs`: descriptions stand in the logs of tables, where other engines read them.

use std::process::Command;

use super::support::Sandbox;

const SMELT: &str = "name: shop\ntargets: {dev: {lake: ./lake}}\nmodels: {shop: {documented: {+persist_docs: {relation: true, columns: true}}}}\n";

fn described(table: &str, column: &str) -> String {
    format!(
        "version: 2\nmodels:\n  - {{name: users, description: {table}, columns: [{{name: id, description: {column}}}, {{name: city}}]}}\n  - {{name: bare, description: unsaid, columns: [{{name: id, description: unsaid}}]}}\n"
    )
}

/// (description, comment of `id`) as Python's deltalake reads them, and the number of the newest version.
fn said(sandbox: &Sandbox, name: &str) -> (String, i64) {
    let script = "import sys\nfrom deltalake import DeltaTable\nt = DeltaTable(sys.argv[1])\n\
                  m = {f.name: f.metadata for f in t.schema().fields}\n\
                  print(t.metadata().description, m['id'].get('comment'), m['city'].get('comment') if 'city' in m else None, sep='|')\n\
                  print(t.version())";
    let table = sandbox.table("default", name);
    let output = Command::new(crate::python::python()).args(["-c", script]).arg(table).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().map(str::to_string);
    (lines.next().unwrap(), lines.next().unwrap().parse().unwrap())
}

#[test]
fn descriptions_are_in_the_log_and_follow_the_properties_file() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", SMELT),
        ("seeds/people.csv", "id,city\n1,Cairo\n2,Giza\n"),
        (
            "queries/documented/users.sql",
            "{{ config(materialized='materialized_view') }}select id, city from {{ ref('people') }}",
        ),
        ("queries/bare.sql", "{{ config(materialized='table') }}select id from {{ ref('people') }}"),
        ("models/users.yml", &described("All users", "The key")),
    ]);
    sandbox.smelt(&["build"]).ok();
    let (first, version) = said(&sandbox, "users");
    assert_eq!(first, "All users|The key|None");
    assert_eq!(said(&sandbox, "bare").0, "None|None|None");

    // A change of words is one commit without rows; the model is not computed anew.
    sandbox.write("models/users.yml", described("Every user", "Their key"));
    sandbox.smelt(&["run"]).ok();
    let (second, later) = said(&sandbox, "users");
    assert_eq!(second, "Every user|Their key|None");
    assert!(later > version);
    for number in version + 1..=later {
        let entry =
            std::fs::read_to_string(sandbox.table("default", "users").join(format!("_delta_log/{number:020}.json")))
                .unwrap();
        assert!(!entry.contains("\"add\"") && !entry.contains("\"remove\""), "{entry}");
    }
    assert_eq!(sandbox.count("users"), 2);

    // What was said stays when columns are added, and rows go on.
    sandbox.write("seeds/people.csv", "id,city\n1,Cairo\n2,Giza\n3,Luxor\n");
    sandbox.smelt(&["seed"]).ok();
    sandbox.smelt(&["run"]).ok();
    assert_eq!(said(&sandbox, "users").0, "Every user|Their key|None");
    assert_eq!(sandbox.count("users"), 3);

    sandbox.write("models/users.yml", "version: 2\nmodels: [{name: users, columns: [{name: id}]}]\n");
    sandbox.smelt(&["run"]).ok();
    assert_eq!(said(&sandbox, "users").0, "None|None|None");

    sandbox.write(
        "queries/bare.sql",
        "{{ config(materialized='table', persist_docs=true) }}select id from {{ ref('people') }}",
    );
    sandbox
        .smelt(&["compile"])
        .fails(2, "`persist_docs` must be a mapping, found `true`")
        .fails(2, "persist_docs: {relation: true, columns: true}");
}
