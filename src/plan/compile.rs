//! A project's models, compiled in topological order.

mod expectations;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::sql::sqlparser::ast::Query;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::arrangements::arrange;
use super::clock::Clock;
use super::deferred::DeferredModel;
use super::fault::{Fault, Origin, Place};
use super::fingerprint::{self, Meaning};
use super::incremental::Node;
use super::lateness::Stream;
use super::lower::{Fallback, Slots, lower};
use super::output::{self, OutputError};
use super::relation::{Input, Named, Relation, RelationSource, Scope, relation_of};
use super::rerun::CompiledRerun;
use super::resolve::Planned;
use super::session::{Planner, PlannerOptions};
use super::session_ends::compact;
use super::share::share;
use super::snapshot::CompiledSnapshot;
use super::{
    check, contract, determinism, diagnose, forgetting, interval_join, join_order, keys, on_close, seed, single_row,
    sources,
};
use crate::error::{Error, did_you_mean};
use crate::project::{Dependency, Materialization, Model, OnViolation, Project};
use crate::types::{Catalog, ChangeKind};

/// A compiled project.
#[derive(Debug)]
pub struct Compilation {
    /// In topological order; views and ephemeral models too, though their readers have them inlined. Those that wait for the lake, and
    /// what reads them, are left out.
    pub models: Vec<Arc<CompiledModel>>,
    /// Tables that stand in for models.
    pub deferred: Vec<DeferredModel>,
}

/// One model, ready to run.
#[derive(Debug)]
pub struct CompiledModel {
    pub model: Arc<Model>,
    /// What it reads, views replaced by what they read. A relation that is both streamed and joined stands here twice.
    pub inputs: Vec<Input>,
    /// Columns of its table, in stored types, all nullable.
    pub schema: SchemaRef,
    /// The whole query, rewritten and optimised; [`Planner::bind`] puts tables into its slots.
    pub bulk: LogicalPlan,
    /// The same query as a tree that is maintained, or why it is recomputed as a whole.
    pub incremental: Result<Node, Fallback>,
    /// No row it has written is ever retracted.
    pub append_only: bool,
    /// Slot of the streamed input of a streaming table.
    pub stream: Option<usize>,
    /// Slot of another stream that it is joined to by time.
    pub joined_stream: Option<usize>,
    pub expectations: Vec<CompiledExpectation>,
    /// Of a snapshot: how versions are made. `bulk` and `incremental` are the query's alone.
    pub snapshot: Option<CompiledSnapshot>,
    /// Of an incremental model: its runs after the first.
    pub rerun: Option<CompiledRerun>,
    /// Equal for equal meaning: see [`super::fingerprint`].
    pub fingerprint: String,
    /// Things worth saying that stop nothing.
    pub warnings: Vec<Error>,
    pub(crate) slots: Slots,
}

/// A row predicate over a model's stored columns, unqualified.
#[derive(Debug, Clone)]
pub struct CompiledExpectation {
    pub name: String,
    pub predicate: Expr,
    pub on_violation: OnViolation,
}

