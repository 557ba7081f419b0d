//! Unit tests at work: a model's query over given rows, step by step, through the engine that maintains it and by
//! recomputation, both compared with what is expected.
//!
//! 1. [`inputs`] turns written rows into changes of the inputs, in the inputs' types.
//! 2. The model's circuit takes each step's change; its output, after expectations, adds up to the table.
//! 3. The stock plan computes the same from all rows there are.
//! 4. [`diff`] compares each with the expected rows, on the columns these name.
//!
//! Neither lake nor sources are opened. A model that cannot be maintained incrementally is recomputed, as a run would do.

mod diff;
mod inputs;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Instant;

use super::compute::expanded;
use super::data_tests::{TestResult, TestStatus};
use crate::error::{Error, Result};
use crate::operators::{Circuit, Expectations, Keyed, Latest, Mode};
use crate::plan::incremental::Node;
use crate::plan::stored::to_stored;
use crate::plan::{
    Compilation, CompiledModel, DeferredModel, Leaf, Planner, PlannerOptions, Relation, compile_alone, source_columns,
};
use crate::project::{Dependency, Materialization, Model, Project, UnitRelation, UnitRows, UnitStep, UnitTest};
use crate::source::change_kind;
use crate::types::{Catalog, ChangeKind, SignedBatch};
use diff::Contents;
use inputs::Input;

/// Runs a unit test of the project. `catalog` is asked for columns of Delta tables that sources name.
pub async fn unit_test(
    project: &Project,
    compilation: &Compilation,
    catalog: &dyn Catalog,
    test: &UnitTest,
) -> TestResult {
    let started = Instant::now();
    let outcome = Bench::new(project, compilation, catalog, test);
    let outcome = match outcome {
        Ok(mut bench) => bench.run(test).await,
        Err(errors) => Err(errors),
    };
    let mut result = match outcome {
        Ok(None) => TestResult::new(TestStatus::Pass),
        Ok(Some(difference)) => TestResult { failures: 1, message: difference, ..TestResult::new(TestStatus::Fail) },
        Err(errors) => TestResult {
            message: errors.first().map(|e| e.message().to_string()).unwrap_or_default(),
            errors,
            ..TestResult::new(TestStatus::Error)
        },
    };
    result.elapsed = started.elapsed();
    result
}

/// A model with its inputs, ready for steps.
struct Bench {
    planner: Planner,
    compiled: CompiledModel,
    leaves: Vec<Leaf>,
    inputs: Vec<Input>,
    circuit: Option<Circuit>,
    /// Of a streaming table over a keyed changelog.
    keyed: Option<ByKey>,
    /// Of a streaming table: whether rows of one step depend on earlier ones.
    remembers: bool,
    expectations: Expectations,
    contents: Contents,
    /// Where the clock stands, µs.
    clock: i64,
}

