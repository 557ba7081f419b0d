//! `--select`, `--exclude`, `--selector` and their companions.

use super::Folder;
use crate::project::{Indirect, Project, Request, ResourceType, select};

/// The arguments of a `dbt ls` as a request; quotes hold words together.
#[derive(Default)]
struct Arguments {
    select: Vec<String>,
    exclude: Vec<String>,
    selector: Option<String>,
    indirect: Indirect,
    resource_types: Vec<ResourceType>,
    exclude_resource_types: Vec<ResourceType>,
}

impl Arguments {
    fn parse(line: &str) -> Self {
        let mut arguments = Arguments::default();
        let mut flag = "";
        for (i, quoted) in line.split('"').enumerate() {
            let words = if i % 2 == 1 { vec![quoted] } else { quoted.split_whitespace().collect() };
            for word in words {
                let of_type = || ResourceType::ALL.into_iter().find(|t| t.name() == word).unwrap();
                match flag {
                    _ if word.starts_with("--") => flag = word,
                    "--select" => arguments.select.push(word.to_string()),
                    "--exclude" => arguments.exclude.push(word.to_string()),
                    "--selector" => arguments.selector = Some(word.to_string()),
                    "--resource-type" => arguments.resource_types.push(of_type()),
                    "--exclude-resource-type" => arguments.exclude_resource_types.push(of_type()),
                    "--indirect-selection" => {
                        arguments.indirect = match word {
                            "cautious" => Indirect::Cautious,
                            "buildable" => Indirect::Buildable,
                            "empty" => Indirect::Empty,
                            _ => Indirect::Eager,
                        }
                    }
                    other => panic!("{other} in {line}"),
                }
            }
        }
        arguments
    }

    fn request(&self) -> Request<'_> {
        Request {
            select: &self.select,
            exclude: &self.exclude,
            selector: self.selector.as_deref(),
            indirect: self.indirect,
            resource_types: (!self.resource_types.is_empty()).then_some(&self.resource_types[..]),
            exclude_resource_types: &self.exclude_resource_types,
            state: None,
            lake: None,
        }
    }
}

/// Names in order, as `dbt ls --output name` has them.
fn names(project: &Project, line: &str) -> String {
    let arguments = Arguments::parse(line);
    let selected = select(project, &arguments.request()).unwrap_or_else(|e| panic!("{line}: {}", e.render()));
    let mut names: Vec<String> = selected.nodes.iter().map(|n| n.search_name()).collect();
    names.sort();
    if names.is_empty() { "nothing".to_string() } else { names.join(" ") }
}

/// The files of the dbt project that `dbt_ls.txt` holds.
pub(super) fn shop_files() -> Vec<(&'static str, &'static str)> {
    let (files, _) = include_str!("dbt_ls.txt").split_once("=== answers\n").unwrap();
    files.split("=== ").skip(1).map(|f| f.split_once('\n').unwrap()).collect()
}

fn shop() -> (Project, Vec<(String, String)>) {
    let (_, answers) = include_str!("dbt_ls.txt").split_once("=== answers\n").unwrap();
    let lines: Vec<&str> = answers.lines().collect();
    let answers = lines.chunks(2).map(|c| (c[0].trim_start_matches("dbt ls ").to_string(), c[1].trim().to_string()));
    (Folder::new(&shop_files()).load(), answers.collect())
}