/// Compiles every model of `project`. What its plans read as `now()` is `clock`, whenever they run. `catalog` knows the Delta tables that others maintain. On failure: all errors of all
/// models; a model that reads a broken one is passed over in silence.
pub fn compile(project: &Project, catalog: &dyn Catalog, clock: &Clock) -> Result<Compilation, Vec<Error>> {
    let options = PlannerOptions { clock: Arc::clone(clock), ..PlannerOptions::new(project.dialect) };
    let planner = Planner::new(options).map_err(|e| vec![e])?;
    let mut compiler = Compiler {
        planner,
        catalog,
        relations: Vec::new(),
        known: HashMap::new(),
        broken: HashSet::new(),
        streams_anywhere: false,
    };
    let mut errors = Vec::new();
    let is_compiled = |model: &Model| model.deferred.as_ref().is_none_or(|table| table.compiled);
    let is_deferring = project.models.iter().any(|m| m.deferred.is_some());
    for table in &project.sources {
        match sources::relation(table, catalog) {
            Ok(source) => compiler.add_source(&table.source, &table.name, source),
            Err(error) => {
                let dependency = Dependency::Source(table.source.clone(), table.name.clone());
                // What only deferred models read need not be there.
                if !is_deferring || project.models.iter().any(|m| is_compiled(m) && m.depends_on.contains(&dependency))
                {
                    errors.push(error);
                }
                compiler.broken.insert(dependency);
            }
        }
    }
    let (mut models, mut deferred) = (Vec::new(), Vec::new());
    for model in &project.models {
        let name = Dependency::Model(model.name.clone());
        if let Some(table) = &model.deferred {
            match compiler.defer(model, table) {
                Ok(found) => deferred.push(found),
                Err(error) => {
                    if project.models.iter().any(|m| is_compiled(m) && m.depends_on.contains(&name)) {
                        errors.push(error);
                    }
                    compiler.broken.insert(name.clone());
                }
            }
            if !table.compiled {
                continue;
            }
        }
        if model.asks.waits.is_some()
            || !reads_known(project, model)
            || model.depends_on.iter().any(|d| compiler.broken.contains(d))
        {
            compiler.broken.insert(name);
            continue;
        }
        match compiler.model(model) {
            Ok(compiled) => models.push(compiled),
            Err(mut found) => {
                compiler.broken.insert(name);
                errors.append(&mut found);
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    arrange(&mut models);
    Ok(Compilation { models: models.into_iter().map(Arc::new).collect(), deferred })
}

/// Whether everything the model reads is in the project; it is not where only the sound part of one is compiled.
fn reads_known(project: &Project, model: &Model) -> bool {
    model.depends_on.iter().all(|d| match d {
        Dependency::Model(name) => project.models.iter().any(|m| m.name == *name),
        Dependency::Source(source, table) => project.sources.iter().any(|s| s.source == *source && s.name == *table),
    })
}

/// What is known of a relation beyond its columns.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub append_only: bool,
    pub changes: ChangeKind,
    /// Columns of which no two rows are equal.
    pub unique: Vec<Vec<usize>>,
    /// Its rows can be read again from the start.
    pub replayable: bool,
    /// Fingerprint of a view that is inlined.
    pub view: Option<String>,
    /// Its column of event time.
    pub event_time: Option<String>,
    /// It is known how far event time has come in its rows.
    pub has_watermark: bool,
    /// The column that says so, unless it was lost on the way.
    pub watermark_column: Option<String>,
}

pub(super) struct Compiler<'a> {
    pub(super) planner: Planner,
    pub(super) catalog: &'a dyn Catalog,
    pub(super) relations: Vec<(Dependency, Named)>,
    pub(super) known: HashMap<Relation, Known>,
    pub(super) broken: HashSet<Dependency>,
    /// A view may mark a STREAM; the mark means nothing there.
    pub(super) streams_anywhere: bool,
}

impl Compiler<'_> {
    fn add_source(&mut self, source: &str, table: &str, found: sources::SourceRelation) {
        let dependency = Dependency::Source(source.to_string(), table.to_string());
        let relation =
            RelationSource { relation: found.relation.clone(), streamed: false, schema: found.schema, view: None };
        let named = Named { schema: source.to_string(), name: table.to_string(), source: Arc::new(relation) };
        self.known.insert(found.relation, found.known);
        self.relations.push((dependency, named));
    }

    pub(super) fn event_time(&self, relation: &Relation) -> Option<String> {
        self.known.get(relation)?.event_time.clone()
    }

    /// The relations `model` declares with ref and source; the others only for hints.
    pub(super) fn scope(&self, model: &Model) -> Scope {
        let mut scope = Scope::default();
        for (dependency, named) in &self.relations {
            if model.depends_on.contains(dependency) {
                scope.relations.push(named.clone());
            } else {
                scope.undeclared.push((named.schema.clone(), named.name.clone()));
            }
        }
        scope
    }

    pub(super) fn model(&mut self, model: &Arc<Model>) -> Result<CompiledModel, Vec<Error>> {
        if let Some(file) = &model.seed {
            let compiled = seed::compile(model, file)?;
            self.add_model(model, &compiled.schema, false, vec![], None, None);
            return Ok(compiled);
        }
        let origin = Origin::Compiled { sql: &model.sql, source_map: &model.source_map };
        let fail = |fault: Fault| vec![origin.error(fault)];
        let scope = self.scope(model);
        let planned = self.planner.plan_sql(&model.sql, &scope).map_err(|f| origin.errors(f))?;
        let faults = output::check_names(&planned.query, &planned.plan);
        if !faults.is_empty() {
            return Err(origin.errors(faults));
        }
        let is_view = !model.materialized.has_table();
        let stream = model.materialized == Materialization::StreamingTable;
        let place = |relation: &Relation| place_of_relation(&self.planner, model, &scope, relation);
        if planned.marked && !stream && !self.streams_anywhere {
            let fault = Fault::new("stream-mark", "only a streaming_table reads a STREAM");
            return Err(fail(fault.hint("take STREAM out: a view always reads all rows of its inputs")));
        }
        let datafusion = |e| origin.errors(diagnose::of_text(&e, &model.sql, &self.planner));
        let plan = self.planner.analyze(planned.plan.clone()).map_err(datafusion)?;
        let is_maintained = model.materialized == Materialization::MaterializedView;
        let unstable = check::unstable_functions(&plan, is_maintained);
        if let (Some(name), true) = (unstable.first(), is_maintained) {
            return Err(fail(check::unstable_in_view(name).at(place_of_call(&self.planner, model, name))));
        }
        let (mut plan, schema) = self.stored(origin, &model.sql, plan, &planned.query)?;
        let mut slots = Slots::default();
        self.add_slots(&mut slots, &plan);
        let stream_slot = if stream {
            Some(self.stream_slot(model, &planned, &mut plan, &mut slots, place).map_err(fail)?)
        } else {
            None
        };
        let bulk = self.planner.optimize(plan.clone(), |_, _| {}).map_err(datafusion)?;
        let incremental = lower(&bulk, &slots, &self.planner.state, is_maintained);
        if let (Err(fallback), true) = (&incremental, is_maintained)
            && let Some(name) = check::unstable_functions(&bulk, false).first()
        {
            return Err(fail(check::untimed(fallback).at(place_of_call(&self.planner, model, name))));
        }

        let closes = model.config.emit_on_close;
        let mut joins_streams = false;
        let joined_stream = slots.other_stream(stream_slot);
        let incremental = if closes {
            let streams: Vec<Stream<'_>> = [stream_slot, joined_stream]
                .into_iter()
                .flatten()
                .map(|slot| Stream { slot, schema: &slots.inputs[slot].schema })
                .collect();
            self.check_on_close(model, &streams, &slots).map_err(fail)?;
            let joins = incremental.as_ref().is_ok_and(|tree| on_close::joins_streams(tree, &streams));
            joins_streams = joined_stream.is_some() || joins;
            let source = on_close::Source { streams: &streams, joined: joins_streams };
            let in_windows = incremental.as_ref().is_ok_and(|tree| source.remembers(tree));
            let closed = match source.joined && !in_windows {
                true => interval_join::bounded(incremental, &streams),
                false => on_close::close(incremental, &schema, &source),
            };
            Ok(closed.map_err(fail)?)
        } else {
            incremental
        };
        if let Some(slot) = stream_slot.filter(|_| !closes) {
            let input = &slots.inputs[slot];
            let changes = self.known[&input.relation].changes.clone();
            let streamed = check::Streamed { slot, changes };
            check::streamable(&incremental, &streamed).map_err(fail)?;
            if let Ok(node) = &incremental {
                check::keeps_key(node, &schema, &streamed, &slots.inputs[slot]).map_err(fail)?;
            }
        }
        if model.materialized == Materialization::MaterializedView || model.materialized.is_scheduled() {
            self.check_replayable(&slots, model.materialized.name(), place).map_err(fail)?;
        }
        let snapshot = match &model.config.snapshot {
            Some(config) => {
                let found = CompiledSnapshot::new(config, &schema, &self.planner);
                Some(found.map_err(|faults| Origin::Value(&config.span).errors(faults))?)
            }
            None => None,
        };
        let schema = match &snapshot {
            Some(snapshot) => snapshot.table_schema(self.catalog.table_schema(&model.schema, &model.alias).as_ref()),
            None => schema,
        };
        let (rerun, schema) = match self.rerun(model, &schema, &mut slots)? {
            Some((rerun, table)) => (Some(rerun), table),
            None => (None, schema),
        };
        if let Some(rerun) = &rerun {
            self.check_replayable(&slots, model.materialized.name(), place).map_err(fail)?;
            debug_assert_eq!(rerun.event_times.len(), slots.inputs.len());
        }
        if let (true, Err(fallback)) = (model.config.incremental_strict, &incremental) {
            let fault = Fault::new("not-incremental", format!("`incremental: strict`, but {fallback}"));
            return Err(fail(fault.hint(
                "write it another way, or take `incremental: strict` out: the model is then recomputed at every change",
            )));
        }
        if model.config.contract {
            let errors = contract::check(model, &schema, |message, hint| {
                origin.error(Fault::new("contract", message).hint(hint))
            });
            if !errors.is_empty() {
                return Err(errors);
            }
        }
        let expectations = self.expectations(model, &schema)?;
        check_partitioning(model, &schema).map_err(fail)?;
        let append_only = match (model.materialized, &incremental) {
            (kind, _) if kind.is_scheduled() => false,
            (_, Err(_)) => false,
            (Materialization::StreamingTable, Ok(_)) => {
                stream_slot.is_some_and(|s| match &slots.inputs[s].relation {
                    Relation::Source(..) => self.known[&slots.inputs[s].relation].changes == ChangeKind::Append,
                    // What it retracts is an error, or skipped.
                    _ => true,
                })
            }
            (_, Ok(node)) => node.is_append_only(),
        };
        let fingerprint = Meaning {
            dialect: self.planner.dialect,
            query: &planned.query,
            scope: &scope,
            inputs: self.meanings(&scope),
            expectations: &model.expectations,
        }
        .fingerprint();
        let fingerprint = match &rerun {
            Some(rerun) => fingerprint::of_both(&fingerprint, &rerun.fingerprint),
            None => fingerprint,
        };
        let mut warnings = undeclared_columns(model, &schema);
        if planned.truncating_division {
            warnings.push(
                origin.error(
                    Fault::new("integer-division", "`/` of two integer columns drops the remainder")
                        .hint("cast one of them: `cast(a as double) / b`")
                        .at(planned.division),
                ),
            );
        }
        let view = is_view.then(|| (fingerprint.clone(), Arc::new(plan)));
        // The rows of a join are older than what it has read.
        let passing = stream_slot.filter(|_| !joins_streams);
        let has_watermark = self.check_watermark(model, &schema, passing, &slots).map_err(fail)?;
        let watermark = has_watermark.then(|| self.watermark_column(model, &schema, passing, &slots));
        let unique = match (model.materialized, &incremental) {
            (Materialization::MaterializedView, Ok(node)) => keys::of_table(node, &slots.inputs),
            (Materialization::StreamingTable, _) => stream_slot.map_or_else(Vec::new, |slot| {
                keys::declared(&self.known[&slots.inputs[slot].relation].changes, &schema)
            }),
            (Materialization::Snapshot, _) => model
                .config
                .snapshot
                .as_ref()
                .map_or_else(Vec::new, |config| keys::named(std::slice::from_ref(&config.columns.scd_id), &schema)),
            _ => vec![],
        };
        self.add_model(model, &schema, append_only, unique, view, watermark);
        let mut incremental = incremental;
        if let (Ok(tree), true) = (&mut incremental, is_maintained) {
            forgetting::mark(tree, &|slot| self.event_time_column(&slots.inputs[slot]));
        }
        Ok(CompiledModel {
            model: Arc::clone(model),
            inputs: slots.inputs.clone(),
            schema,
            bulk,
            // What is late is told in one place for each stream.
            incremental: incremental
                .map(|tree| if closes { tree } else { join_order::ordered(tree, &slots.inputs) })
                .map(compact)
                .map(forgetting::settle)
                .map(|tree| if closes { tree } else { share(tree) }),
            append_only,
            stream: stream_slot,
            joined_stream,
            expectations,
            snapshot,
            rerun,
            fingerprint,
            warnings,
            slots,
        })
    }

    /// What readers see of a model; `view`: its fingerprint and the plan that stands in its place; `watermark`: that it has one, and of which column.
    fn add_model(
        &mut self,
        model: &Model,
        schema: &SchemaRef,
        append_only: bool,
        unique: Vec<Vec<usize>>,
        view: Option<(String, Arc<LogicalPlan>)>,
        watermark: Option<Option<String>>,
    ) {
        // Its readers read the table in its place.
        if model.deferred.is_some() {
            return;
        }
        let relation = Relation::Model(model.name.clone());
        let changes = if append_only { ChangeKind::Append } else { ChangeKind::Signed };
        let (fingerprint, plan) = view.unzip();
        self.known.insert(
            relation.clone(),
            Known {
                append_only,
                changes,
                unique,
                replayable: true,
                view: fingerprint,
                event_time: model.config.event_time.clone(),
                has_watermark: watermark.is_some(),
                watermark_column: watermark.flatten(),
            },
        );
        let source = RelationSource { relation, streamed: false, schema: Arc::clone(schema), view: plan };
        let named = Named { schema: model.schema.clone(), name: model.alias.clone(), source: Arc::new(source) };
        self.relations.push((Dependency::Model(model.name.clone()), named));
    }

    /// An analysed plan with every order total, and its output in stored types.
    pub(super) fn stored(
        &self,
        origin: Origin<'_>,
        sql: &str,
        plan: LogicalPlan,
        query: &Query,
    ) -> Result<(LogicalPlan, SchemaRef), Vec<Error>> {
        let datafusion = |e| origin.errors(diagnose::of_text(&e, sql, &self.planner));
        let plan = determinism::rewrite(&self.planner, plan).map_err(datafusion)?;
        let plan = single_row::guard(plan).map_err(datafusion)?;
        output::store(plan, query).map_err(|e| match e {
            OutputError::Fault(fault) => vec![origin.error(fault)],
            OutputError::Plan(e) => datafusion(e),
        })
    }

    /// Adds every relation `plan` scans, in the order it meets them.
    pub(super) fn add_slots(&self, slots: &mut Slots, plan: &LogicalPlan) {
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(source) = relation_of(&scan.source)
                && slots.find(source).is_none()
            {
                slots.inputs.push(Input {
                    relation: source.relation.clone(),
                    schema: Arc::clone(&source.schema),
                    append_only: self.known.get(&source.relation).is_some_and(|k| k.append_only),
                    unique: self.known.get(&source.relation).map_or_else(Vec::new, |k| k.unique.clone()),
                });
                slots.streamed.push(source.streamed);
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }

    /// Finds the one streamed input of a streaming table, and checks that it can be one.
    fn stream_slot(
        &self,
        model: &Model,
        planned: &Planned,
        plan: &mut LogicalPlan,
        slots: &mut Slots,
        place: impl Fn(&Relation) -> Option<Place>,
    ) -> Result<usize, Fault> {
        // A marked view: the mark goes to the one relation it reads.
        if planned.marked && !slots.streamed.contains(&true) {
            let [_] = slots.inputs.as_slice() else {
                return Err(Fault::new("stream-mark", "the view marked STREAM reads several relations")
                    .hint("write its query here, and mark the one relation whose rows are to be processed once"));
            };
        }
        let marked: Vec<usize> = (0..slots.inputs.len()).filter(|i| slots.streamed[*i]).collect();
        let slot = match (marked.as_slice(), slots.inputs.len()) {
            ([one], _) => *one,
            ([], 1) => 0,
            ([], 0) => {
                return Err(Fault::new("no-stream", "a streaming_table reads a stream, and this query reads nothing")
                    .hint("make it a materialized_view"));
            }
            ([], _) => {
                return Err(Fault::new("no-stream", "which of its inputs is the stream?").hint(
                    "mark the one whose rows are to be processed once: `from STREAM {{ ref('x') }}`; the others are looked up as they are",
                ));
            }
            ([first, _], _) if model.config.emit_on_close => *first,
            (several, _) => {
                let names: Vec<String> = several.iter().map(|s| format!("`{}`", slots.inputs[*s].relation)).collect();
                return Err(Fault::new("several-streams", format!("{} are both marked STREAM", names.join(" and "))).hint(
                    "a streaming_table has one streamed input, but two that are joined within an interval, with `emit: on_close`; join streams in a materialized_view, or write one streaming_table each and UNION ALL them in a view",
                ));
            }
        };
        if !slots.streamed[slot] {
            mark(plan, &slots.inputs[slot].relation).map_err(|e| Fault::new("sql", e.strip_backtrace()))?;
            slots.streamed[slot] = true;
        }
        let input = &slots.inputs[slot];
        let changes = self.known.get(&input.relation).map(|k| &k.changes);
        let changelog_source =
            matches!(input.relation, Relation::Source(..)) && !matches!(changes, Some(ChangeKind::Append) | None);
        if !input.append_only && !changelog_source && !model.config.skip_change_commits {
            return Err(Fault::new(
                "changing-stream",
                format!("`{}` retracts rows, and a streaming_table processes each row once", input.relation),
            )
            .hint(
                "make this model a materialized_view, or set `skip_change_commits: true` to see only the rows it adds",
            )
            .at(place(&input.relation)));
        }
        Ok(slot)
    }

    fn check_replayable(
        &self,
        slots: &Slots,
        kind: &str,
        place: impl Fn(&Relation) -> Option<Place>,
    ) -> Result<(), Fault> {
        for input in &slots.inputs {
            let (Some(known), Relation::Source(source, table)) = (self.known.get(&input.relation), &input.relation)
            else {
                continue;
            };
            if let (true, ChangeKind::Keyed(_)) = (known.replayable, &known.changes) {
                return Err(Fault::new(
                    "keyed-changelog",
                    format!("`{source}.{table}` says which key changed, not which row it had: a {kind} cannot retract that row"),
                )
                .hint(format!("apply the changes in a streaming_table first: `select * from STREAM {{{{ source('{source}', '{table}') }}}}`, and read that"))
                .at(place(&input.relation)));
            }
            if known.replayable {
                continue;
            }
            return Err(Fault::new(
                "not-replayable",
                format!("a {kind} cannot read the Kafka source `{source}.{table}`: its topic forgets, and the lake must be able to rebuild the {kind}"),
            )
            .hint(format!(
                "add a streaming_table `bronze_{table}` with `select * from STREAM {{{{ source('{source}', '{table}') }}}}`, and read {{{{ ref('bronze_{table}') }}}} here"
            ))
            .at(place(&input.relation)));
        }
        Ok(())
    }

    /// What each relation of the scope means, for the fingerprint.
    pub(super) fn meanings(&self, scope: &Scope) -> Vec<(String, String)> {
        let mut meanings: Vec<(String, String)> = scope
            .relations
            .iter()
            .map(|named| {
                let relation = &named.source.relation;
                let view = self.known.get(relation).and_then(|k| k.view.clone());
                (relation.to_string(), view.unwrap_or_else(|| fingerprint::columns(&named.source.schema)))
            })
            .collect();
        meanings.sort();
        meanings
    }
}

fn place_of_call(planner: &Planner, model: &Model, name: &str) -> Option<Place> {
    let sql = super::parse::Sql::tokenize(&model.sql, planner.sql_dialect().as_ref()).ok()?;
    let aliases: &[&str] = match name {
        "now" => &["now", "current_timestamp"],
        "current_date" => &["current_date", "today"],
        _ => &[],
    };
    sql.place_of_call(name).or_else(|| {
        aliases.iter().find_map(|a| {
            sql.all_words().find(|w| w.eq_ignore_ascii_case(a)).and_then(|w| sql.place_of(*sql.words(w).first()?))
        })
    })
}

/// The columns a table is partitioned by are columns it has.
fn check_partitioning(model: &Model, schema: &Schema) -> Result<(), Fault> {
    for name in &model.config.partition_by {
        if schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(name)) {
            continue;
        }
        let fault = Fault::new("unknown-column", format!("`partition_by`: `{}` has no column `{name}`", model.name));
        return Err(match did_you_mean(name, schema.fields().iter().map(|f| f.name().as_str())) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint("select the column, or take it out of partition_by"),
        });
    }
    Ok(())
}

