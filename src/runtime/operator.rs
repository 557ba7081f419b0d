//! Runs the SQL of hooks and operations: queries, INSERT, OPTIMIZE, VACUUM.
//!
//! No epoch is open meanwhile. A commit to a table that a pipeline holds is like one of an earlier run, which recovery knows how to follow:
//! whoever has a pipeline open asks for such commits ([`Operator::take_disturbed`]) and opens it anew. Rows are only ever added, and only to tables that are not the result of a query: `incremental` models and
//! seeds, which keep what they hold, and Delta tables that sources name. Each INSERT is one commit; a command that is repeated
//! repeats its hooks, as in dbt.

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::answers::{Fresh, LakeAnswers, answer};
use super::instance;
use super::positions::INSTANCE;
use super::retention;
use super::statement::{Name, Statement, parse, split};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::{CommitRequest, Lake, Table, TableDocs, TableSpec};
use crate::plan::Compilation;
use crate::plan::stored::stored_type;
use crate::project::answers::{NO_TABLE, WAITS};
use crate::project::{Answer, Answers, Connector, Dependency, Materialization, Project, SourceTable};
use crate::types::{SignedBatch, parse_sql_type};

/// Runs statements, and answers templates that ask. Methods of [`Answers`] block.
pub struct Operator {
    env: Env,
    project: Arc<Project>,
    compilation: Arc<Compilation>,
    lake: Lake,
    answers: Arc<LakeAnswers>,
    handle: tokio::runtime::Handle,
    take_over: bool,
    warnings: Mutex<Vec<Error>>,
    disturbed: AtomicBool,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator")
    }
}

/// What a statement writes to.
enum Target<'a> {
    /// A model's own table.
    Model { schema: &'a str, name: &'a str, model: &'a str },
    /// A Delta table that a source names; it may have to be made.
    Source { schema: &'a str, name: &'a str, source: &'a SourceTable },
}

impl Operator {
    /// Over the tables as they are now. `take_over`: also beside another smelt of this host.
    pub async fn open(
        env: &Env,
        project: &Arc<Project>,
        compilation: &Arc<Compilation>,
        take_over: bool,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Operator {
            env: env.clone(),
            lake: super::admin::open(env, project)?,
            answers: LakeAnswers::open(env, project, compilation, Fresh::All).await?,
            project: Arc::clone(project),
            compilation: Arc::clone(compilation),
            handle: tokio::runtime::Handle::current(),
            take_over,
            warnings: Mutex::default(),
            disturbed: AtomicBool::new(false),
        }))
    }

    /// What was skipped, since this was asked last.
    pub fn take_warnings(&self) -> Vec<Error> {
        std::mem::take(&mut self.warnings.lock())
    }

    /// Whether a table of a model, or one that a model reads, has got a commit since this was asked last.
    pub fn take_disturbed(&self) -> bool {
        self.disturbed.swap(false, Ordering::Relaxed)
    }

    /// A table is about to get a commit.
    fn disturb(&self, target: &Target<'_>) {
        let is_held = match target {
            Target::Model { .. } => true,
            Target::Source { source, .. } => {
                let is_read = |d: &Dependency| *d == Dependency::Source(source.source.clone(), source.name.clone());
                self.project.models.iter().any(|m| m.depends_on.iter().any(is_read))
            }
        };
        self.disturbed.fetch_or(is_held, Ordering::Relaxed);
    }

    /// Runs every statement of a text; the answer is the last one's.
    async fn run(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Answer> {
        let mut last = Answer::default();
        for statement in split(sql) {
            last = match parse(&statement)? {
                Statement::Query => {
                    let rows = self.answers.rows(&statement, this).await?;
                    answer(&rows)?
                }
                Statement::Insert { table, columns, query } => self.insert(&table, &columns, &query, this).await?,
                Statement::Optimize(table) => {
                    let mut table = self.maintained(&table).await?.0;
                    let done = table.optimize().await?;
                    said(format!("OPTIMIZE {}", done.files_rewritten))
                }
                Statement::Vacuum(table) => {
                    let (mut table, model) = self.maintained(&table).await?;
                    if let Some(model) = model {
                        let now = self.env.now_micros();
                        retention::retain(&self.lake, &self.project, now, &self.compilation, model, &mut table).await?;
                    }
                    let done = table.vacuum(true).await?;
                    said(format!("VACUUM {}", done.files))
                }
                Statement::Other(what) => {
                    let message = format!("{what} is skipped: smelt makes and keeps the tables itself");
                    let hint = "hooks and operations run SELECT, INSERT INTO, OPTIMIZE and VACUUM (docs/hooks.md)";
                    let mut warnings = self.warnings.lock();
                    if !warnings.iter().any(|w| w.message() == message) {
                        warnings.push(Error::user("skipped-statement", message).with_hint(hint));
                    }
                    drop(warnings);
                    said(format!("{what} (skipped)"))
                }
            };
        }
        Ok(last)
    }

    fn target(&self, name: &Name) -> Result<Target<'_>> {
        let same = |schema: &str, table: &str| {
            name.table.eq_ignore_ascii_case(table)
                && name.schema.as_ref().is_none_or(|s| s.eq_ignore_ascii_case(schema))
        };
        if let Some(model) = self.project.models.iter().find(|m| same(&m.schema, &m.alias)) {
            return Ok(Target::Model { schema: &model.schema, name: &model.alias, model: &model.name });
        }
        for source in &self.project.sources {
            let Connector::Delta { schema, identifier, .. } = &source.connector else { continue };
            if same(&source.source, &source.name) || same(schema, identifier) {
                return Ok(Target::Source { schema, name: identifier, source });
            }
        }
        let shown = name.schema.iter().map(|s| format!("{s}.")).collect::<String>() + &name.table;
        Err(Error::user("hook-target", format!("the project has no table `{shown}` that could be written to"))
            .with_hint("declare it as a source without a connector: the first INSERT makes it"))
    }

    async fn insert(&self, name: &Name, columns: &[String], query: &str, this: Option<(&str, &str)>) -> Result<Answer> {
        let target = self.target(name)?;
        if let Target::Model { model, .. } = &target {
            let kind = self.project.models.iter().find(|m| m.name == *model).map(|m| m.materialized);
            if !matches!(kind, Some(Materialization::Incremental | Materialization::Seed)) {
                let kind = kind.map_or("model", Materialization::name);
                let message = format!("no rows can be inserted into `{model}`: a {kind} holds what its query returns");
                return Err(Error::user("hook-target", message)
                    .with_hint("insert into an incremental model, a seed, or a source without a connector"));
            }
        }
        let rows = self.answers.rows(query, this).await?;
        self.disturb(&target);
        let found = rows.first().map(RecordBatch::schema).unwrap_or_else(|| Arc::new(Schema::empty()));
        let (mut table, txns) = match &target {
            Target::Model { schema, name, model } => {
                let Some(table) = self.lake.table(schema, name).await? else {
                    return Err(super::admin::never_run(model));
                };
                let claimed = instance::claim(&self.env, &self.lake, self.take_over).await?;
                (table, vec![(INSTANCE.to_string(), claimed.number)])
            }
            Target::Source { schema, name, source } => match self.lake.table(schema, name).await? {
                Some(table) => (table, Vec::new()),
                None => {
                    let spec = TableSpec {
                        docs: TableDocs { description: source.description.clone(), comments: None },
                        ..TableSpec::new(new_schema(source, columns, &found)?, false)
                    };
                    (self.lake.create_table(schema, name, spec).await?, Vec::new())
                }
            },
        };
        let shaped: Vec<SignedBatch> =
            rows.iter().map(|b| shaped(b, columns, &table).map(SignedBatch::inserts)).collect::<Result<_>>()?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if count > 0 {
            table.stage(&shaped).await?;
            let mut info = serde_json::Map::new();
            info.insert("operation".to_string(), "WRITE".into());
            table.commit(CommitRequest { txns, info, ..CommitRequest::default() }).await?;
        }
        Ok(said(format!("INSERT {count}")))
    }

    /// A table to keep house in, and the model whose it is.
    async fn maintained(&self, name: &Name) -> Result<(Table, Option<&str>)> {
        let target = self.target(name)?;
        self.disturb(&target);
        let (schema, table, model) = match target {
            Target::Model { schema, name, model } => (schema, name, Some(model)),
            Target::Source { schema, name, .. } => (schema, name, None),
        };
        if model.is_some() {
            instance::claim(&self.env, &self.lake, self.take_over).await?;
        }
        let found = self.lake.table(schema, table).await?;
        Ok((found.ok_or_else(|| super::admin::never_run(table))?, model))
    }
}

