//! The DataFusion session everything is planned and executed in: dialect, options, functions, and the optimizer's list of rules.

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchemaRef, DataFusionError, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, dialect_from_str};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::clock::{self, Clock};
use super::fields::FieldPlanner;
use super::relation::Scope;
use super::rolled_up::ForgetKeys;
use super::{
    any_all, correlated, distinct_on, grouping_sets, hoisted_subqueries, lateral, namesakes, set_operations, subqueries,
};
use crate::error::{Error, Result};
use crate::project::Dialect;
use crate::state::{RowPools, SharedLogs, Spillable};

/// Rules of DataFusion's optimizer that are left out. `push_down_limit` moves limits below operators whose ties we made
/// deterministic; `single_distinct_aggregation_to_group_by` hides a distinct aggregate from the incremental engine.
const LEFT_OUT: [&str; 2] = ["push_down_limit", "single_distinct_aggregation_to_group_by"];

/// The same of its physical rules: `aggregate_statistics` answers count(*) from statistics and fails where only one of several
/// aggregates can be.
const PHYSICAL_LEFT_OUT: &str = "aggregate_statistics";

/// How a [`Planner`] is made.
#[derive(Clone)]
pub struct PlannerOptions {
    pub dialect: Dialect,
    /// Parallelism of bulk plans.
    pub target_partitions: usize,
    /// Memory of bulk plans and queries, bytes; None: unbounded.
    pub memory_limit: Option<usize>,
    /// What `now()` reads.
    pub clock: Clock,
}

impl PlannerOptions {
    /// Options for `dialect`; the clock stands at 1970-01-01, which suits compiling only.
    pub fn new(dialect: Dialect) -> Self {
        PlannerOptions { dialect, target_partitions: 1, memory_limit: None, clock: clock::stopped() }
    }
}

/// Plans, binds and executes SQL. Pure but for execution: schemas come in as values.
pub struct Planner {
    pub(crate) dialect: Dialect,
    pub(crate) state: SessionState,
    optimizer: Optimizer,
}

impl Planner {
    pub fn new(options: PlannerOptions) -> Result<Self> {
        let mut config = SessionConfig::new()
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false)
            .with_target_partitions(options.target_partitions.max(1))
            .with_extension(Arc::new(RowPools::default()))
            .with_extension(Arc::new(SharedLogs::default()))
            .with_extension(Arc::new(Spillable::default()));
        let set = config.options_mut();
        set.sql_parser.enable_ident_normalization = false;
        set.sql_parser.collect_spans = true;
        set.sql_parser.map_string_types_to_utf8view = false;
        set.sql_parser.default_null_ordering = crate::functions::null_ordering(options.dialect).to_string();
        set.execution.time_zone = Some("UTC".to_string());
        set.execution.parquet.schema_force_view_types = false;
        set.optimizer.enable_topk_aggregation = false;
        // Loses the relation of what it pulls out of a struct: joins over such columns fail to plan or to execute.
        set.optimizer.enable_leaf_expression_pushdown = false;
        set.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        set.optimizer.enable_dynamic_filter_pushdown = false;
        set.optimizer.enable_topk_dynamic_filter_pushdown = false;
        set.optimizer.enable_join_dynamic_filter_pushdown = false;
        set.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        let mut runtime = RuntimeEnvBuilder::new();
        if let Some(limit) = options.memory_limit {
            // What a sort asks for before it has a row.
            let sorts = &mut config.options_mut().execution.sort_spill_reservation_bytes;
            *sorts = (*sorts).min(limit / 16);
            let consumers = NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN);
            runtime = runtime.with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(limit), consumers)));
        }
        let mut builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.build_arc().map_err(Error::from)?)
            .with_physical_optimizer_rules(physical_rules())
            .with_default_features();
        builder.type_planner().replace(Arc::new(Types));
        let mut state = builder.build();
        register_functions(&mut state, &options)?;
        state.execution_props_mut().query_execution_start_time = None;
        let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
            Optimizer::new().rules.into_iter().filter(|r| !LEFT_OUT.contains(&r.name())).collect();
        Ok(Planner { dialect: options.dialect, state, optimizer: Optimizer::with_rules(rules) })
    }

    /// The session physical expressions and plans are made in.
    pub fn session_state(&self) -> &SessionState {
        &self.state
    }

    pub(crate) fn sql_dialect(&self) -> Box<dyn SqlDialect> {
        let name = match self.dialect {
            Dialect::DataFusion => "generic",
            Dialect::Postgres => "postgresql",
            Dialect::DuckDb => "duckdb",
            Dialect::Spark => "spark",
            Dialect::Databricks => "databricks",
            Dialect::Snowflake => "snowflake",
        };
        dialect_from_str(name).unwrap_or_else(|| Box::new(datafusion::sql::sqlparser::dialect::GenericDialect))
    }

    pub(crate) fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let plan = set_operations::count_duplicates(plan)?;
        // Its anti joins are no set operations.
        let plan = lateral::unnest(plan)?;
        let plan = grouping_sets::over_columns(plan)?;
        let plan = distinct_on::first_rows(plan)?;
        let plan = any_all::rewrite(plan)?;
        let plan = hoisted_subqueries::below(plan)?;
        let plan = correlated::rewrite(plan)?;
        let plan = subqueries::rewrite(plan)?;
        self.state.analyzer().execute_and_check(plan, self.state.config_options(), |_, _| {})
    }

    /// One expression over rows of `schema`, analysed: constants folded, casts moved to the constant side.
    pub(crate) fn simplify(&self, expr: Expr, schema: DFSchemaRef) -> Result<Expr, DataFusionError> {
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_schema(schema)
            .build();
        ExprSimplifier::new(context).simplify(expr)
    }

    /// Runs the optimizer. Generated names (`__common_expr_1`) start anew, so that a plan does not depend on what was
    /// planned before it.
    pub(crate) fn optimize(
        &self,
        plan: LogicalPlan,
        observe: impl FnMut(&LogicalPlan, &dyn OptimizerRule),
    ) -> Result<LogicalPlan, DataFusionError> {
        self.optimize_with(&self.optimizer, plan, observe)
    }

    pub(crate) fn optimize_with(
        &self,
        optimizer: &Optimizer,
        plan: LogicalPlan,
        observe: impl FnMut(&LogicalPlan, &dyn OptimizerRule),
    ) -> Result<LogicalPlan, DataFusionError> {
        let mut state = self.state.clone();
        state.execution_props_mut().alias_generator = Arc::new(AliasGenerator::new());
        optimizer.optimize(plan, &state, observe)
    }
}

