//! `smelt init`: a small project that runs at once, on files it brings along.

use std::path::Path;

use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};

const FILES: [(&str, &str); 6] = [
    (
        "smelt.yml",
        "name: {name}\n\
         models:\n\
         \x20 {name}:\n\
         \x20   bronze: {+schema: bronze, +materialized: streaming_table}\n\
         \x20   gold: {+schema: gold}\n\
         target: dev\n\
         targets:\n\
         \x20 dev:\n\
         \x20   lake: ./lake\n",
    ),
    (
        "models/sources.yml",
        "version: 2\n\
         sources:\n\
         \x20 - name: shop\n\
         \x20   config: {connector: files, format: json}\n\
         \x20   tables:\n\
         \x20     - name: orders\n\
         \x20       config: {path: \"data/orders-*.json\"}\n\
         \x20       columns:\n\
         \x20         - {name: id, data_type: BIGINT}\n\
         \x20         - {name: customer, data_type: STRING}\n\
         \x20         - {name: amount, data_type: \"DECIMAL(10,2)\"}\n\
         \x20         - {name: at, data_type: TIMESTAMP}\n",
    ),
    (
        "models/models.yml",
        "version: 2\n\
         models:\n\
         \x20 - name: customer_totals\n\
         \x20   description: What each customer ordered\n\
         \x20   columns:\n\
         \x20     - {name: customer, data_tests: [not_null, unique]}\n",
    ),
    ("queries/bronze/bronze_orders.sql", "select id, customer, amount, at\nfrom {{ source('shop', 'orders') }}\n"),
    (
        "queries/gold/customer_totals.sql",
        "select customer, count(*) as orders, sum(amount) as amount, max(at) as last_order\n\
         from {{ ref('bronze_orders') }}\n\
         group by customer\n",
    ),
    (
        "data/orders-1.json",
        "{\"id\": 1, \"customer\": \"ada\", \"amount\": 12.50, \"at\": \"2026-01-05T08:00:00Z\"}\n\
         {\"id\": 2, \"customer\": \"grace\", \"amount\": 7.25, \"at\": \"2026-01-05T08:05:00Z\"}\n\
         {\"id\": 3, \"customer\": \"ada\", \"amount\": 3.00, \"at\": \"2026-01-05T09:10:00Z\"}\n",
    ),
];

pub(super) fn init(session: &Session, path: &Path) -> Result<Exit> {
    let folder = session.dir.join(path);
    if folder.join("smelt.yml").exists() {
        return Err(Error::user("exists", format!("{} already holds a project", folder.display()))
            .with_hint("choose another folder"));
    }
    let name: String = folder
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_else(|| "shop".into())
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    for (file, content) in FILES {
        let target = folder.join(file);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, content.replace("{name}", &name))?;
    }
    std::fs::write(folder.join(".gitignore"), "/lake\n/target\n")?;
    print::line(&format!("made {} with {} files. Next:", folder.display(), FILES.len()));
    print::line(&format!("  cd {}", path.display()));
    print::line("  smelt run                     # data/orders-*.json → bronze_orders → customer_totals");
    print::line("  smelt show customer_totals");
    print::line("  smelt up                      # and keep going: add data/orders-2.json meanwhile");
    Ok(Exit::Success)
}
