//! Runs of an incremental model after the first: the query with `is_incremental()` true, the columns its table has, and which rows
//! of the table a run's rows replace.
//!
//! What a run replaces is found by a plan over two relations, the table (`DBT_INTERNAL_DEST`) and the run's rows
//! (`DBT_INTERNAL_SOURCE`): the names dbt's own SQL has for them, since `incremental_predicates` use them.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use std::sync::Arc;

use super::compile::Compiler;
use super::diagnose;
use super::fault::{Fault, Origin};
use super::fingerprint::Meaning;
use super::lower::Slots;
use super::relation::{Input, Named, Relation, RelationSource, Scope};
use super::session::Planner;
use super::{determinism, output, single_row};
use crate::error::{Error, did_you_mean};
use crate::project::{
    Dialect, IncrementalConfig, IncrementalStrategy, MergeColumns, Microbatch, Model, OnSchemaChange,
};

/// The column that numbers a run's rows in the plan of a merge.
pub const ROW: &str = "__smelt_row";

/// An incremental model, its columns found.
#[derive(Debug)]
pub struct CompiledRerun {
    /// The query of a run that finds the table, over the model's inputs.
    pub query: LogicalPlan,
    /// Per column of the table the column of the first run's query, and of this one's, that fills it; `None`: NULL.
    pub first_columns: Vec<Option<usize>>,
    pub columns: Vec<Option<usize>>,
    pub change: RerunChange,
    /// Per input its column of event time: a batch reads only its part.
    pub event_times: Vec<Option<String>>,
    /// Of the query.
    pub(super) fingerprint: String,
}

/// How a run's rows come into the table.
#[derive(Debug)]
pub enum RerunChange {
    Append,
    /// Rows of the table that match are updated in the columns marked true, rows that match none are added.
    Merge {
        matching: Matching,
        key: Vec<usize>,
        updated: Vec<bool>,
    },
    /// Rows of the table that match are deleted, all rows added.
    Replace(Matching),
    /// All rows of the table are deleted, all rows added.
    ReplaceAll,
    /// The query runs per batch; the batch's rows of the table, by this column, are deleted, the new ones added.
    Batches {
        batches: Microbatch,
        event_time: usize,
    },
}

/// The rows of the table that a run's rows concern: a plan over the table and the rows (numbered in [`ROW`]).
#[derive(Debug)]
pub struct Matching {
    pub(crate) plan: LogicalPlan,
    pub(crate) slots: Slots,
}