impl Bench {
    fn new(
        project: &Project,
        compilation: &Compilation,
        catalog: &dyn Catalog,
        test: &UnitTest,
    ) -> Result<Self, Vec<Error>> {
        let one = |e: Error| vec![e];
        let find = |name: &str| {
            let found = compilation.models.iter().find(|m| m.model.name == name);
            found.ok_or_else(|| vec![Error::internal(format!("model `{name}` is not compiled"))])
        };
        let own = find(&test.model)?;
        let of_model = |compiled: &CompiledModel| Leaf {
            dependency: Dependency::Model(compiled.model.name.clone()),
            schema: compiled.model.schema.clone(),
            name: compiled.model.alias.clone(),
            columns: Arc::clone(&compiled.schema),
            append_only: compiled.append_only,
            key: key_of(project, compiled),
        };
        let of_deferred = |deferred: &DeferredModel| Leaf {
            dependency: Dependency::Model(deferred.model.clone()),
            schema: deferred.table.schema.clone(),
            name: deferred.table.alias.clone(),
            columns: Arc::clone(&deferred.columns),
            append_only: deferred.append_only,
            key: Vec::new(),
        };
        let mut leaves = Vec::new();
        for dependency in &test.depends_on {
            leaves.push(match dependency {
                Dependency::Model(name) => match compilation.deferred.iter().find(|d| d.model == *name) {
                    Some(deferred) => of_deferred(deferred),
                    None => of_model(find(name)?),
                },
                Dependency::Source(source, name) => {
                    let table = project.sources.iter().find(|t| t.source == *source && t.name == *name);
                    let table = table.ok_or_else(|| vec![Error::internal(format!("no source {source}.{name}"))])?;
                    let (columns, append_only, key) = source_columns(table, catalog).map_err(one)?;
                    let (schema, name) = (source.clone(), name.clone());
                    Leaf { dependency: dependency.clone(), schema, name, columns, append_only, key }
                }
            });
        }
        if test.reads_this {
            leaves.push(Leaf { append_only: false, ..of_model(own) });
        }
        let compiled = compile_alone(project.dialect, &Arc::new(alone(&own.model, test, &leaves)), &leaves)?;
        let planner = Planner::new(PlannerOptions::new(project.dialect)).map_err(one)?;
        let mode = match compiled.stream {
            Some(slot) => Mode::Stream { slot },
            None => Mode::View,
        };
        let session = planner.session_state();
        let name = &compiled.model.name;
        let circuit = match &compiled.incremental {
            Ok(node) => Some(Circuit::new(name, node, mode, session).map_err(one)?),
            Err(_) => None,
        };
        let remembers = compiled.stream.is_some() && compiled.incremental.as_ref().is_ok_and(has_state_of_rows);
        let expectations = Expectations::new(&compiled.expectations, &compiled.schema, session).map_err(one)?;
        let contents = Contents::new(&compiled.schema).map_err(one)?;
        let inputs = leaves.iter().map(Input::new).collect::<Result<Vec<_>>>().map_err(one)?;
        let keyed = ByKey::new(&compiled, &leaves).map_err(one)?;
        Ok(Bench { circuit, keyed, remembers, expectations, contents, inputs, leaves, planner, compiled, clock: 0 })
    }

    /// The first difference, as a person reads it.
    async fn run(&mut self, test: &UnitTest) -> Result<Option<String>, Vec<Error>> {
        let mut batch = self.contents.empty();
        let several = test.steps.len() > 1;
        let timed = self.compiled.incremental.as_ref().is_ok_and(Node::is_timed);
        if timed && test.steps.first().is_some_and(|step| step.now.is_none()) {
            let message =
                format!("`{}` compares rows with the clock, and the test does not say where it stands", test.model);
            let error = Error::user("missing-now", message).with_span(test.span.clone());
            return Err(vec![
                error.with_hint("add now: 2026-01-05 06:00:00 beside `given`, and to the steps of `then` that move it"),
            ]);
        }
        for (number, step) in test.steps.iter().enumerate() {
            self.clock = step.now.unwrap_or(self.clock);
            if let Some(circuit) = &mut self.circuit {
                circuit.set_clock(self.clock);
            }
            let changes = self.changes(step, number == 0).await?;
            let maintained = self.maintain(&changes).map_err(|e| vec![e])?;
            let of = if several { format!("step {}: ", number + 1) } else { String::new() };
            // Rows that a streaming table dedupes are known only to its state.
            let recomputed = match (self.compiled.stream, self.remembers && number > 0) {
                (_, true) => None,
                (None, _) => {
                    let rows = self.recompute(None).await?;
                    Some(self.contents.encode(&rows).map_err(|e| vec![e])?)
                }
                (Some(slot), _) => {
                    let streamed = self.slots(&changes).swap_remove(slot);
                    let rows = match self.keyed.as_ref().map(|keyed| keyed.latest(&streamed)).transpose() {
                        Ok(None) => self.recompute(Some((slot, streamed))).await?,
                        Ok(Some(latest)) => {
                            let rows = self.recompute(Some((slot, vec![latest.upserts]))).await?;
                            let keyed =
                                self.keyed.as_mut().map(|keyed| keyed.recomputed.apply(&latest.keys, &expanded(rows)?));
                            keyed.transpose().map_err(|e: Error| vec![e])?.unwrap_or_default()
                        }
                        Err(error) => return Err(vec![error]),
                    };
                    batch.add(&self.contents.encode(&rows).map_err(|e| vec![e])?);
                    Some(batch.clone())
                }
            };
            let expected = self.expected(&step.expect).await?;
            for (how, found) in [("", &maintained), (" (recomputed)", &recomputed)] {
                let Some(found) = found else { continue };
                if let Some(difference) = self.contents.compare(&expected, found).map_err(|e| vec![e])? {
                    let place = format!("{}:{}", step.span.file.display(), step.span.line);
                    return Ok(Some(format!("{of}actual{how} differs from expected ({place}):\n\n{difference}")));
                }
            }
            if let (Some(maintained), Some(recomputed)) = (&maintained, &recomputed)
                && maintained != recomputed
            {
                let difference = self.contents.between(recomputed, maintained).map_err(|e| vec![e])?;
                return Ok(Some(format!(
                    "{of}the incremental engine (+) and recomputation (-) give different rows, which is a bug in smelt: please report it\n\n{difference}"
                )));
            }
        }
        Ok(None)
    }

