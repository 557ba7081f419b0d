//! Joins of which it is known which rows are partners: the rows of an outer join are those, and the rows of a side that are not among them, with NULLs.
//!
//! Rows of a side that agree in the columns that decide have a partner or have none together, so these columns say which are missing.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema, JoinConstraint, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, build_join_schema};
use std::sync::Arc;

use super::lateral::is_volatile;
use super::lower::columns_of;

/// The join of this type of `left` and `right`, whose inner join is `pairs`: the columns of both. `keys` decide, of each side, who has a partner. None where rows
/// cannot be compared, or would not be the same when they are computed twice.
pub(super) fn join(
    join_type: JoinType,
    left: &Arc<LogicalPlan>,
    right: &Arc<LogicalPlan>,
    pairs: LogicalPlan,
    keys: (Vec<Column>, Vec<Column>),
) -> Result<Option<LogicalPlan>, DataFusionError> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
    if join_type == Inner {
        return Ok(Some(pairs));
    }
    if is_volatile(&pairs)? {
        return Ok(None);
    }
    let (of_left, of_right) = (Side { rows: left, keys: &keys.0 }, Side { rows: right, keys: &keys.1 });
    let schema = build_join_schema(left.schema(), right.schema(), &join_type)?;
    let nulls = |of: &LogicalPlan| -> Result<Vec<Expr>, DataFusionError> {
        let fields = of.schema().fields().iter();
        fields.map(|f| Ok(Expr::Literal(ScalarValue::try_from(f.data_type())?, None))).collect()
    };
    let mut parts = vec![(pairs.clone(), columns_of(pairs.schema()))];
    match join_type {
        LeftSemi => return of_left.joined(JoinType::LeftSemi, &pairs),
        LeftAnti => return of_left.joined(JoinType::LeftAnti, &pairs),
        RightSemi => return of_right.joined(JoinType::LeftSemi, &pairs),
        RightAnti => return of_right.joined(JoinType::LeftAnti, &pairs),
        Left | Right | Full => {}
        _ => return Ok(None),
    }
    if matches!(join_type, Left | Full) {
        let Some(absent) = of_left.joined(JoinType::LeftAnti, &pairs)? else { return Ok(None) };
        parts.push((absent, columns_of(left.schema()).into_iter().chain(nulls(right)?).collect()));
    }
    if matches!(join_type, Right | Full) {
        let Some(absent) = of_right.joined(JoinType::LeftAnti, &pairs)? else { return Ok(None) };
        parts.push((absent, nulls(left)?.into_iter().chain(columns_of(right.schema())).collect()));
    }
    together(parts, &schema).map(Some)
}

/// The rows of all of them, with these columns, called as in `schema`.
fn together(parts: Vec<(LogicalPlan, Vec<Expr>)>, schema: &DFSchema) -> Result<LogicalPlan, DataFusionError> {
    let name = |i: usize| format!("__partner_{i}");
    let mut all: Option<LogicalPlanBuilder> = None;
    for (plan, columns) in parts {
        let columns = columns.into_iter().enumerate().map(|(i, column)| column.alias(name(i)));
        let plan = LogicalPlanBuilder::from(plan).project(columns)?;
        all = Some(match all {
            Some(all) => all.union(plan.build()?)?,
            None => plan,
        });
    }
    let named = schema.iter().enumerate().map(|(i, (qualifier, field))| {
        Expr::Column(Column::from_name(name(i))).alias_qualified(qualifier.cloned(), field.name())
    });
    all.unwrap_or_else(|| LogicalPlanBuilder::empty(false)).project(named)?.build()
}

/// The columns of `plan` at `places`, called as in `schema`.
pub(super) fn called(
    schema: &DFSchema,
    plan: LogicalPlan,
    places: impl IntoIterator<Item = usize>,
) -> Result<LogicalPlan, DataFusionError> {
    let columns = columns_of(plan.schema());
    let named = schema.iter().zip(places).map(|((to, named), place)| {
        let (q, f) = plan.schema().qualified_field(place);
        let column = columns[place].clone();
        if q == to && f.name() == named.name() { column } else { column.alias_qualified(to.cloned(), named.name()) }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(plan))?))
}

struct Side<'a> {
    rows: &'a Arc<LogicalPlan>,
    keys: &'a [Column],
}

impl Side<'_> {
    /// Those of its rows that are among `pairs`, or those that are not.
    fn joined(&self, join_type: JoinType, pairs: &LogicalPlan) -> Result<Option<LogicalPlan>, DataFusionError> {
        let schema = self.rows.schema();
        let map = |c: &Column| schema.field_from_column(c).map(|f| matches!(f.data_type(), DataType::Map(..)));
        if self.keys.iter().any(|key| map(key).unwrap_or(true)) {
            return Ok(None);
        }
        let key_name = |i: usize| format!("__partner_key_{i}");
        let found = self.keys.iter().enumerate().map(|(i, key)| Expr::Column(key.clone()).alias(key_name(i)));
        let found = LogicalPlanBuilder::from(pairs.clone()).project(found)?.build()?;
        let on = self
            .keys
            .iter()
            .enumerate()
            .map(|(i, key)| (Expr::Column(key.clone()), Expr::Column(Column::from_name(key_name(i)))));
        Ok(Some(LogicalPlan::Join(Join::try_new(
            Arc::clone(self.rows),
            Arc::new(found),
            on.collect(),
            None,
            join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )?)))
    }
}
