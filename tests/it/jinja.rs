//! docs/jinja.md, cross-database macros: what each gives is planned and executed as a model's SQL is.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use smelt::env::Env;
use smelt::plan::{Planner, PlannerOptions};
use smelt::project::{Dialect, LoadOptions, load};

/// (name, example, result) of the page's section.
fn rows() -> Vec<(String, String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/jinja.md")).unwrap();
    let section = page.split("\n## Cross-database macros").nth(1).unwrap().split("\n## ").next().unwrap().to_string();
    let row = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> = line.split('|').map(|c| c.trim().trim_matches('`').replace('\u{1}', "|")).collect();
        assert_eq!(cells.len(), 5, "{line}");
        (cells[1].clone(), cells[2].clone(), cells[3].clone())
    };
    section.lines().filter(|l| l.contains("{{")).map(row).collect()
}

fn answer(dialect: Dialect, sql: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let planner = Planner::new(PlannerOptions::new(dialect)).unwrap();
        let map = smelt::project::SourceMap::verbatim("query.sql".into(), sql);
        let plan = planner.plan_query(sql, &map, &[]).map_err(|e| e[0].render())?;
        let stream = planner.execute(&plan).await.map_err(|e| e.render())?;
        let batches: Vec<_> = stream.try_collect().await.map_err(|e| smelt::error::Error::from(e).render())?;
        let options = FormatOptions::default().with_null("NULL");
        let mut values = Vec::new();
        for batch in batches {
            let column = ArrayFormatter::try_new(batch.column(0).as_ref(), &options).unwrap();
            values.extend((0..batch.num_rows()).map(|row| column.value(row).to_string()));
        }
        values.sort();
        Ok(values.join(", "))
    })
}

#[test]
fn cross_database_macros_run_in_every_dialect() {
    let rows = rows();
    assert!(rows.len() >= 38, "{} rows", rows.len());
    for (name, dialect) in
        [("datafusion", Dialect::DataFusion), ("snowflake", Dialect::Snowflake), ("spark", Dialect::Spark)]
    {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("smelt.yml".into(), &format!("name: shop\ndialect: {name}\ntargets: {{dev: {{lake: ./lake}}}}\n"));
        for (i, (_, example, _)) in rows.iter().enumerate() {
            write(format!("queries/row_{i}.sql"), &format!("{{{{ config(materialized='table') }}}}{example}\n"));
        }
        let options = LoadOptions { dir: folder.path().to_path_buf(), ..LoadOptions::default() };
        let project = load(&options, &Env::real()).unwrap_or_else(|e| panic!("{}", e[0].render()));
        let mut wrong = Vec::new();
        for (i, (what, example, gives)) in rows.iter().enumerate() {
            let model = project.models.iter().find(|m| m.name == format!("row_{i}")).unwrap();
            let found = answer(dialect, &model.sql);
            if found.as_ref() != Ok(gives) {
                wrong.push(format!("{name} {what}: {example}\n  {}\n  {found:?}, not {gives}", model.sql.trim()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
