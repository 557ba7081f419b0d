//! Configuration: from `smelt.yml`, properties and `config()`.

use super::{Folder, model};
use crate::project::Materialization;

const SMELT: &str = "\
name: telecom
targets: {dev: {lake: ./lake}}
models:
  +tags: [all]
  telecom:
    +meta: {owner: data, team: core}
    materialized: table
    bronze:
      +schema: bronze
      +materialized: streaming_table
      +partition_by: day
      raw:
        +schema: raw
        +deletion_vectors: false
    gold: {+schema: gold, +table_properties: {delta.a: 1}}
";

#[test]
fn later_levels_win_and_tags_add_up() {
    let properties = "\
version: 2
models:
  - name: g
    description: gold
    config:
      tags: nightly
      alias: Facts
      incremental: strict
      meta: {team: bi, smelt: {skip_change_commits: true}}
      table_properties: {delta.b: yes}
    columns: [{name: x, data_type: INT, description: the x}]
  - {name: off, config: {enabled: \"{{ var('with_off', false) }}\"}}
";
    let folder = Folder::new(&[
        ("smelt.yml", SMELT),
        ("models/m.yml", properties),
        ("queries/top.sql", "select 1 as x"),
        ("queries/bronze/b.sql", "select 1 as x"),
        (
            "queries/bronze/raw/r.sql",
            "{{ config(partition_by=['a', 'b'], tags='own', full_refresh=true) }}select 1 as x",
        ),
        ("queries/gold/g.sql", "{{ config({'materialized': 'view'}, schema='mart') }}select 1 as x"),
        ("queries/off.sql", "select broken from {{ ref('nothing') }}"),
    ]);
    let project = folder.load();
    let top = model(&project, "top");
    assert_eq!(
        (top.materialized, top.schema.as_str(), top.tags.as_slice()),
        (Materialization::Table, "default", &["all".to_string()][..])
    );
    let b = model(&project, "b");
    assert_eq!((b.materialized, b.schema.as_str()), (Materialization::StreamingTable, "bronze"));
    assert_eq!(b.config.partition_by, ["day"]);
    assert_eq!(b.config.all["meta"]["owner"], "data");
    let r = model(&project, "r");
    assert_eq!((r.schema.as_str(), r.config.deletion_vectors, r.config.full_refresh), ("raw", Some(false), Some(true)));
    assert_eq!(r.config.partition_by, ["a", "b"]);
    assert_eq!(r.tags, ["all", "own"]);
    let g = model(&project, "g");
    assert_eq!((g.materialized, g.schema.as_str(), g.alias.as_str()), (Materialization::View, "mart", "Facts"));
    assert_eq!(g.tags, ["all", "nightly"]);
    assert!(g.config.incremental_strict && g.config.skip_change_commits);
    assert_eq!(g.config.all["meta"]["team"], "bi");
    assert_eq!(g.config.all["meta"]["owner"], "data");
    assert_eq!(g.config.table_properties["delta.a"], "1");
    assert_eq!(g.config.table_properties["delta.b"], "yes");
    assert_eq!((g.description.as_deref(), g.columns[0].data_type.as_deref()), (Some("gold"), Some("INT")));
    assert!(project.models.iter().all(|m| m.name != "off"), "a disabled model is gone, whatever its SQL says");
}

#[test]
fn unknown_config_is_kept_and_noted() {
    let folder = Folder::new(&[
        (
            "models/m.yml",
            "version: 2\nmodels:\n  - {name: a, config: {partiton_by: day, meta: {anything: goes}}}\n  - {name: ab}\n",
        ),
        ("queries/a.sql", "{{ config(materialised='view', sql_header='set x') }}\nselect 1 as x"),
    ]);
    assert_eq!(
        folder.warnings(),
        "\
warning[unknown-config]: unknown config `partiton_by`
  --> models/m.yml:3:25
3 |   - {name: a, config: {partiton_by: day, meta: {anything: goes}}}
  |                         ^^^^^^^^^^^ did you mean `partition_by`? It is kept, and has no effect

warning[unused-properties]: there is no model `ab` to describe
  --> models/m.yml:4:12
4 |   - {name: ab}
  |            ^^ did you mean `a`?

warning[unknown-config]: unknown config `materialised`
  --> queries/a.sql:1:24
1 | {{ config(materialised='view', sql_header='set x') }}
  |                        ^^^^^^ did you mean `materialized`? It is kept, and has no effect

warning[ignored-config]: `sql_header` has no effect in this version of smelt
  --> queries/a.sql:1:43
1 | {{ config(materialised='view', sql_header='set x') }}
  |                                           ^^^^^^^ the value is kept in the manifest"
    );
    assert_eq!(model(&folder.load(), "a").config.all["partiton_by"], "day");
}

#[test]
fn configuration_for_a_folder_that_is_not_there_is_noted() {
    let smelt = "name: telecom\ntargets: {dev: {lake: ./lake}}\nmodels:\n  telecom:\n    broze: {+schema: bronze}\n";
    let folder = Folder::new(&[("smelt.yml", smelt), ("queries/bronze/a.sql", "select 1 as x")]);
    assert_eq!(
        folder.warnings(),
        "\
warning[unused-config]: configuration for `broze`, but there is no such folder or model
  --> smelt.yml:5:5
5 |     broze: {+schema: bronze}
  |     ^^^^^ did you mean `bronze`?"
    );
}