    /// What each leaf gains and loses in a step.
    async fn changes(&mut self, step: &UnitStep, first: bool) -> Result<Vec<SignedBatch>, Vec<Error>> {
        let mut changes = Vec::with_capacity(self.leaves.len());
        for (leaf, input) in self.leaves.iter().zip(&mut self.inputs) {
            let is_this = leaf.dependency == Dependency::Model(self.compiled.model.name.clone());
            let given = step.given.iter().find(|given| match &given.relation {
                UnitRelation::This => is_this,
                UnitRelation::Read(dependency) => *dependency == leaf.dependency,
            });
            changes.push(match given {
                None => SignedBatch::empty(Arc::clone(&leaf.columns)),
                Some(given) => match &given.rows {
                    UnitRows::Values(rows) => input.apply(rows, &given.key, first)?,
                    UnitRows::Query { sql, source_map } => {
                        let rows = query(&self.planner, sql, source_map).await?;
                        input.add(rows, &given.span)?
                    }
                },
            });
        }
        for given in &step.given {
            let is_read = self.leaves.iter().any(|leaf| match &given.relation {
                UnitRelation::This => leaf.dependency == Dependency::Model(self.compiled.model.name.clone()),
                UnitRelation::Read(dependency) => *dependency == leaf.dependency,
            });
            if !is_read {
                let error =
                    Error::user("unread-input", format!("`{}` does not read this input", self.compiled.model.name));
                return Err(vec![error.with_span(given.span.clone()).with_hint("take it out of the test")]);
            }
        }
        Ok(changes)
    }

    /// The leaves' changes by slot of the compiled model: a relation that is both streamed and joined has two.
    fn slots(&self, changes: &[SignedBatch]) -> Vec<Vec<SignedBatch>> {
        let of = |input: &crate::plan::Input| {
            let leaf = self.leaves.iter().position(|leaf| leaf.relation() == input.relation);
            leaf.map(|i| vec![changes[i].clone()]).unwrap_or_default()
        };
        self.compiled.inputs.iter().map(of).collect()
    }

    /// The table after the circuit has taken the step; `None` for a model that is recomputed at every change.
    fn maintain(&mut self, changes: &[SignedBatch]) -> Result<Option<diff::Rows>> {
        let mut slots = self.slots(changes);
        let latest = match (&self.keyed, self.compiled.stream) {
            (Some(keyed), Some(slot)) => {
                let latest = keyed.latest(&slots[slot])?;
                slots[slot] = vec![latest.upserts];
                Some(latest.keys)
            }
            _ => None,
        };
        let Some(circuit) = &mut self.circuit else { return Ok(None) };
        let change = circuit.step(&slots)?;
        let mut kept = self.kept(change)?;
        if let (Some(keyed), Some(keys)) = (&mut self.keyed, latest) {
            kept = keyed.maintained.apply(&keys, &expanded(kept)?)?;
        }
        self.contents.maintained.add(&self.contents.encode(&kept)?);
        Ok(Some(self.contents.maintained.clone()))
    }