impl Compiler<'_> {
    /// The runs of an incremental model whose first query makes `first`, and the columns of its table; `None` for other models. What the
    /// later runs read besides is added to `slots`.
    pub(super) fn rerun(
        &self,
        model: &Model,
        first: &SchemaRef,
        slots: &mut Slots,
    ) -> Result<Option<(CompiledRerun, SchemaRef)>, Vec<Error>> {
        let (Some(query), Some(config)) = (&model.rerun, &model.config.incremental) else { return Ok(None) };
        let origin = Origin::Compiled { sql: &query.sql, source_map: &query.source_map };
        let of_config = Origin::Value(&config.span);
        let before = self.catalog.table_schema(&model.schema, &model.alias);
        let schema =
            table_schema(model, config, first, before.as_ref()).map_err(|fault| vec![of_config.error(fault)])?;
        let mut scope = self.scope(model);
        let this = RelationSource {
            relation: Relation::Model(model.name.clone()),
            streamed: false,
            schema: Arc::clone(&schema),
            view: None,
        };
        scope.relations.push(Named { schema: model.schema.clone(), name: model.alias.clone(), source: Arc::new(this) });
        let planned = self.planner.plan_sql(&query.sql, &scope).map_err(|faults| origin.errors(faults))?;
        let faults = output::check_names(&planned.query, &planned.plan);
        if !faults.is_empty() {
            return Err(origin.errors(faults));
        }
        let datafusion = |e| origin.errors(diagnose::of_text(&e, &query.sql, &self.planner));
        let plan = self.planner.analyze(planned.plan).map_err(datafusion)?;
        let (plan, again) = self.stored(origin, &query.sql, plan, &planned.query)?;
        check_branches(first, &again).map_err(|fault| vec![origin.error(fault)])?;
        self.add_slots(slots, &plan);
        let plan = self.planner.optimize(plan, |_, _| {}).map_err(datafusion)?;
        let change = change(&self.planner, model, config, &schema).map_err(|faults| of_config.errors(faults))?;
        let event_times = match &change {
            RerunChange::Batches { .. } => self.event_times(slots).map_err(|fault| vec![of_config.error(fault)])?,
            _ => vec![None; slots.inputs.len()],
        };
        let fingerprint = Meaning {
            dialect: self.planner.dialect,
            query: &planned.query,
            inputs: self.meanings(&self.scope(model)),
            scope: &scope,
            expectations: &[],
        }
        .fingerprint();
        let rerun = CompiledRerun {
            query: plan,
            first_columns: filled_by(&schema, first),
            columns: filled_by(&schema, &again),
            change,
            event_times,
            fingerprint,
        };
        Ok(Some((rerun, schema)))
    }

    /// The `event_time` of each input that has one.
    fn event_times(&self, slots: &Slots) -> Result<Vec<Option<String>>, Fault> {
        let of = |input: &Input| {
            let Some(name) = self.event_time(&input.relation) else { return Ok(None) };
            match position(&input.schema, &name) {
                Some(column) => Ok(Some(input.schema.field(column).name().clone())),
                None => Err(Fault::new(
                    "unknown-column",
                    format!("`event_time`: `{}` has no column `{name}`", input.relation),
                )
                .hint("name the column that says when a row happened")),
            }
        };
        slots.inputs.iter().map(of).collect()
    }
}

/// Columns of the table, when its query makes `query` and the table, which has been made before, has `before`.
pub(super) fn table_schema(
    model: &Model,
    config: &IncrementalConfig,
    query: &SchemaRef,
    before: Option<&SchemaRef>,
) -> Result<SchemaRef, Fault> {
    let Some(before) = before else { return Ok(Arc::clone(query)) };
    let missing: Vec<&str> = names(before).filter(|name| position(query, name).is_none()).collect();
    let new: Vec<&Arc<Field>> = query.fields().iter().filter(|f| position(before, f.name()).is_none()).collect();
    let retyped: Vec<String> = before
        .fields()
        .iter()
        .filter_map(|f| {
            let is = query.field(position(query, f.name())?);
            (is.data_type() != f.data_type())
                .then(|| format!("`{}` ({} → {})", f.name(), f.data_type(), is.data_type()))
        })
        .collect();
    let listed = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let table = format!("{}.{}", model.schema, model.alias);
    match config.on_schema_change {
        OnSchemaChange::Ignore if missing.is_empty() => Ok(Arc::clone(before)),
        OnSchemaChange::Ignore => Err(Fault::new(
            "schema-change",
            format!("{table} has {}, which the query does not select any more", listed(&missing)),
        )
        .hint("select it, or set on_schema_change: append_new_columns (it stays, NULL in new rows) or sync_all_columns (it is dropped), or run with --full-refresh")),
        OnSchemaChange::Fail if missing.is_empty() && new.is_empty() && retyped.is_empty() => Ok(Arc::clone(before)),
        OnSchemaChange::Fail => {
            let mut changes = Vec::new();
            if !new.is_empty() {
                let new: Vec<&str> = new.iter().map(|f| f.name().as_str()).collect();
                changes.push(format!("adds {}", listed(&new)));
            }
            if !missing.is_empty() {
                changes.push(format!("lacks {}", listed(&missing)));
            }
            if !retyped.is_empty() {
                changes.push(format!("retypes {}", retyped.join(", ")));
            }
            let message = format!("on_schema_change: fail, and compared with {table} the query {}", changes.join("; "));
            Err(Fault::new("schema-change", message)
                .hint("take the change back, choose append_new_columns or sync_all_columns, or run with --full-refresh"))
        }
        OnSchemaChange::AppendNewColumns => {
            let fields = before.fields().iter().cloned().chain(new.into_iter().cloned());
            Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        }
        OnSchemaChange::SyncAllColumns => {
            let kept = before.fields().iter().filter_map(|f| {
                let is = query.field(position(query, f.name())?);
                Some(Arc::new(f.as_ref().clone().with_data_type(is.data_type().clone())))
            });
            Ok(Arc::new(Schema::new(kept.chain(new.into_iter().cloned()).collect::<Vec<_>>())))
        }
    }
}

