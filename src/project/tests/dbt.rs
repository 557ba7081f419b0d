//! A `dbt_project.yml` project: dbt's defaults and names, profiles, packages.

use super::{Folder, data_test, model};
use crate::project::{Dialect, Materialization};

const PROJECT: &str = "\
name: shop
version: '1.0'
config-version: 2
profile: warehouse
vars: {currency: EUR, utils: {unit: cents}}
models:
  shop:
    marts: {+schema: marts, +materialized: table, +tags: [gold]}
  utils: {+schema: shared, helpers: {+materialized: ephemeral}}
dispatch:
  - {macro_namespace: utils, search_order: [shop, utils]}
";
const PROFILES: &str = "\
warehouse:
  target: dev
  outputs:
    dev: {type: snowflake, schema: analytics, threads: 3, database: raw, password: \"{{ env_var('NOT_SET_ANYWHERE') }}\"}
    prod: {type: snowflake, schema: \"{{ env_var('NEITHER') }}\"}
";
const UTILS: &str = "name: utils\nversion: '1.0'\nvars: {unit: euros, scale: 2}\nmodels: {utils: {+tags: [own]}}\n";

/// A folder with `files` beside the project and its profile, and no `smelt.yml`.
fn folder(files: &[(&str, &str)]) -> Folder {
    let mut all = vec![("dbt_project.yml", PROJECT), ("profiles.yml", PROFILES)];
    all.extend(files);
    let folder = Folder::new(&all);
    if files.iter().all(|(path, _)| *path != "smelt.yml") {
        std::fs::remove_file(folder.path().join("smelt.yml")).unwrap();
    }
    folder
}

#[test]
fn defaults_and_names_are_dbts() {
    let folder = folder(&[
        ("models/staging/orders.sql", "select 1 as id, '{{ var('currency') }}' as currency"),
        (
            "models/marts/revenue.sql",
            "select * from {{ ref('shop', 'orders') }} -- {{ target.type }} {{ target.database }}",
        ),
        ("tests/no_orders.sql", "select * from {{ ref('orders') }} where id is null"),
        ("models/schema.yml", "models: [{name: orders, columns: [{name: id, data_tests: [unique]}]}]"),
    ]);
    let project = folder.load();
    assert_eq!((project.name.as_str(), project.dialect), ("shop", Dialect::Snowflake));
    assert_eq!((project.target.name.as_str(), project.target.threads), ("dev", 3));
    assert_eq!(project.target.lake, folder.path().join("lake").to_string_lossy());
    let orders = model(&project, "orders");
    assert_eq!(orders.materialized, Materialization::View);
    assert_eq!((orders.schema.as_str(), orders.alias.as_str()), ("analytics", "orders"));
    assert_eq!(orders.fqn, ["shop", "staging", "orders"]);
    let revenue = model(&project, "revenue");
    assert_eq!((revenue.materialized, revenue.schema.as_str()), (Materialization::Table, "analytics_marts"));
    assert_eq!(revenue.tags, ["gold"]);
    assert_eq!(revenue.sql, "select * from \"analytics\".\"orders\" -- snowflake raw");
    let test = data_test(&project, "unique_orders_id");
    assert_eq!(
        (test.unique_id.as_str(), test.fqn.join(".")),
        ("test.shop.unique_orders_id.1360ecc70e", "shop.unique_orders_id".into())
    );
    assert_eq!(data_test(&project, "no_orders").unique_id, "test.shop.no_orders");
}

#[test]
fn a_lake_that_nobody_names_is_said() {
    let files = [("models/a.sql", "select 1 as x")];
    assert!(folder(&files).warnings().contains("nothing says where tables go: they go to ./lake"));
    let beside = "lake: s3://shop/lake\ndialect: duckdb\nconnections: {k: {type: kafka, bootstrap.servers: 'x:1'}}\n";
    let project = folder(&[files[0], ("smelt.yml", beside)]).load();
    assert_eq!((project.target.lake.as_str(), project.dialect), ("s3://shop/lake", Dialect::DuckDb));
    assert_eq!(project.target.connections["k"].kind, "kafka");
    assert!(project.warnings.iter().all(|w| w.code() != "default-lake"), "{:?}", project.warnings);
    let errors = folder(&[files[0], ("smelt.yml", "models: {+materialized: table}\n")]).errors();
    assert!(errors.contains("`models` belongs into dbt_project.yml"), "{errors}");
}

#[test]
fn macros_of_the_project_name_its_tables() {
    let macros = "\
{% macro generate_schema_name(custom_schema_name, node) %}{{ custom_schema_name or target.schema }}_{{ node.resource_type }}{% endmacro %}
{% macro generate_alias_name(custom_alias_name=none, node=none) %}t_{{ node.name }}{% endmacro %}
";
    let files = [("macros/names.sql", macros), ("models/marts/revenue.sql", "select 1 as x")];
    let project = folder(&files).load();
    let revenue = model(&project, "revenue");
    assert_eq!((revenue.schema.as_str(), revenue.alias.as_str()), ("marts_model", "t_revenue"));
    // A smelt project's own macros are asked as well.
    let smelt = Folder::new(&[("macros/names.sql", macros), ("queries/a.sql", "select 1 as x")]);
    assert_eq!(model(&smelt.load(), "a").schema, "default_model");
}

#[test]
fn a_profile_or_target_that_is_not_there_is_named() {
    let files = [("models/a.sql", "select 1 as x")];
    let mut folder = folder(&files);
    folder.options.target = Some("staging".to_string());
    assert!(folder.errors().contains("no target `staging` in profile `warehouse`"), "{}", folder.errors());
    folder.options.target = None;
    folder.options.profile = Some("warehous".to_string());
    let errors = folder.errors();
    assert!(errors.contains("no profile `warehous`") && errors.contains("did you mean `warehouse`?"), "{errors}");
    folder.options.profile = None;
    std::fs::remove_file(folder.path().join("profiles.yml")).unwrap();
    assert!(folder.errors().contains("there is no profiles.yml for the profile `warehouse`"), "{}", folder.errors());
}

/// The project with a package `utils` as `smelt deps` leaves it.
fn with_package(files: &[(&str, &str)]) -> Folder {
    let package = [
        ("packages.yml", "packages: [{local: local/utils}]"),
        ("local/utils/dbt_project.yml", UTILS),
        ("dbt_packages/utils/dbt_project.yml", UTILS),
        (
            "dbt_packages/utils/models/helpers/digits.sql",
            "select 1 as d, '{{ var('unit') }}' as unit, {{ var('scale') }} as scale, {{ own('x') }} as o",
        ),
        (
            "dbt_packages/utils/models/days.sql",
            "{{ config(materialized='table', schema='x') }}select {{ named('d') }} as d, * from {{ ref('digits') }}",
        ),
        (
            "dbt_packages/utils/models/days.yml",
            "models: [{name: days, columns: [{name: d, data_tests: [not_null, odd]}]}]",
        ),
        (
            "dbt_packages/utils/macros/m.sql",
            "{% macro own(x) %}'own {{ x }}'{% endmacro %}
{% macro named(x) %}{{ adapter.dispatch('named', 'utils')(x) }}{% endmacro %}
{% macro default__named(x) %}'{{ x }} by default'{% endmacro %}
{% macro snowflake__named(x) %}'{{ x }} on snowflake'{% endmacro %}
{% test odd(model, column_name) %}select * from {{ model }} where {{ column_name }} % 2 = 0{% endtest %}",
        ),
    ];
    folder(&[&package[..], files].concat())
}

#[test]
fn packages_bring_models_macros_and_tests() {
    let folder = with_package(&[("models/a.sql", "select {{ utils.own(1) }} as x from {{ ref('utils', 'days') }}")]);
    let project = folder.load();
    let days = model(&project, "days");
    assert_eq!((days.unique_id.as_str(), days.package.as_str()), ("model.utils.days", "utils"));
    assert_eq!((days.fqn.join("."), days.tags.join(",")), ("utils.days".into(), "own".into()));
    // The root project's configuration wins over the package's, and over the model's own.
    assert_eq!(days.schema, "analytics_shared");
    assert_eq!(model(&project, "digits").materialized, Materialization::Ephemeral);
    assert_eq!(model(&project, "digits").sql, "select 1 as d, 'cents' as unit, 2 as scale, 'own x' as o");
    assert!(days.sql.starts_with("select 'd on snowflake' as d"), "{}", days.sql);
    assert_eq!(model(&project, "a").sql, "select 'own 1' as x from \"analytics_shared\".\"days\"");
    assert_eq!(data_test(&project, "odd_days_d").package, "utils");
    assert_eq!(data_test(&project, "odd_days_d").fqn, ["utils", "odd_days_d"]);
}

#[test]
fn the_project_overrides_what_packages_dispatch() {
    let folder = with_package(&[("macros/m.sql", "{% macro default__named(x) %}'{{ x }} of the shop'{% endmacro %}")]);
    assert!(model(&folder.load(), "days").sql.starts_with("select 'd of the shop' as d"));
}

#[test]
fn the_project_overrides_what_dbt_dispatches() {
    let own = "{% macro default__dateadd(datepart, interval, from_date_or_timestamp) %}own_add({{ interval }}, {{ datepart }}){% endmacro %}\n\
               {% macro bigquery__datediff(first_date, second_date, datepart) %}of another adapter{% endmacro %}";
    let model_sql = "select {{ dbt.dateadd('day', 1, 'd') }} as a, {{ dateadd('day', 2, 'd') }} as b, {{ dbt.datediff('d', 'e', 'day') }} as c";
    let files = [("macros/own.sql", own), ("models/adds.sql", model_sql)];
    let folder = with_package(&files);
    let sql = model(&folder.load(), "adds").sql.clone();
    assert!(sql.starts_with("select own_add(1, day) as a, own_add(2, day) as b, "), "{sql}");
    assert!(!sql.contains("another adapter"), "{sql}");
    // A search order without the project leaves dbt's own.
    let project = std::fs::read_to_string(folder.path().join("dbt_project.yml")).unwrap();
    let order = "  - {macro_namespace: dbt, search_order: [dbt]}\n";
    let dispatching = match project.contains("dispatch:\n") {
        true => project.replace("dispatch:\n", &format!("dispatch:\n{order}")),
        false => format!("{project}\ndispatch:\n{order}"),
    };
    std::fs::write(folder.path().join("dbt_project.yml"), &dispatching).unwrap();
    let sql = model(&folder.load(), "adds").sql.clone();
    assert!(!sql.contains("own_add"), "{sql}");
    let named = dispatching.replace("search_order: [dbt]", "search_order: [shop, dbt]");
    std::fs::write(folder.path().join("dbt_project.yml"), named).unwrap();
    let sql = model(&folder.load(), "adds").sql.clone();
    assert!(sql.contains("own_add(1, day)"), "{sql}");
}

#[test]
fn a_missing_package_says_how_to_get_it() {
    let folder = with_package(&[("models/a.sql", "select 1 as x")]);
    std::fs::remove_dir_all(folder.path().join("dbt_packages")).unwrap();
    let errors = folder.errors();
    assert!(
        errors.contains("1 of 1 packages are not installed: local/utils") && errors.contains("run `smelt deps`"),
        "{errors}"
    );
    std::fs::write(folder.path().join("packages.yml"), "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]")
        .unwrap();
    let errors = folder.errors();
    assert!(
        errors.contains("packages of the kind `package` cannot be installed") && errors.contains("write git:"),
        "{errors}"
    );
}

#[test]
fn what_cannot_run_is_named_with_its_file() {
    let folder = folder(&[
        ("models/a.sql", "{{ config(materialized='lambda_view') }}select 1 as x"),
        ("models/py.py", "def model(dbt, session): pass"),
        ("macros/m.sql", "{% materialization lambda_view, default %}{{ nonsense }}{% endmaterialization %}"),
    ]);
    let errors = folder.errors();
    assert!(errors.contains("unknown materialization `lambda_view`") && errors.contains("models/a.sql:1"), "{errors}");
    assert!(errors.contains("materializations of one's own cannot be run"), "{errors}");
    assert!(errors.contains("model `py` is written in Python") && errors.contains("models/py.py"), "{errors}");
}
