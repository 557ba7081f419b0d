//! Snapshots as blocks and as YAML, and schedules.

use super::Folder;
use crate::project::*;

fn model<'a>(project: &'a Project, name: &str) -> &'a Model {
    project.models.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn blocks_and_relations_are_snapshots() {
    let smelt = "\
name: telecom
targets: {dev: {lake: ./lake}}
models: {telecom: {+schema: silver}}
snapshots: {telecom: {+schema: snapshots, +schedule: every 5 minutes}}
";
    let block = "\
-- the file may say more
{% snapshot snap_users -%}
{{ config(unique_key=['user_id', 'plan'], strategy='timestamp', updated_at='at', hard_deletes='new_record',
          snapshot_meta_column_names={'dbt_valid_from': 'since'}) }}
select * from {{ ref('users') }}
{%- endsnapshot %}
{% snapshot snap_more %}{{ config(unique_key='user_id', strategy='check', check_cols='all') }}
select user_id from {{ ref('users') }} {% endsnapshot %}
";
    let yaml = "\
version: 2
snapshots:
  - name: snap_sites
    description: Sites.
    relation: ref('sites')
    config: {unique_key: site_id, strategy: check, check_cols: [city], schema: history, alias: Sites,
             invalidate_hard_deletes: true, schedule: {cron: 0 2 * * *, time_zone: Africa/Cairo}}
    columns: [{name: site_id, data_tests: [not_null]}]
  - name: snap_users
    description: Users.
";
    let folder = Folder::new(&[
        ("smelt.yml", smelt),
        ("queries/users.sql", "select 1 as user_id, 'x' as plan, now() as at"),
        ("queries/sites.sql", "select 1 as site_id, 'x' as city"),
        ("queries/reader.sql", "select * from {{ ref('snap_sites') }}"),
        ("queries/snapshots/users.sql", block),
        ("models/snapshots.yml", yaml),
    ]);
    let project = folder.load();
    assert!(project.warnings.is_empty(), "{:?}", project.warnings);
    let users = model(&project, "snap_users");
    assert_eq!(
        (users.materialized, users.unique_id.as_str()),
        (Materialization::Snapshot, "snapshot.telecom.snap_users")
    );
    assert_eq!((users.schema.as_str(), users.description.as_deref()), ("snapshots", Some("Users.")));
    assert_eq!(users.sql.trim(), "select * from \"silver\".\"users\"");
    assert_eq!(users.config.schedule.as_ref().unwrap().when.to_string(), "every 5 minutes");
    let snapshot = users.config.snapshot.as_ref().unwrap();
    assert_eq!(snapshot.unique_key, ["user_id", "plan"]);
    assert_eq!(snapshot.strategy, SnapshotStrategy::Timestamp("at".into()));
    assert_eq!(snapshot.hard_deletes, HardDeletes::NewRecord);
    assert_eq!((snapshot.columns.valid_from.as_str(), snapshot.columns.valid_to.as_str()), ("since", "dbt_valid_to"));
    assert_eq!(model(&project, "snap_more").sql.trim(), "select user_id from \"silver\".\"users\"");

    let sites = model(&project, "snap_sites");
    assert_eq!((sites.schema.as_str(), sites.alias.as_str()), ("history", "Sites"));
    assert_eq!(sites.sql.split_whitespace().collect::<Vec<_>>().join(" "), "select * from \"silver\".\"sites\"");
    assert_eq!(sites.config.schedule.as_ref().unwrap().when.to_string(), "0 2 * * * Africa/Cairo");
    let snapshot = sites.config.snapshot.as_ref().unwrap();
    assert_eq!(snapshot.strategy, SnapshotStrategy::Check(vec!["city".into()]));
    assert_eq!(snapshot.hard_deletes, HardDeletes::Invalidate);
    assert_eq!(model(&project, "reader").sql, "select * from \"history\".\"Sites\"");
    assert!(project.tests.iter().any(|t| t.name == "not_null_snap_sites_site_id"));
}

#[test]
fn a_schedule_on_what_is_always_up_to_date_is_noted() {
    let folder = Folder::new(&[("queries/a.sql", "{{ config(schedule='every 5 minutes') }} select 1 as x")]);
    let project = folder.load();
    let said: Vec<String> = project.warnings.iter().map(|w| w.message().to_string()).collect();
    assert_eq!(said, ["`schedule` has no effect: a materialized_view is always up to date"]);
    assert!(model(&project, "a").config.schedule.is_none());
}