/// Rules for physical plans.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let rules =
        PhysicalOptimizer::new().rules.into_iter().filter(|r| r.name() != PHYSICAL_LEFT_OUT).map(namesakes::told_apart);
    // What is wrongly known is forgotten before anything asks.
    std::iter::once(Arc::new(ForgetKeys) as Arc<dyn PhysicalOptimizerRule + Send + Sync>).chain(rules).collect()
}

fn register_functions(state: &mut SessionState, options: &PlannerOptions) -> Result<()> {
    use datafusion::execution::FunctionRegistry;
    crate::functions::register(state, options.dialect)?;
    for function in clock::functions(&options.clock) {
        state.register_udf(function)?;
    }
    Ok(())
}

/// SQL types whose meaning is ours: TIMESTAMP is an instant (µs UTC), TIMESTAMP_NTZ is not.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>, DataFusionError> {
        let data_type = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::WithoutTimeZone) | SqlType::TimestampNtz(_) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            SqlType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Custom(name, arguments) => {
                match (name.to_string().to_lowercase().as_str(), arguments.as_slice()) {
                    ("timestamp_tz" | "timestamp_ltz", _) => {
                        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
                    }
                    // Snowflake's and Oracle's DECIMAL.
                    ("number", arguments) => {
                        let digits =
                            |i: usize, default: i64| arguments.get(i).map_or(Some(default), |a| a.trim().parse().ok());
                        match (digits(0, 38).map(u8::try_from), digits(1, 0).map(i8::try_from)) {
                            (Some(Ok(precision)), Some(Ok(scale))) if precision <= 38 => {
                                DataType::Decimal128(precision, scale)
                            }
                            _ => return Ok(None),
                        }
                    }
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

/// What DataFusion's SQL planner may ask for while it plans one query.
pub(crate) struct Context<'a> {
    planner: &'a Planner,
    scope: &'a Scope,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl<'a> Context<'a> {
    pub fn new(planner: &'a Planner, scope: &'a Scope, fields: Arc<FieldPlanner>) -> Self {
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![fields];
        planners.extend(crate::functions::planners(planner.dialect));
        planners.extend(planner.state.expr_planners().iter().cloned());
        Context { planner, scope, planners }
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>, DataFusionError> {
        Ok(self.scope.find(&name)?)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>, DataFusionError> {
        use datafusion::catalog::TableFunctionArgs;
        let function = self
            .planner
            .state
            .table_functions()
            .get(&name.to_ascii_lowercase())
            .ok_or_else(|| DataFusionError::Plan(format!("table function '{name}' not found")))?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, &self.planner.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>, DataFusionError> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.planner.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.planner.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.planner.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.planner.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.planner.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.planner.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.planner.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.planner.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.planner.state.window_functions().keys().cloned().collect()
    }
}
