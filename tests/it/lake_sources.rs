//! A Delta table that another program writes, as a source: while `smelt up` runs it appears, changes, is compacted, and is replaced.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::files::order;
use crate::python;
use crate::support::{Sandbox, eventually};

const PROJECT: &str = "\
name: shop
models:
  shop: {+schema: gold}
target: dev
targets:
  dev: {lake: ./lake, commit_interval: 100ms}
";

const SOURCES: &str = r#"
version: 2
sources:
  - name: shop
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: "data/orders-*.json"}
        columns:
          - {name: id, data_type: BIGINT}
          - {name: customer, data_type: STRING}
          - {name: amount, data_type: "DECIMAL(10,2)"}
  - name: crm
    schema: crm
    tables:
      - name: customers
        columns:
          - {name: name, data_type: STRING}
          - {name: city, data_type: STRING}
"#;

/// Runs Python with `customers(rows)`, `write_deltalake` and `table()` at hand.
fn write(path: &Path, statement: &str) {
    let script = format!(
        "import sys, shutil, arro3.core\n\
         from deltalake import DeltaTable, QueryBuilder, write_deltalake\n\
         path = sys.argv[1]\n\
         def customers(rows):\n    \
             return arro3.core.Table.from_batches(list(QueryBuilder().execute(\n        \
                 f'SELECT column1 AS name, column2 AS city FROM (VALUES {{rows}}) AS v')))\n\
         def table():\n    return DeltaTable(path)\n\
         {statement}"
    );
    let status = Command::new(python::python()).arg("-c").arg(script).arg(path).status().unwrap();
    assert!(status.success(), "{statement}");
}

#[test]
fn a_table_that_another_program_writes_is_followed_wherever_it_goes() {
    if !python::available() {
        return;
    }
    let shop = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/sources.yml", SOURCES),
        (
            "queries/orders_by_city.sql",
            "select o.id, c.city from {{ source('shop', 'orders') }} o left join {{ source('crm', 'customers') }} c on c.name = o.customer",
        ),
    ]);
    shop.write("data/orders-1.json", order(1, "ada", "10.00") + &order(2, "bob", "5.50"));
    let customers = shop.table("crm", "customers");
    let mut up = shop.spawn(&["up"], &[]);
    let finds = |what: &str, cities: &[&str]| {
        let wanted: Vec<String> =
            (1..).zip(cities).map(|(id, city)| format!("{{\"id\":{id},\"city\":{city}}}")).collect();
        let mut found = Vec::new();
        eventually(what, Duration::from_secs(60), || {
            let ended =
                shop.smelt(&["query", "select id, city from gold.orders_by_city order by id", "--output", "json"]);
            found = ended.stdout.lines().map(str::to_string).collect();
            found == wanted
        });
    };
    finds("no such table yet", &["null", "null"]);
    // It comes with rows in it: what was joined with nothing finds them.
    write(&customers, "write_deltalake(path, customers(\"('ada', 'Rome')\"))");
    finds("the table has appeared", &["\"Rome\"", "null"]);
    write(&customers, "write_deltalake(path, customers(\"('bob', 'Oslo'), ('eve', 'Lima')\"), mode='append')");
    finds("rows were added", &["\"Rome\"", "\"Oslo\""]);
    write(&customers, "table().update(updates={'city': \"'Nice'\"}, predicate=\"name = 'ada'\")");
    write(&customers, "table().optimize.compact()");
    write(&customers, "table().create_checkpoint()");
    finds("rows were changed and moved", &["\"Nice\"", "\"Oslo\""]);
    write(&customers, "table().delete(\"name = 'bob'\")");
    shop.write("data/orders-2.json", order(3, "eve", "1.00"));
    finds("rows were deleted", &["\"Nice\"", "null", "\"Lima\""]);
    // Another table takes its name; its versions begin anew and go further than the old ones.
    std::fs::remove_dir_all(&customers).unwrap();
    write(
        &customers,
        "for name in ['ada', 'bob', 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', 'x8', 'x9', 'x10']:\n    \
             write_deltalake(path, customers(f\"('{name}', 'Paris')\"), mode='append')",
    );
    finds("the table was replaced", &["\"Paris\"", "\"Paris\"", "null"]);
    assert!(up.is_running(), "{}", up.log());
    assert_eq!(up.stop(), Some(0), "{}", up.log());
}
