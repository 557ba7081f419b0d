//! `show`, `query`, `test`: reading the tables and views of a project.

use super::args::{Output, Selection};
use super::inspect::unknown_model;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::project::{DataTest, Severity};
use crate::runtime::{Reader, json_lines};

pub(super) async fn query(session: &Session, sql: &str, output: Output) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let reader = Reader::open(&session.env, project, compilation).await.map_err(|e| vec![e])?;
    let batches = reader.query(sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

pub(super) async fn show(
    session: &Session,
    name: &str,
    limit: usize,
    columns: bool,
    output: Output,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let model = compilation
        .models
        .iter()
        .find(|m| m.model.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| vec![unknown_model(name, compilation.models.iter().map(|m| m.model.name.as_str()))])?;
    if columns {
        for field in model.schema.fields() {
            let described = model.model.columns.iter().find(|c| c.name.eq_ignore_ascii_case(field.name()));
            let description = described.and_then(|c| c.description.as_deref()).unwrap_or("");
            let kind = crate::types::sql_type_name(field.data_type());
            print::line(format!("{:<32} {:<24} {description}", field.name(), kind).trim_end());
        }
        return Ok(Exit::Success);
    }
    let sql = format!("select * from \"{}\".\"{}\" limit {limit}", model.model.schema, model.model.alias);
    let reader = Reader::open(&session.env, project, compilation).await.map_err(|e| vec![e])?;
    let batches = reader.query(&sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

pub(super) async fn test(session: &Session, selection: &Selection) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.choose(&project, Some(&compilation), selection).await?;
    let reader = Reader::open(&session.env, project.clone(), compilation).await.map_err(|e| vec![e])?;
    let is_selected = |test: &&DataTest| selected.as_ref().is_none_or(|s| s.contains(&test.unique_id));
    let tests: Vec<&DataTest> = project.tests.iter().filter(is_selected).collect();
    let (mut passed, mut warned, mut failed) = (0, 0, 0);
    for (n, test) in tests.iter().enumerate() {
        let started = std::time::Instant::now();
        let mut found = Vec::new();
        let result = reader.failures(test).await.map(|batches| {
            found = batches;
            found.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>()
        });
        let (verdict, detail) = match result {
            Ok(0) => {
                passed += 1;
                ("PASS ", String::new())
            }
            Ok(rows) if test.severity == Severity::Warn => {
                warned += 1;
                ("WARN ", format!(" {rows} rows"))
            }
            Ok(rows) => {
                failed += 1;
                ("FAIL ", format!(" {rows} rows"))
            }
            Err(errors) => {
                failed += 1;
                errors.iter().for_each(|e| session.print_error(e));
                ("ERROR", String::new())
            }
        };
        let line = format!(
            "{:>3} of {} {verdict} {}{detail} in {:.2} s",
            n + 1,
            tests.len(),
            test.name,
            started.elapsed().as_secs_f64()
        );
        if !session.quiet || verdict != "PASS " {
            print::line(&line);
        }
        if verdict == "FAIL " {
            print::line(&format!("    compiled SQL: {}", test.path.display()));
            for row in json_lines(&found, 3).unwrap_or_default() {
                print::line(&format!("    {row}"));
            }
        }
        if session.fail_fast && failed > 0 {
            break;
        }
    }
    print::line(&format!("Done. PASS={passed} WARN={warned} ERROR={failed} TOTAL={}", tests.len()));
    Ok(if failed == 0 { Exit::Success } else { Exit::Failed })
}
