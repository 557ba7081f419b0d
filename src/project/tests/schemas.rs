//! `schemas/*.json` know exactly the keys and words that the loader knows, and describe each.
//!
//! What the loader knows is asked of the loader: a mapping with all keys of a schema must have no unknown one, and what it says of a key
//! that nobody knows counts those it does.

use serde_json::Value;
use std::collections::BTreeSet;

use super::Folder;
use crate::error::Error;
use crate::project::load;

fn schema(name: &str) -> Value {
    let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Far from every key and word.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

/// What loading a file says; the other files are usable.
fn said(file: &str, text: &str) -> Vec<Error> {
    let folder = Folder::new(&[("queries/m.sql", "select 1 as a"), (file, text)]);
    match load(&folder.options, &folder.env) {
        Ok(_) => Vec::new(),
        Err(errors) => errors,
    }
}

/// Keys of the object at `pointer`.
fn keys(schema: &Value, pointer: &str) -> BTreeSet<String> {
    let object = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    object["properties"].as_object().unwrap_or_else(|| panic!("{pointer} has no properties")).keys().cloned().collect()
}

/// The words at `pointer`: an enum, alone or beside Jinja.
fn words(schema: &Value, pointer: &str) -> BTreeSet<String> {
    let found = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    let list =
        found.get("enum").or_else(|| found["anyOf"][0].get("enum")).unwrap_or_else(|| panic!("{pointer}: {found}"));
    list.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_string()).collect()
}

/// (schema, object in it, file, the file's text with the mapping for `MAPPING`)
const MAPPINGS: [(&str, &str, &str, &str); 14] = [
    ("project", "", "smelt.yml", "MAPPING"),
    ("project", "/definitions/target", "smelt.yml", "name: p\ntargets: {dev: MAPPING}"),
    (
        "project",
        "/definitions/target/properties/epoch",
        "smelt.yml",
        "name: p\ntargets: {dev: {lake: ./lake, epoch: MAPPING}}",
    ),
    (
        "project",
        "/definitions/target/properties/state_snapshots",
        "smelt.yml",
        "name: p\ntargets: {dev: {lake: ./lake, state_snapshots: MAPPING}}",
    ),
    ("properties", "", "models/x.yml", "MAPPING"),
    ("properties", "/definitions/source", "models/x.yml", "sources: [MAPPING]"),
    ("properties", "/definitions/source_table", "models/x.yml", "sources: [{name: s, tables: [MAPPING]}]"),
    (
        "properties",
        "/definitions/watermark",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: datagen, watermark: MAPPING}}]}]",
    ),
    ("properties", "/definitions/column", "models/x.yml", "models: [{name: m, columns: [MAPPING]}]"),
    ("properties", "/definitions/model", "models/x.yml", "models: [MAPPING]"),
    ("properties", "/definitions/snapshot", "models/x.yml", "snapshots: [MAPPING]"),
    ("properties", "/definitions/expectation", "models/x.yml", "models: [{name: m, expectations: [MAPPING]}]"),
    ("properties", "/definitions/singular_test", "models/x.yml", "data_tests: [MAPPING]"),
    (
        "properties",
        "/definitions/schedule/anyOf/1",
        "models/x.yml",
        "models: [{name: m, config: {materialized: table, schedule: MAPPING}}]",
    ),
];

#[test]
fn mappings_have_the_keys_the_loader_knows() {
    for (name, pointer, file, text) in MAPPINGS {
        let keys = keys(&schema(name), pointer);
        let all: Vec<String> = keys.iter().map(|key| format!("{key}: null")).collect();
        let unknown = |mapping: &str| -> Vec<Error> {
            let errors = said(file, &text.replace("MAPPING", mapping));
            errors.into_iter().filter(|e| e.code() == "unknown-key").collect()
        };
        if let Some(error) = unknown(&format!("{{{}}}", all.join(", "))).first() {
            panic!("schemas/{name}.json{pointer} has a key the loader does not know:\n{}", error.render());
        }
        let errors = unknown(&format!("{{{UNKNOWN}: 1}}"));
        assert_eq!(errors.len(), 1, "{name}{pointer}: {errors:?}");
        let hint = errors[0].hint().unwrap();
        let (_, list) = hint.split_once(": ").unwrap();
        let known = match list.split_once("… (") {
            Some((_, count)) => count.split(' ').next().unwrap().parse().unwrap(),
            None => list.split(", ").count(),
        };
        // Free keys everywhere: `meta`, which not every list names.
        let expected =
            if list.split(", ").any(|k| k == "meta") || !keys.contains("meta") { keys.len() } else { keys.len() - 1 };
        assert_eq!(known, expected, "schemas/{name}.json{pointer} lacks keys of the loader: {hint}");
    }
}

