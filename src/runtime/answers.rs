//! Answers templates' questions about the lake: what `run_query`, `adapter.get_columns_in_relation` and the like find.
//!
//! A table that this run still has to make is not read: what it holds now is from an earlier run. The template waits, and is rendered
//! when the table has been made ([`Fresh`]).

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;

use super::information_schema::SCHEMA;
use super::query::{Reader, mentions, mentions_table};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::answers::{NO_TABLE, waits};
use crate::project::{Answer, Answers, Cell, Connector, Dependency, Project};
use crate::types::sql_type_name;

/// Digits that a double holds whatever they are.
const EXACT_DIGITS: usize = 15;

/// Whose tables may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// Every table as it is.
    All,
    /// Those of these models; the others are made later in this run.
    Only(BTreeSet<String>),
}

/// Answers from the tables of a lake, and the schemas of a compilation. Methods block: they are called outside the asynchronous
/// runtime's own threads.
pub struct LakeAnswers {
    reader: Reader,
    project: Arc<Project>,
    compilation: Arc<Compilation>,
    fresh: Fresh,
    handle: Handle,
}

impl fmt::Debug for LakeAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeAnswers").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

impl LakeAnswers {
    /// Must be called on the runtime that I/O happens on.
    pub async fn open(
        env: &Env,
        project: &Arc<Project>,
        compilation: &Arc<Compilation>,
        fresh: Fresh,
    ) -> Result<Arc<Self>> {
        let reader = Reader::open(env, Arc::clone(project), Arc::clone(compilation)).await?;
        let (project, compilation) = (Arc::clone(project), Arc::clone(compilation));
        Ok(Arc::new(LakeAnswers { reader, project, compilation, fresh, handle: Handle::current() }))
    }

    /// A table that `sql` names and that is not to be read yet.
    fn too_early(&self, sql: &str, this: Option<(&str, &str)>) -> Option<&str> {
        let named = self.reader.planner.relations_in(sql).unwrap_or_else(|| sql.to_string());
        let sql = named.to_lowercase();
        if mentions(&sql, SCHEMA)
            && let Some(input) = self.input_to_come(this)
        {
            return Some(input);
        }
        let models = self.project.models.iter().filter(|m| m.deferred.is_none());
        let models = models.filter(|m| this != Some((m.schema.as_str(), m.alias.as_str())));
        let mut named = models.filter(|m| mentions_table(&sql, &m.schema, &m.alias));
        named.find(|m| !self.is_ready(&m.name)).map(|m| m.name.as_str())
    }

    /// A model that the asking one names and that is not made yet: whoever asks which tables there are waits for it.
    fn input_to_come(&self, this: Option<(&str, &str)>) -> Option<&str> {
        let asking = self.project.models.iter().find(|m| this == Some((m.schema.as_str(), m.alias.as_str())))?;
        let inputs = asking.depends_on.iter().filter_map(|dependency| match dependency {
            Dependency::Model(name) => self.project.models.iter().find(|m| m.name == *name && m.deferred.is_none()),
            Dependency::Source(..) => None,
        });
        inputs.map(|m| m.name.as_str()).find(|name| !self.is_ready(name))
    }