fn names(schema: &SchemaRef) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|f| f.name().as_str())
}

fn position(schema: &SchemaRef, name: &str) -> Option<usize> {
    names(schema).position(|n| n == name).or_else(|| names(schema).position(|n| n.eq_ignore_ascii_case(name)))
}

/// Per column of `table` the column of `query` with its name.
pub(super) fn filled_by(table: &SchemaRef, query: &SchemaRef) -> Vec<Option<usize>> {
    names(table).map(|name| position(query, name)).collect()
}

/// The two branches of `is_incremental()` make one table: they select the same columns.
pub(super) fn check_branches(first: &SchemaRef, again: &SchemaRef) -> Result<(), Fault> {
    let lacking = |a: &SchemaRef, b: &SchemaRef| names(a).find(|n| position(b, n).is_none()).map(str::to_string);
    let (column, whose) = match (lacking(first, again), lacking(again, first)) {
        (Some(column), _) => (column, "true"),
        (None, Some(column)) => (column, "false"),
        (None, None) => return Ok(()),
    };
    let message = format!("where is_incremental() is {whose}, the query does not select `{column}`");
    Err(Fault::new("branch-columns", message).hint("select the same columns in both branches"))
}

/// How the rows come into a table of `schema`.
pub(super) fn change(
    planner: &Planner,
    model: &Model,
    config: &IncrementalConfig,
    schema: &SchemaRef,
) -> Result<RerunChange, Vec<Fault>> {
    let find = |what: &str, name: &str| {
        position(schema, name).ok_or_else(|| {
            let fault = Fault::new("unknown-column", format!("`{what}`: `{}` has no column `{name}`", model.name));
            vec![match did_you_mean(name, names(schema)) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault.hint("name a column that the query selects"),
            }]
        })
    };
    let find_all = |what: &str, all: &[String]| all.iter().map(|n| find(what, n)).collect::<Result<Vec<_>, _>>();
    let key = find_all("unique_key", &config.unique_key)?;
    let matcher = Matcher { planner, model, config, schema };
    Ok(match &config.strategy {
        IncrementalStrategy::Append => RerunChange::Append,
        IncrementalStrategy::Merge => {
            let updated = match &config.updates {
                MergeColumns::All => vec![true; schema.fields().len()],
                MergeColumns::Only(only) => {
                    let only = find_all("merge_update_columns", only)?;
                    (0..schema.fields().len()).map(|i| only.contains(&i)).collect()
                }
                MergeColumns::Except(except) => {
                    let except = find_all("merge_exclude_columns", except)?;
                    (0..schema.fields().len()).map(|i| !except.contains(&i)).collect()
                }
            };
            RerunChange::Merge { matching: matcher.merge(&key)?, key, updated }
        }
        IncrementalStrategy::DeleteInsert => RerunChange::Replace(matcher.replace(&key, "=")?),
        IncrementalStrategy::InsertOverwrite if model.config.partition_by.is_empty() => RerunChange::ReplaceAll,
        IncrementalStrategy::InsertOverwrite => {
            let partitions = find_all("partition_by", &model.config.partition_by)?;
            RerunChange::Replace(matcher.replace(&partitions, "is not distinct from")?)
        }
        IncrementalStrategy::Microbatch(batches) => {
            let event_time = find("event_time", &batches.event_time)?;
            let field = schema.field(event_time);
            if !matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32) {
                let message = format!("`event_time`: `{}` is {}, not a timestamp", field.name(), field.data_type());
                return Err(vec![Fault::new("type", message).hint("cast it in the query")]);
            }
            RerunChange::Batches { batches: batches.clone(), event_time }
        }
    })
}