/// (schema, the choice in it, file, the file's text with `WORD`)
const CHOICES: [(&str, &str, &str, &str); 11] = [
    ("project", "/properties/dialect", "smelt.yml", "name: p\ndialect: WORD\ntargets: {dev: {lake: ./lake}}"),
    (
        "project",
        "/definitions/connection/properties/type",
        "smelt.yml",
        "name: p\ntargets: {dev: {lake: ./lake, connections: {c: {type: WORD}}}}",
    ),
    (
        "properties",
        "/definitions/source_config/properties/connector",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: WORD}}]}]",
    ),
    (
        "properties",
        "/definitions/source_config/properties/format",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: datagen, format: WORD}}]}]",
    ),
    (
        "properties",
        "/definitions/source_config/properties/on_error",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: datagen, on_error: WORD}}]}]",
    ),
    (
        "properties",
        "/definitions/source_config/properties/on_data_loss",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: kafka, connection: telco, topic: t, on_data_loss: WORD}}]}]",
    ),
    (
        "properties",
        "/definitions/source_config/properties/include/anyOf/1/items",
        "models/x.yml",
        "sources: [{name: s, tables: [{name: t, config: {connector: datagen, include: [WORD]}}]}]",
    ),
    (
        "properties",
        "/definitions/expectation/properties/on_violation",
        "models/x.yml",
        "models: [{name: m, expectations: [{name: e, expect: a > 0, on_violation: WORD}]}]",
    ),
    (
        "properties",
        "/definitions/model_config/properties/materialized",
        "models/x.yml",
        "models: [{name: m, config: {materialized: WORD}}]",
    ),
    (
        "properties",
        "/definitions/model_config/properties/incremental",
        "models/x.yml",
        "models: [{name: m, config: {incremental: WORD}}]",
    ),
    (
        "properties",
        "/definitions/schedule/anyOf/1/properties/after",
        "models/x.yml",
        "models: [{name: m, config: {materialized: table, schedule: {after: WORD}}}]",
    ),
];

#[test]
fn choices_have_the_words_the_loader_knows() {
    for (name, pointer, file, text) in CHOICES {
        let words = words(&schema(name), pointer);
        let errors = said(file, &text.replace("WORD", UNKNOWN));
        let error =
            errors.iter().find(|e| e.message().contains(UNKNOWN)).unwrap_or_else(|| panic!("{pointer}: {errors:?}"));
        if pointer.ends_with("after") {
            assert!(error.message().contains("is `upstream`"), "{error:?}");
            continue;
        }
        let list = error.hint().unwrap().split_once("it can be: ").unwrap_or_else(|| panic!("{error:?}")).1;
        // What follows a semicolon is advice.
        let list = list.split(';').next().unwrap();
        let known: BTreeSet<String> = list.split(", ").map(str::to_string).collect();
        assert_eq!(words, known, "schemas/{name}.json{pointer}");
    }
    let schema = schema("properties");
    let include = "/definitions/source_config/properties/include/anyOf";
    assert_eq!(keys(&schema, &format!("{include}/0")), words(&schema, &format!("{include}/1/items")));
}

#[test]
fn config_has_the_keys_that_are_no_typing_errors() {
    use crate::project::config::{KEPT_KEYS, LATER_KEYS, MODEL_KEYS};
    let of = |lists: &[&[&str]]| -> BTreeSet<String> { lists.concat().into_iter().map(str::to_string).collect() };
    let (project, properties) = (schema("project"), schema("properties"));
    let known = of(&[MODEL_KEYS, KEPT_KEYS, LATER_KEYS]);
    assert_eq!(keys(&properties, "/definitions/model_config"), known);
    let folder: BTreeSet<String> =
        keys(&project, "/definitions/folder/anyOf/0").iter().map(|k| k.replacen('+', "", 1)).collect();
    assert_eq!(folder, known);
    let sources = of(&[crate::project::sources::CONFIG_KEYS]);
    assert_eq!(keys(&properties, "/definitions/source_config"), sources);
    assert_eq!(keys(&properties, "/definitions/test_config"), of(&[crate::project::data_tests::CONFIG_KEYS]));
}

#[test]
fn every_key_is_described() {
    fn check(value: &Value, path: &str) {
        match value {
            Value::Object(object) => {
                for (key, below) in object {
                    let path = format!("{path}/{key}");
                    // A key may be called so itself.
                    if let ("properties", Value::Object(properties)) = (key.as_str(), below)
                        && properties.values().all(Value::is_object)
                    {
                        for (name, property) in properties {
                            let text = property["description"].as_str().unwrap_or_default();
                            let referred = property.get("$ref").is_some();
                            assert!(referred || text.len() > 3, "{path}/{name} has no description");
                        }
                    }
                    check(below, &path);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, path)),
            _ => {}
        }
    }
    for name in ["project", "properties"] {
        check(&schema(name), name);
    }
}
