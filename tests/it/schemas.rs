//! The JSON Schemas of the YAML files: what the loader takes, they take, and what it refuses, they refuse.

use std::process::Command;

use crate::python;
use crate::support::Sandbox;

/// Validates YAML files against schemas, as an editor does; prints what does not fit.
const VALIDATE: &str = r#"
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
for path in sys.argv[2:]:
    text = yaml.safe_load(open(path))
    value = json.loads(json.dumps(text, default=str))
    leaves = lambda error: sum(map(leaves, error.context), []) if error.context else [error]
    for error in sum(map(leaves, jsonschema.Draft7Validator(schema).iter_errors(value)), []):
        print(f"{path}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}")
"#;

/// Problems of files (of the sandbox or absolute) with a schema that the binary prints.
fn problems(sandbox: &Sandbox, kind: &str, files: &[&str]) -> String {
    sandbox.write("schema.json", sandbox.smelt(&["schema", kind]).ok().stdout);
    let mut command = Command::new(python::python());
    let output =
        command.current_dir(sandbox.path()).args(["-c", VALIDATE, "schema.json"]).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_yaml_of_the_sample_and_of_a_new_project_fits() {
    if !python::available() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    assert_eq!(problems(&sandbox, "project", &["smelt.yml", concat!(env!("CARGO_MANIFEST_DIR"), "/smelt.yml")]), "");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let mut files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path().to_string_lossy().into_owned()).collect();
    files.sort();
    files.push("models/shop.yml".to_string());
    assert!(files.len() >= 5);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(problems(&sandbox, "properties", &files), "");
    // What `source infer` prints fits too.
    sandbox.write("data/x.json", "{\"a\": {\"b\": 1}, \"c d\": \"13-01-2026\"}\n{\"a\": 2}\n");
    sandbox.write("models/x.yml", sandbox.smelt(&["source", "infer", "data/x.json"]).ok().stdout);
    assert_eq!(problems(&sandbox, "properties", &["models/x.yml"]), "");
}

#[test]
fn mistakes_are_marked_as_the_loader_marks_them() {
    if !python::available() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    for (file, kind, text, expected) in [
        (
            "smelt.yml",
            "project",
            "name: p\ntarget: dev\ntargets: {dev: {lake: ./lake, comit_interval: 1s}}\n",
            "comit_interval",
        ),
        ("smelt.yml", "project", "name: p\ndialect: oracle\ntargets: {dev: {lake: ./lake}}\n", "dialect"),
        ("smelt.yml", "project", "name: p\ntargets: {dev: {lake: ./lake, commit_interval: fast}}\n", "commit_interval"),
        ("models/x.yml", "properties", "version: 2\nmodels:\n  - {name: m, colums: []}\n", "colums"),
        ("models/x.yml", "properties", "version: 2\nmodels:\n  - {description: m}\n", "name"),
        (
            "models/x.yml",
            "properties",
            "version: 2\nmodels:\n  - {name: m, expectations: [{name: e, expect: x, on_violation: explode}]}\n",
            "on_violation",
        ),
        (
            "models/x.yml",
            "properties",
            "version: 2\nsources:\n  - {name: s, tables: [{name: t, config: {connector: kafak}}]}\n",
            "connector",
        ),
    ] {
        let project = std::fs::read_to_string(sandbox.path().join("smelt.yml")).unwrap();
        sandbox.write(file, text);
        let problems = problems(&sandbox, kind, &[file]);
        assert!(problems.contains(expected), "{text}\n{problems}");
        sandbox.smelt(&["compile"]).fails(2, expected);
        sandbox.write("smelt.yml", project);
        if file != "smelt.yml" {
            sandbox.remove(file);
        }
    }
}