    /// What the query gives over all rows there are; `streamed`: over these of the streamed input alone.
    async fn recompute(&self, streamed: Option<(usize, Vec<SignedBatch>)>) -> Result<Vec<SignedBatch>, Vec<Error>> {
        let one = |e: Error| vec![e];
        // What goes from a streaming table is what its query gives for the rows that go.
        let passes: Vec<(i64, Vec<RecordBatch>)> = match &streamed {
            None => vec![(1, Vec::new())],
            Some((_, changes)) => [1, -1].map(|sign| (sign, inputs::of_sign(changes, sign))).into(),
        };
        let mut all = Vec::new();
        for (sign, rows) in passes {
            if sign < 0 && rows.is_empty() {
                continue;
            }
            let mut providers: Vec<Arc<dyn TableProvider>> = Vec::new();
            for (slot, input) in self.compiled.inputs.iter().enumerate() {
                let leaf = self.leaves.iter().position(|leaf| leaf.relation() == input.relation);
                let rows = match &streamed {
                    Some((at, _)) if *at == slot => rows.clone(),
                    _ => leaf.map_or_else(Vec::new, |i| self.inputs[i].rows()),
                };
                providers.push(table(&input.schema, rows).map_err(one)?);
            }
            let plan = self.planner.bind_at(&self.compiled, &providers, self.clock).map_err(one)?;
            let stream = self.planner.execute(&plan).await.map_err(one)?;
            let rows: Vec<RecordBatch> = stream.try_collect().await.map_err(|e| vec![Error::from(e)])?;
            let change = rows.into_iter().map(if sign > 0 { SignedBatch::inserts } else { SignedBatch::retracts });
            all.extend(self.kept(change.collect()).map_err(one)?);
        }
        Ok(all)
    }

    /// Rows of the query in stored types, without those the model's expectations take out.
    fn kept(&self, change: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let stored = |batch: SignedBatch| Ok(batch.with_rows(to_stored(&batch.rows, &self.compiled.schema)?));
        let change = change.into_iter().map(stored).collect::<Result<Vec<_>>>()?;
        if self.expectations.is_empty() {
            return Ok(change);
        }
        let mut kept = Vec::with_capacity(change.len());
        for applied in self.expectations.apply(&self.compiled.model.name, change)? {
            if let Some(violation) = applied.failed {
                let message = format!("expectation `{}` fails the model: {}", violation.expectation, violation.row);
                return Err(Error::user("expectation", message));
            }
            kept.push(applied.kept);
        }
        Ok(kept)
    }

    async fn expected(&self, rows: &UnitRows) -> Result<diff::Expected, Vec<Error>> {
        let columns = &self.compiled.schema;
        match rows {
            UnitRows::Values(rows) => {
                let mut names: Vec<usize> = Vec::new();
                for cell in rows.iter().flat_map(|r| &r.cells) {
                    let i = inputs::column(columns, &self.compiled.model.name, &cell.column, &cell.span)?;
                    if !names.contains(&i) {
                        names.push(i);
                    }
                }
                let schema = projected(columns, &names);
                let rows = rows.iter().map(|row| inputs::values(row, &schema, &self.compiled.model.name));
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                self.contents.expected(names, &rows).map_err(|e| vec![e])
            }
            UnitRows::Query { sql, source_map } => {
                let found = query(&self.planner, sql, source_map).await?;
                let mut names = Vec::new();
                for field in found
                    .first()
                    .map(RecordBatch::schema)
                    .iter()
                    .flat_map(|s| s.fields().iter().cloned().collect::<Vec<_>>())
                {
                    names.push(inputs::column(columns, &self.compiled.model.name, field.name(), &source_map.start())?);
                }
                let schema = projected(columns, &names);
                let rows = inputs::conform(&found, &schema, &source_map.start())?;
                self.contents.expected(names, &rows).map_err(|e| vec![e])
            }
        }
    }
}

/// What a streaming table over a keyed changelog does: the last record of each key decides what its row is.
struct ByKey {
    /// Columns of the records, and which of them are the key.
    records: SchemaRef,
    key: Vec<usize>,
    /// The table by the circuit, and by the stock plan.
    maintained: Keyed,
    recomputed: Keyed,
}