/// Columns that YAML describes and the query does not make.
fn undeclared_columns(model: &Model, schema: &Schema) -> Vec<Error> {
    let known = || schema.fields().iter().map(|f| f.name().as_str());
    let missing = model.columns.iter().filter(|c| !known().any(|k| k.eq_ignore_ascii_case(&c.name)));
    missing
        .map(|c| {
            let message = format!("`{}` has no column `{}`", model.name, c.name);
            let warning = Error::user("unknown-column", message).with_span(c.span.clone());
            match did_you_mean(&c.name, known()) {
                Some(near) => warning.with_hint(format!("did you mean `{near}`?")),
                None => warning,
            }
        })
        .collect()
}

/// Where the model names `relation`, if it does so itself.
fn place_of_relation(planner: &Planner, model: &Model, scope: &Scope, relation: &Relation) -> Option<Place> {
    let sql = super::parse::Sql::tokenize(&model.sql, planner.sql_dialect().as_ref()).ok()?;
    let named = scope.relations.iter().find(|n| n.source.relation == *relation)?;
    sql.place_of_path(&[named.schema.clone(), named.name.clone()])
}

/// Makes every scan of `relation` the streamed one.
fn mark(plan: &mut LogicalPlan, relation: &Relation) -> Result<(), datafusion::error::DataFusionError> {
    let marked = plan.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let source = match relation_of(&scan.source) {
            Some(source) if source.relation == *relation => {
                Arc::new(RelationSource { streamed: true, ..source.clone() })
            }
            _ => return Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        };
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })?;
    *plan = marked.data;
    Ok(())
}

/// Columns, all nullable: what a relation's schema is to its readers.
pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