impl Answers for Operator {
    fn query(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Answer> {
        self.handle.block_on(self.run(sql, this)).map_err(now)
    }

    fn columns(&self, schema: &str, name: &str, this: Option<(&str, &str)>) -> Result<Vec<(String, String)>> {
        self.answers.columns(schema, name, this).map_err(now)
    }

    fn exists(&self, schema: &str, name: &str) -> Result<bool> {
        self.answers.exists(schema, name)
    }
}

/// A hook does not wait: what is not there is missing.
fn now(error: Error) -> Error {
    if error.code() != WAITS {
        return error;
    }
    let message = error.message().trim_start_matches("the template asks the lake, ").trim_start_matches("but ");
    Error::user(NO_TABLE, message.trim_start_matches("and ")).with_hint("`smelt run` makes it")
}

fn said(message: String) -> Answer {
    Answer { message, ..Answer::default() }
}

/// The columns of a table that an INSERT makes: the source's, or those of the query.
fn new_schema(source: &SourceTable, columns: &[String], found: &SchemaRef) -> Result<SchemaRef> {
    let declared = source.columns.iter().map(|c| {
        let data_type = parse_sql_type(c.data_type.as_deref().unwrap_or("string"))?;
        Ok(Field::new(&c.name, data_type, true))
    });
    let mut fields = declared.collect::<Result<Vec<_>>>()?;
    if fields.is_empty() {
        for (i, field) in found.fields().iter().enumerate() {
            let data_type =
                stored_type(field.data_type()).map_err(|e| Error::user("bad-type", e.what).with_hint(e.remedy))?;
            fields.push(Field::new(columns.get(i).unwrap_or(field.name()), data_type, true));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Rows of a query in the columns of a table: by position, or into those that are named; the others are NULL.
fn shaped(rows: &RecordBatch, columns: &[String], table: &Table) -> Result<RecordBatch> {
    let schema = table.schema();
    let wrong = |message: String| {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::user("insert-columns", message).with_hint(format!("{} has: {}", table.name(), names.join(", ")))
    };
    let expected = if columns.is_empty() { schema.fields().len() } else { columns.len() };
    if rows.num_columns() != expected {
        return Err(wrong(format!("{} columns are selected for {expected}", rows.num_columns())));
    }
    if let Some(unknown) = columns.iter().find(|c| !schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(c))) {
        return Err(wrong(format!("{} has no column `{unknown}`", table.name())));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = |(i, field): (usize, &arrow::datatypes::FieldRef)| -> Result<ArrayRef> {
        let at = match columns.is_empty() {
            true => Some(i),
            false => columns.iter().position(|c| field.name().eq_ignore_ascii_case(c)),
        };
        match at {
            Some(at) => Ok(cast_with_options(rows.column(at), field.data_type(), &options)?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let arrays = schema.fields().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&schema), arrays)?)
}