struct Matcher<'a> {
    planner: &'a Planner,
    model: &'a Model,
    config: &'a IncrementalConfig,
    schema: &'a SchemaRef,
}

impl Matcher<'_> {
    /// Pairs of a row of the table and the number of a new row.
    fn merge(&self, key: &[usize]) -> Result<Matching, Vec<Fault>> {
        let row = self.quoted(ROW);
        self.plan(&format!(
            "select {}, DBT_INTERNAL_SOURCE.{row} as {row} from {} as DBT_INTERNAL_DEST join {} as DBT_INTERNAL_SOURCE on {}{}",
            self.table_columns(),
            self.relation("table"),
            self.relation("rows"),
            self.same(key, "="),
            self.predicates(),
        ))
    }

    /// Rows of the table for which there is a new row.
    fn replace(&self, columns: &[usize], same: &str) -> Result<Matching, Vec<Fault>> {
        self.plan(&format!(
            "select {} from {} as DBT_INTERNAL_DEST where exists (select 1 from {} as DBT_INTERNAL_SOURCE where {}){}",
            self.table_columns(),
            self.relation("table"),
            self.relation("rows"),
            self.same(columns, same),
            self.predicates(),
        ))
    }

    fn table_columns(&self) -> String {
        let columns = names(self.schema).map(|n| format!("DBT_INTERNAL_DEST.{0} as {0}", self.quoted(n)));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn same(&self, columns: &[usize], same: &str) -> String {
        let pairs = columns.iter().map(|i| {
            let name = self.quoted(self.schema.field(*i).name());
            format!("DBT_INTERNAL_DEST.{name} {same} DBT_INTERNAL_SOURCE.{name}")
        });
        pairs.collect::<Vec<_>>().join(" and ")
    }

    fn predicates(&self) -> String {
        self.config.predicates.iter().map(|predicate| format!(" and ({predicate}\n)")).collect()
    }

    fn relation(&self, name: &str) -> String {
        format!("{}.{}", self.quoted("incremental"), self.quoted(name))
    }

    fn quoted(&self, name: &str) -> String {
        let quote = match self.planner.dialect {
            // There `"` makes a string.
            Dialect::Spark | Dialect::Databricks => "`",
            _ => "\"",
        };
        format!("{quote}{}{quote}", name.replace(quote, &quote.repeat(2)))
    }

    fn plan(&self, sql: &str) -> Result<Matching, Vec<Fault>> {
        let numbered =
            [self.schema.fields().to_vec(), vec![Arc::new(Field::new(ROW, DataType::UInt64, false))]].concat();
        let numbered = Arc::new(Schema::new(numbered));
        let mut scope = Scope::default();
        let mut slots = Slots::default();
        for (name, schema) in [("table", self.schema), ("rows", &numbered)] {
            let relation = Relation::Table { lake: None, schema: "incremental".into(), name: name.into() };
            let source =
                RelationSource { relation: relation.clone(), streamed: false, schema: Arc::clone(schema), view: None };
            scope.relations.push(Named { schema: "incremental".into(), name: name.into(), source: Arc::new(source) });
            slots.inputs.push(Input { relation, schema: Arc::clone(schema), append_only: false, unique: vec![] });
            slots.streamed.push(false);
        }
        let blame = |faults: Vec<Fault>| -> Vec<Fault> {
            let about = |fault: Fault| Fault {
                message: format!("incremental_predicates of `{}`: {}", self.model.name, fault.message),
                place: None,
                ..fault
            };
            faults.into_iter().map(about).collect()
        };
        let planned = self.planner.plan_sql(sql, &scope).map_err(blame)?;
        let plan = (|| {
            let plan = self.planner.analyze(planned.plan)?;
            let plan = determinism::rewrite(self.planner, plan)?;
            let plan = single_row::guard(plan)?;
            self.planner.optimize(plan, |_, _| {})
        })();
        let plan = plan.map_err(|e| blame(diagnose::of_text(&e, sql, self.planner)))?;
        Ok(Matching { plan, slots })
    }
}
