//! A seed as a compiled model: its rows are the plan.

use arrow::array::RecordBatch;
use datafusion::catalog::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

use super::compile::CompiledModel;
use super::fault::{Fault, Origin};
use super::lower::{Fallback, Slots};
use super::stored::{stored_schema, to_stored};
use super::{fingerprint, output};
use crate::error::{Error, Result};
use crate::project::{Model, SeedFile};

/// The model whose table holds the rows of `file`.
pub(super) fn compile(model: &Arc<Model>, file: &SeedFile) -> Result<CompiledModel, Vec<Error>> {
    let origin = Origin::Compiled { sql: &model.sql, source_map: &model.source_map };
    let about = |mut fault: Fault| {
        fault.message = format!("{}: {}", model.path.display(), fault.message);
        vec![origin.error(fault)]
    };
    let columns = file.rows.schema();
    output::check_columns(columns.fields().iter().map(|f| f.name().as_str())).map_err(about)?;
    let schema =
        stored_schema(columns.fields().iter().map(|f| (f.name().as_str(), f.data_type()))).map_err(|(name, why)| {
            about(Fault::new("unstorable-type", format!("column `{name}` is {}", why.what)).hint(why.remedy))
        })?;
    let rows: RecordBatch = to_stored(&file.rows, &schema).map_err(|e| vec![e])?;
    let bulk = MemTable::try_new(Arc::clone(&schema), vec![vec![rows]])
        .and_then(|table| LogicalPlanBuilder::scan("seed", provider_as_source(Arc::new(table)), None)?.build())
        .map_err(|e| vec![Error::from(e)])?;
    let meaning = format!("seed {} {}", file.checksum, fingerprint::columns(&schema));
    if let Some(first) = model.expectations.first() {
        let fault = Fault::new("expectation-on-seed", format!("expectation `{}` is on a seed", first.name));
        return Err(vec![Origin::Value(&first.span).error(fault.hint("test it with data_tests, or correct the file"))]);
    }
    Ok(CompiledModel {
        model: Arc::clone(model),
        inputs: Vec::new(),
        schema,
        bulk,
        incremental: Err(Fallback::new("a seed", "its rows are those of its file")),
        append_only: false,
        stream: None,
        joined_stream: None,
        expectations: Vec::new(),
        snapshot: None,
        rerun: None,
        fingerprint: format!("{:032x}", xxh3_128(meaning.as_bytes())),
        warnings: Vec::new(),
        slots: Slots::default(),
    })
}
