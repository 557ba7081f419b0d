//! `smelt runs`: what commands and schedules have done, newest first.

use super::args::Output;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::runtime;
use arrow::array::RecordBatch;

/// Columns of the listing; `_smelt.runs` has more.
const SHOWN: [&str; 9] =
    ["started_at", "seconds", "command", "resource_type", "name", "status", "rows", "failures", "message"];

pub(super) async fn runs(
    session: &Session,
    name: Option<&str>,
    failed: bool,
    limit: usize,
    output: Output,
) -> Result<Exit, Vec<Error>> {
    let project = session.load()?;
    let found = runtime::past_runs(&session.env, &project, name, failed, limit).await.map_err(|e| vec![e])?;
    let rows: Vec<RecordBatch> = found.unwrap_or_default().into_iter().filter(|b| b.num_rows() > 0).collect();
    if rows.is_empty() {
        session.say(
            "no runs: `smelt run`, `build`, `snapshot`, `seed` and `test` note theirs, and `up` those of schedules",
        );
        return Ok(Exit::Success);
    }
    let rows = match output {
        Output::Table => rows.iter().map(shown).collect::<Result<_>>().map_err(|e| vec![e])?,
        Output::Json | Output::Csv => rows,
    };
    print::batches(&rows, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

/// What fits a screen.
fn shown(rows: &RecordBatch) -> Result<RecordBatch> {
    use arrow::array::{ArrayRef, AsArray, StringArray};
    use std::sync::Arc;
    let indices = SHOWN.iter().map(|name| rows.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let narrow = rows.project(&indices)?;
    let mut columns = narrow.columns().to_vec();
    let seconds = arrow::compute::cast(
        &columns[0],
        &arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None),
    )?;
    columns[0] = seconds;
    let short = |text: &str| -> String {
        let line = text.lines().next().unwrap_or_default();
        match line.char_indices().nth(60) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_string(),
        }
    };
    if let Some(last) = columns.pop() {
        let texts = last.as_string::<i32>().iter().map(|t| t.map(short)).collect::<StringArray>();
        columns.push(Arc::new(texts) as ArrayRef);
    }
    let fields = narrow
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(f, c)| f.as_ref().clone().with_data_type(c.data_type().clone()))
        .collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}
