//! The models, over changelogs.

use arrow::datatypes::SchemaRef;
use smelt::env::Env;
use smelt::project::LoadOptions;
use smelt::types::Catalog;
use std::fmt::Write as _;
use std::sync::Arc;

use super::tables::{LEDGERS, Table};
use super::{Failure, Models};

/// No table but the project's own.
struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// (name, SQL).
fn queries() -> Vec<(&'static str, String)> {
    let fact = "select f.event_id, u.user_id, c.region, d.maker, f.ts, f.amount, f.status
from {{ source('src', 'facts') }} as f
left join {{ source('src', 'users') }} as u on u.phone = f.phone
left join {{ source('src', 'cells') }} as c on c.cell_id = f.cell_id
left join {{ source('src', 'devices') }} as d on d.device_id = f.device_id";
    let joined = "select f.event_id, u.user_id, u.city, f.ts, f.amount
from {{ source('src', 'facts') }} as f
left join {{ source('src', 'users') }} as u on u.phone = f.phone";
    let totals =
        "select phone, count(*) as events, sum(amount) as total, avg(amount) as mean, min(ts) as first, max(ts) as last
from {{ source('src', 'facts') }} group by phone";
    let last = "select event_id, phone, ts, amount, place
from (
  select event_id, phone, ts, amount, row_number() over (partition by phone order by ts desc, event_id) as place
  from {{ source('src', 'facts') }}
) as placed
where place <= 3";
    let mut customer = String::from("select u.user_id, u.city");
    for name in LEDGERS {
        let _ = write!(customer, ",\n  coalesce({name}.n, 0) as {name}, {name}.total as {name}_total");
    }
    customer.push_str("\nfrom {{ source('src', 'users') }} as u");
    for name in LEDGERS {
        let _ = write!(
            customer,
            "\nleft join (select user_id, count(*) as n, sum(amount) as total from {{{{ source('src', '{name}') }}}} group by user_id) as {name} on {name}.user_id = u.user_id"
        );
    }
    vec![
        ("fact", fact.into()),
        ("totals", totals.into()),
        ("customer_360", customer),
        ("last_three", last.into()),
        ("joined", joined.into()),
    ]
}

/// All of them, compiled; or copies of them in turn, so many.
pub fn compile(copies: usize) -> Result<Models, Failure> {
    let mut queries: Vec<(String, String)> = queries().into_iter().map(|(name, sql)| (name.to_string(), sql)).collect();
    if copies > 0 {
        let copy = |i: usize| (format!("{}_{i}", queries[i % queries.len()].0), queries[i % queries.len()].1.clone());
        queries = (0..copies).map(copy).collect();
    }
    let dir = tempfile::tempdir()?;
    let mut sources =
        "version: 2\nsources:\n  - name: src\n    config: {connector: files, format: debezium-json}\n    tables:\n"
            .to_string();
    for table in Table::ALL.into_iter().chain(LEDGERS.iter().map(|name| Table::Ledger(name))) {
        let name = table.name();
        let _ =
            writeln!(sources, "      - name: {name}\n        config: {{path: \"{name}/*.json\"}}\n        columns:");
        for (column, data_type) in table.columns() {
            let _ = writeln!(sources, "          - {{name: {column}, data_type: \"{data_type}\"}}");
        }
    }
    let write = |path: &str, text: &str| -> Result<(), Failure> {
        let path = dir.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    };
    write("smelt.yml", "name: updates\ntarget: dev\ntargets:\n  dev: {lake: ./lake}\n")?;
    write("models/sources.yml", &sources)?;
    for (name, sql) in &queries {
        write(&format!("queries/{name}.sql"), sql)?;
    }
    let first = |errors: Vec<smelt::error::Error>| -> Failure {
        errors.into_iter().next().map_or_else(|| "no error".into(), |e| format!("{e:?}").into())
    };
    let options = LoadOptions { dir: dir.path().to_path_buf(), ..LoadOptions::default() };
    let project = smelt::project::load(&options, &Env::real()).map_err(first)?;
    let compilation = smelt::plan::compile(&project, &NoTables, &smelt::plan::stopped()).map_err(first)?;
    let found = |name: &str| {
        let model = compilation.models.iter().find(|m| m.model.name == name).ok_or("a model is lost")?;
        Ok((name.to_string(), Arc::clone(model)))
    };
    queries.iter().map(|(name, _)| found(name)).collect()
}