impl ByKey {
    fn new(compiled: &CompiledModel, leaves: &[Leaf]) -> Result<Option<Self>> {
        let streamed = compiled.stream.and_then(|slot| compiled.inputs.get(slot));
        let Some(leaf) = leaves.iter().find(|leaf| streamed.is_some_and(|input| leaf.relation() == input.relation))
        else {
            return Ok(None);
        };
        if !leaf.is_keyed_changelog() {
            return Ok(None);
        }
        let find = |schema: &SchemaRef| {
            let at = |name: &String| schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
            leaf.key.iter().map(at).collect::<Option<Vec<usize>>>()
        };
        let (Some(key), Some(own)) = (find(&leaf.columns), find(&compiled.schema)) else {
            return Err(Error::internal("a keyed table without its key"));
        };
        let table = || Keyed::new(Arc::clone(&compiled.schema), own.clone());
        let (maintained, recomputed) = (table()?, table()?);
        Ok(Some(ByKey { records: Arc::clone(&leaf.columns), key, maintained, recomputed }))
    }

    fn latest(&self, records: &[SignedBatch]) -> Result<Latest> {
        Keyed::last_per_key(records, &self.records, &self.key)
    }
}

/// The key by which a streaming table holds one row each: that of the changelog it applies.
fn key_of(project: &Project, compiled: &CompiledModel) -> Vec<String> {
    let Some(Relation::Source(source, name)) = compiled.stream.map(|slot| &compiled.inputs[slot].relation) else {
        return Vec::new();
    };
    let table = project.sources.iter().find(|t| t.source == *source && t.name == *name);
    match table.map(|table| change_kind(table)) {
        Some(ChangeKind::Keyed(key)) => key,
        _ => Vec::new(),
    }
}

/// The model as the test has it: its SQL under overrides, a table computed as a whole unless the engine maintains it.
fn alone(model: &Model, test: &UnitTest, leaves: &[Leaf]) -> Model {
    let mut alone = Model {
        sql: test.sql.clone(),
        source_map: test.source_map.clone(),
        depends_on: leaves.iter().map(|l| l.dependency.clone()).collect(),
        ..model.clone()
    };
    if !matches!(model.materialized, Materialization::StreamingTable | Materialization::MaterializedView) {
        alone.materialized = Materialization::Table;
    }
    if alone.config.emit_on_close {
        // What all windows hold, closed or not.
        alone.config.emit_on_close = false;
        alone.materialized = Materialization::MaterializedView;
    }
    alone.config.snapshot = None;
    alone.config.incremental = None;
    alone.rerun = None;
    alone.config.partition_by.clear();
    alone
}

/// Whether a streamed row's fate depends on rows before it.
fn has_state_of_rows(node: &Node) -> bool {
    match node {
        Node::First { .. } | Node::Aggregate { .. } | Node::Window { .. } => true,
        Node::Session { .. } | Node::Temporal { .. } => true,
        Node::Input { .. } | Node::Constant { .. } => false,
        Node::Project { input, .. }
        | Node::Filter { input, .. }
        | Node::Unnest { input, .. }
        | Node::Arranged { input, .. } => has_state_of_rows(input),
        Node::Union { inputs, .. } => inputs.iter().any(has_state_of_rows),
        Node::Join { base, .. } => has_state_of_rows(base),
        Node::Shared { node, .. } => has_state_of_rows(node),
    }
}

fn projected(schema: &SchemaRef, columns: &[usize]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|i| schema.field(*i).clone()).collect::<Vec<_>>()))
}

fn table(schema: &SchemaRef, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let rows = rows.iter().map(|b| to_stored(b, schema)).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![rows])?))
}

/// Rows of a query that reads nothing; one batch at least, so that its columns are known.
async fn query(
    planner: &Planner,
    sql: &str,
    source_map: &crate::project::SourceMap,
) -> Result<Vec<RecordBatch>, Vec<Error>> {
    let plan = planner.plan_query(sql, source_map, &[])?;
    let stream = planner.execute(&plan).await.map_err(|e| vec![e])?;
    let schema = stream.schema();
    let mut rows: Vec<RecordBatch> = stream.try_collect().await.map_err(|e| vec![Error::from(e)])?;
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(schema));
    }
    Ok(rows)
}