    /// The rows of a query, in batches of which there is at least one.
    pub(super) async fn rows(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Vec<RecordBatch>> {
        if let Some(model) = self.too_early(sql, this) {
            return Err(waits(format!("and {model} is not made yet")));
        }
        self.reader.rows(sql, this).await.map_err(|errors| first(errors, sql))
    }

    fn is_ready(&self, model: &str) -> bool {
        let is_fresh = match &self.fresh {
            Fresh::All => true,
            Fresh::Only(names) => names.contains(model),
        };
        is_fresh && self.compilation.models.iter().any(|m| m.model.name == model)
    }

    async fn stored_columns(&self, schema: &str, name: &str) -> Result<Vec<(String, String)>> {
        let table = self.reader.lake.table(schema, name).await?;
        Ok(table.map(|t| columns(&t.schema())).unwrap_or_default())
    }
}

impl Answers for LakeAnswers {
    fn query(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Answer> {
        answer(&self.handle.block_on(self.rows(sql, this))?)
    }

    fn columns(&self, schema: &str, name: &str, this: Option<(&str, &str)>) -> Result<Vec<(String, String)>> {
        let same = |s: &str, n: &str| s.eq_ignore_ascii_case(schema) && n.eq_ignore_ascii_case(name);
        if this.is_some_and(|(s, n)| same(s, n)) {
            return self.handle.block_on(self.stored_columns(schema, name));
        }
        if let Some(deferred) = self.compilation.deferred.iter().find(|d| same(&d.table.schema, &d.table.alias)) {
            return Ok(columns(&deferred.columns));
        }
        if let Some(model) = self.project.models.iter().find(|m| same(&m.schema, &m.alias)) {
            return match self.compilation.models.iter().find(|m| m.model.name == model.name) {
                Some(compiled) => Ok(columns(&compiled.schema)),
                None => Err(waits(format!("for the columns of {}, which is not compiled yet", model.name))),
            };
        }
        match self.project.sources.iter().find(|s| same(&s.source, &s.name)) {
            Some(source) => match &source.connector {
                Connector::Delta { schema, identifier, .. } => {
                    self.handle.block_on(self.stored_columns(schema, identifier))
                }
                _ => Ok(columns(crate::source::relation_schema(source)?.as_ref())),
            },
            None => self.handle.block_on(self.stored_columns(schema, name)),
        }
    }

    fn exists(&self, schema: &str, name: &str) -> Result<bool> {
        Ok(self.handle.block_on(self.reader.lake.table(schema, name))?.is_some())
    }
}

/// The first of the errors of a query, without a place: the query is not a file.
fn first(errors: Vec<Error>, sql: &str) -> Error {
    let Some(error) = errors.into_iter().next() else { return Error::internal("a query failed without an error") };
    if error.code() == NO_TABLE {
        return waits(format!("but {}", error.message()));
    }
    let shown = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = match shown.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    };
    let failed = Error::new(error.kind(), error.code(), format!("{} (in the query: {shown})", error.message()));
    match error.hint() {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

fn columns(schema: &arrow::datatypes::Schema) -> Vec<(String, String)> {
    schema.fields().iter().map(|f| (f.name().clone(), sql_type_name(f.data_type()))).collect()
}

/// Rows as templates get them.
pub(super) fn answer(batches: &[RecordBatch]) -> Result<Answer> {
    let mut answer = Answer { message: "SELECT".to_string(), ..Answer::default() };
    if let Some(batch) = batches.first() {
        answer.columns = columns(&batch.schema());
    }
    for batch in batches {
        let columns = batch.columns().iter().map(|c| cells(c.as_ref())).collect::<Result<Vec<_>>>()?;
        let row = |i: usize| columns.iter().map(|c| c[i].clone()).collect();
        answer.rows.extend((0..batch.num_rows()).map(row));
    }
    Ok(answer)
}

fn cells(array: &dyn Array) -> Result<Vec<Cell>> {
    let each = |cell: &dyn Fn(usize) -> Result<Cell>| {
        (0..array.len()).map(|i| if array.is_null(i) { Ok(Cell::Null) } else { cell(i) }).collect()
    };
    match array.data_type() {
        DataType::Null => Ok(vec![Cell::Null; array.len()]),
        DataType::Boolean => each(&|i| Ok(Cell::Bool(array.as_boolean().value(i)))),
        kind if kind.is_integer() && *kind != DataType::UInt64 => {
            let array = cast(array, &DataType::Int64)?;
            each(&|i| Ok(Cell::Int(array.as_primitive::<Int64Type>().value(i))))
        }
        kind if kind.is_floating() => {
            let array = cast(array, &DataType::Float64)?;
            each(&|i| Ok(Cell::Float(array.as_primitive::<Float64Type>().value(i))))
        }
        DataType::Decimal128(_, _) | DataType::UInt64 => {
            let texts = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            each(&|i| Ok(number(&texts.value(i).to_string())))
        }
        DataType::Date32 => each(&|i| Ok(Cell::Date(array.as_primitive::<Date32Type>().value(i)))),
        DataType::Timestamp(_, _) => {
            let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            each(&|i| Ok(Cell::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(i))))
        }
        DataType::List(_) => each(&|i| Ok(Cell::List(cells(array.as_list::<i32>().value(i).as_ref())?))),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let columns = columns.iter().map(|c| cells(c.as_ref())).collect::<Result<Vec<_>>>()?;
            each(&|i| {
                Ok(Cell::Map(fields.iter().zip(&columns).map(|(f, c)| (f.name().clone(), c[i].clone())).collect()))
            })
        }
        _ => {
            let texts = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            each(&|i| Ok(Cell::Text(texts.value(i).to_string())))
        }
    }
}

/// A decimal: a number where one holds it exactly, its digits otherwise.
fn number(text: &str) -> Cell {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(i), _) => Cell::Int(i),
        (Err(_), Ok(f)) if digits <= EXACT_DIGITS => Cell::Float(f),
        _ => Cell::Text(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, StringArray, TimestampMicrosecondArray};

    #[test]
    fn values_come_as_what_they_are() {
        let decimals = Decimal128Array::from(vec![150, 300]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(cells(&decimals).unwrap(), [Cell::Float(1.5), Cell::Float(3.0)]);
        let large = Decimal128Array::from(vec![12_345_678_901_234_567_891]).with_precision_and_scale(38, 2).unwrap();
        assert_eq!(cells(&large).unwrap(), [Cell::Text("123456789012345678.91".to_string())]);
        assert_eq!(cells(&Int32Array::from(vec![Some(1), None])).unwrap(), [Cell::Int(1), Cell::Null]);
        assert_eq!(cells(&Float64Array::from(vec![0.5])).unwrap(), [Cell::Float(0.5)]);
        assert_eq!(cells(&StringArray::from(vec!["a"])).unwrap(), [Cell::Text("a".to_string())]);
        let times = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("UTC");
        assert_eq!(cells(&times).unwrap(), [Cell::Timestamp(1_000_000)]);
    }
}