#[test]
fn every_selection_has_the_nodes_that_dbt_has() {
    let (project, answers) = shop();
    assert!(answers.len() > 170);
    let wrong: Vec<String> = answers
        .iter()
        .filter_map(|(line, expected)| {
            let found = names(&project, line);
            (found != *expected).then(|| format!("{line}\n  dbt:   {expected}\n  smelt: {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn project() -> Project {
    let sources = "\
version: 2
sources:
  - {name: telco, config: {connector: kafka, connection: telco}, tables: [{name: calls, config: {topic: c}, columns: [{name: sid, data_type: STRING}]}, {name: sms, config: {topic: s}, columns: [{name: sid, data_type: STRING}]}]}
models:
  - {name: silver_calls, config: {tags: [hourly, core]}, columns: [{name: sid, data_tests: [unique]}]}
  - {name: gold_kpi, config: {tags: nightly, meta: {owner: bi, keys: {a: 1}}}}
snapshots:
  - {name: history, relation: ref('silver_calls'), config: {strategy: check, unique_key: sid, check_cols: all}}
";
    Folder::new(&[
        ("models/m.yml", sources),
        (
            "queries/bronze/bronze_calls.sql",
            "{{ config(materialized='streaming_table') }}select * from {{ source('telco', 'calls') }}",
        ),
        (
            "queries/bronze/bronze_sms.sql",
            "{{ config(materialized='streaming_table') }}select * from {{ source('telco', 'sms') }}",
        ),
        ("queries/silver/silver_calls.sql", "select * from {{ ref('bronze_calls') }}"),
        ("queries/silver/silver_sms.sql", "{{ config(materialized='view') }}select * from {{ ref('bronze_sms') }}"),
        (
            "queries/gold/gold_kpi.sql",
            "select * from {{ ref('silver_calls') }} union all select * from {{ ref('silver_sms') }}",
        ),
        ("selectors.yml", "selectors:\n  - {name: bronze, default: true, definition: bronze}\n"),
    ])
    .load()
}

#[test]
fn what_dbt_would_not_find_is_found_by_ways_of_our_own() {
    let project = project();
    let check = |line: &str, expected: &str| assert_eq!(names(&project, line), expected, "{line}");
    check("--select SILVER_SMS", "silver_sms");
    check("--select source:TELCO.Sms", "telco.sms");
    check("--select name:*_sms", "bronze_sms silver_sms");
    check("--select selector:bronze,name:*_calls", "bronze_calls");
    check("--select config.materialized:*view --exclude resource_type:test", "gold_kpi silver_calls silver_sms");
    check("--select config.meta.keys:a", "gold_kpi");
    check("--select resource_type:snapshot", "history");
    check("--select silver_calls+ --resource-type snapshot", "history");
    check("--select path:./queries/gold", "gold_kpi");
    check("--select path:.,tag:nightly", "gold_kpi");
    // The default selector is taken when nothing is asked for, and only then.
    check("", "bronze_calls bronze_sms");
    check("--resource-type source", "nothing");
    check("--exclude bronze+", "telco.calls telco.sms");
}

#[test]
fn words_that_match_nothing_are_warned_of_with_what_was_meant() {
    let project = project();
    let warning = |line: &str| {
        let arguments = Arguments::parse(line);
        let selected = select(&project, &arguments.request()).unwrap();
        selected.warnings.iter().map(|w| w.render_warning()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        warning("--select silver_cals gold_kpi"),
        "warning[empty-selection]: the selection `silver_cals` does not match any enabled node\n  = did you mean `silver_calls`?"
    );
    assert_eq!(
        warning("--select bronze_*"),
        "warning[empty-selection]: the selection `bronze_*` does not match any enabled node\n  = a pattern stands for the folders too: write *bronze_* or name:bronze_*"
    );
    assert_eq!(
        warning("--select path:queries/glod"),
        "warning[empty-selection]: the selection `path:queries/glod` does not match any enabled node\n  = paths are relative to the project: path:queries/gold"
    );
    assert_eq!(
        warning("--exclude tag:nightl"),
        "warning[empty-selection]: the selection `tag:nightl` does not match any enabled node\n  = did you mean `nightly`?"
    );
    assert_eq!(
        warning("--select tag:hourly,tag:nightly"),
        "warning[empty-selection]: the selection `tag:hourly,tag:nightly` does not match any enabled node"
    );
    assert_eq!(warning("--select gold_kpi"), "");
}

#[test]
fn words_that_mean_nothing_are_errors() {
    let project = project();
    let error = |line: &str| {
        let arguments = Arguments::parse(line);
        match select(&project, &arguments.request()) {
            Ok(_) => panic!("{line} selects"),
            Err(e) => e.render(),
        }
    };
    assert_eq!(
        error("--select tags:x"),
        "error[bad-selection]: unknown selection method `tags`\n  = did you mean `tag`?"
    );
    assert!(error("--select tag:").contains("nothing is named in the selection `tag:`"));
    assert!(error("--select config:view").contains("`config` names no configuration"));
    assert!(error("--select @gold_kpi+").contains("`@` before and `+` after do not go together in `@gold_kpi+`"));
    assert!(error("--select resource_type:modle").contains("did you mean `model`?"));
    assert!(error("--select test_type:unitt").contains("did you mean `unit`?"));
    assert!(error("--select version:newest").contains("versions: latest, none, old, prerelease"));
    assert!(error("--select source:a.b.c.d").contains("write source:telco, source:telco.calls"));
    assert!(error("--selector bronz").contains("no selector `bronz` in selectors.yml\n  = did you mean `bronze`?"));
    assert!(error("--select state:modified").contains("with --state"));
}
