//! Expression planning of our own, tried before DataFusion's: struct fields match ignoring case, and `/` of two integers
//! follows the dialect.

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, cast, lit};
use datafusion::prelude::Column;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use parking_lot::Mutex;
use std::collections::BTreeSet;

use super::fault::Fault;
use crate::error::did_you_mean;
use crate::project::Dialect;

/// Planner hooks of one attempt to plan a query.
#[derive(Debug)]
pub(crate) struct FieldPlanner {
    dialect: Dialect,
    seen: Mutex<Seen>,
}

/// What the hooks noticed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// DataFusion drops errors of `plan_compound_identifier`; the last one stays here, with the words it is about
    /// (column, fields up to the unknown one).
    pub fault: Option<(Fault, Vec<String>)>,
    /// (column, fields…) of every struct access by dots.
    pub nested: BTreeSet<Vec<String>>,
    /// Whether `/` truncated two integers.
    pub truncating_division: bool,
}

impl FieldPlanner {
    pub fn new(dialect: Dialect) -> Self {
        FieldPlanner { dialect, seen: Mutex::default() }
    }

    pub fn take_seen(&self) -> Seen {
        std::mem::take(&mut self.seen.lock())
    }
}

/// The field `name` of a struct: exact spelling first, then ignoring case.
fn find_field<'a>(fields: &'a Fields, name: &str, of: &str) -> Result<&'a Field, Fault> {
    if let Some(field) = fields.iter().find(|f| f.name() == name) {
        return Ok(field);
    }
    let found: Vec<_> = fields.iter().filter(|f| f.name().eq_ignore_ascii_case(name)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let fault = Fault::new("unknown-field", format!("no field `{name}` in `{of}`"));
            Err(match did_you_mean(name, fields.iter().map(|f| f.name().as_str())) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => {
                    let names = fields.iter().map(|f| format!("`{}`", f.name())).collect::<Vec<_>>();
                    fault.hint(format!("it has {}", names.join(", ")))
                }
            })
        }
        several => {
            let names = several.iter().map(|f| format!("`{}`", f.name())).collect::<Vec<_>>();
            Err(Fault::new("ambiguous-column", format!("`{name}` may be {} of `{of}`", names.join(" or "))))
        }
    }
}

fn get(expr: Expr, name: &str) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(get_field(), vec![expr, lit(ScalarValue::from(name))]))
}

impl ExprPlanner for FieldPlanner {
    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>, DataFusionError> {
        let mut path = vec![field.name().clone()];
        path.extend_from_slice(nested_names);
        let mut expr = Expr::Column(Column::from((qualifier, field)));
        let mut data_type = field.data_type();
        let mut of = field.name().clone();
        for (depth, name) in nested_names.iter().enumerate() {
            let words = || path[..depth + 2].to_vec();
            let DataType::Struct(fields) = data_type else {
                let fault = Fault::new("unknown-field", format!("`{of}` has no fields"));
                self.seen.lock().fault = Some((fault.clone(), words()));
                return Err(fault.into());
            };
            match find_field(fields, name, &of) {
                Ok(found) => {
                    expr = get(expr, found.name());
                    data_type = found.data_type();
                    of = format!("{of}.{}", found.name());
                }
                Err(fault) => {
                    self.seen.lock().fault = Some((fault.clone(), words()));
                    return Err(fault.into());
                }
            }
        }
        self.seen.lock().nested.insert(path);
        Ok(PlannerResult::Planned(expr))
    }

    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>, DataFusionError> {
        let GetFieldAccess::NamedStructField { name } = &raw.field_access else {
            return Ok(PlannerResult::Original(raw));
        };
        let (Some(Some(name)), Ok(DataType::Struct(fields))) = (name.try_as_str(), raw.expr.get_type(schema)) else {
            return Ok(PlannerResult::Original(raw));
        };
        let found = find_field(&fields, name, &raw.expr.to_string())?;
        Ok(PlannerResult::Planned(get(raw.expr, found.name())))
    }

    /// Ranks are counts: BIGINT, not an unsigned type that no table can hold.
    fn plan_window(&self, raw: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>, DataFusionError> {
        if !["row_number", "rank", "dense_rank", "ntile"].contains(&raw.func_def.name()) {
            return Ok(PlannerResult::Original(raw));
        }
        let RawWindowExpr { func_def, args, partition_by, order_by, window_frame, filter, null_treatment, distinct } =
            raw;
        let params =
            WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct };
        let rank = Expr::from(WindowFunction { fun: func_def, params });
        Ok(PlannerResult::Planned(cast(rank, DataType::Int64)))
    }

    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>, DataFusionError> {
        if !matches!(raw.op, BinaryOperator::Divide) {
            return Ok(PlannerResult::Original(raw));
        }
        let integers = [&raw.left, &raw.right].iter().all(|e| e.get_type(schema).is_ok_and(|t| t.is_integer()));
        if !integers {
            return Ok(PlannerResult::Original(raw));
        }
        match self.dialect {
            Dialect::DuckDb | Dialect::Spark | Dialect::Databricks => {
                Ok(PlannerResult::Planned(cast(raw.left, DataType::Float64) / cast(raw.right, DataType::Float64)))
            }
            // Six digits behind the point.
            Dialect::Snowflake => Ok(PlannerResult::Planned(cast(
                cast(raw.left, DataType::Decimal128(26, 6)) / cast(raw.right, DataType::Decimal128(20, 0)),
                DataType::Decimal128(38, 6),
            ))),
            Dialect::DataFusion | Dialect::Postgres => {
                // A literal divisor says that whole numbers are meant: `micros / 1000000`.
                let literal = |e: &Expr| matches!(e, Expr::Literal(..));
                if !literal(&raw.left) && !literal(&raw.right) {
                    self.seen.lock().truncating_division = true;
                }
                Ok(PlannerResult::Original(raw))
            }
        }
    }
}
