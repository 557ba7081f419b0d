//! Spark's and Snowflake's ways to make a row of each element of a list, read as UNNEST.
//!
//! | written | read as |
//! |---|---|
//! | `select explode(x)`, `explode_outer(x)` | `unnest(x)`, a NULL where x has no element |
//! | `select posexplode(x)` | two columns, `pos` from 0 and `col` |
//! | `from t lateral view [outer] explode(x) v as a` | `from t cross join unnest(x) as v(a)`, `left join … on true` |
//! | `from t, lateral flatten(input => x) f` | `from t cross join unnest(x) as f(value)` |

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, LateralView, ObjectName, Select, SelectItem, TableAlias, TableAliasColumnDef, TableFactor, Value,
};

use super::json_access::call;

/// A call that makes rows.
struct Explode {
    list: Expr,
    /// With the place of each element.
    places: bool,
    /// A row also where there is no element.
    outer: bool,
}

fn one_word(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
        _ => None,
    }
}

fn explode(expr: &Expr) -> Option<Explode> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() else { return None };
    let (places, outer) = match one_word(&function.name)?.as_str() {
        "explode" => (false, false),
        "explode_outer" => (false, true),
        "posexplode" => (true, false),
        "posexplode_outer" => (true, true),
        _ => return None,
    };
    Some(Explode { list: argument.clone(), places, outer })
}

fn number(n: u8) -> Expr {
    Expr::value(Value::Number(n.to_string(), false))
}

/// The places of a list's elements, as a list.
fn places(list: &Expr) -> Expr {
    let length = call("coalesce", vec![call("array_length", vec![list.clone()]), number(0)]);
    call(
        "range",
        vec![number(0), call("arrow_cast", vec![length, Expr::value(Value::SingleQuotedString("Int64".into()))])],
    )
}

/// The list, or one NULL where it has no element.
fn outer(list: Expr) -> Expr {
    let null = call("make_array", vec![Expr::value(Value::Null)]);
    let filled = Expr::BinaryOp {
        left: Box::new(call("coalesce", vec![call("array_length", vec![list.clone()]), number(0)])),
        op: BinaryOperator::Gt,
        right: Box::new(number(0)),
    };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: filled, result: list }],
        else_result: Some(Box::new(null)),
    }
}

/// Rewrites a SELECT of Spark's.
pub(crate) fn rewrite(select: &mut Select) {
    let mut projection = Vec::with_capacity(select.projection.len());
    for item in std::mem::take(&mut select.projection) {
        let (found, names) = match &item {
            SelectItem::UnnamedExpr(expr) => (explode(expr), vec![]),
            SelectItem::ExprWithAlias { expr, alias } => (explode(expr), vec![alias.clone()]),
            SelectItem::ExprWithAliases { expr, aliases } => (explode(expr), aliases.clone()),
            _ => (None, vec![]),
        };
        match found.and_then(|found| items(found, &names)) {
            Some(items) => projection.extend(items),
            None => projection.push(item),
        }
    }
    select.projection = projection;
    let views = std::mem::take(&mut select.lateral_views);
    for view in views {
        match (select.from.last_mut(), join(&view)) {
            (Some(from), Some(join)) => from.joins.push(join),
            _ => select.lateral_views.push(view),
        }
    }
}

/// The columns of a call in the SELECT list.
fn items(found: Explode, names: &[Ident]) -> Option<Vec<SelectItem>> {
    let names: Vec<Ident> = match (found.places, names) {
        (false, []) => vec![Ident::new("col")],
        (true, []) => vec![Ident::new("pos"), Ident::new("col")],
        (false, [_]) | (true, [_, _]) => names.to_vec(),
        _ => return None,
    };
    let places = found.places.then(|| places(&found.list));
    let list = if found.outer { outer(found.list) } else { found.list };
    let item = |(list, alias)| SelectItem::ExprWithAlias { expr: call("unnest", vec![list]), alias };
    Some(places.into_iter().chain([list]).zip(names).map(item).collect())
}

/// The join that a LATERAL VIEW is.
fn join(view: &LateralView) -> Option<Join> {
    let found = explode(&view.lateral_view)?;
    let names: Vec<Ident> = match (found.places, view.lateral_col_alias.as_slice()) {
        (false, []) => vec![Ident::new("col")],
        (true, []) => vec![Ident::new("pos"), Ident::new("col")],
        (false, [_]) | (true, [_, _]) => view.lateral_col_alias.clone(),
        _ => return None,
    };
    let name = view.lateral_view_name.0.last()?.as_ident()?.clone();
    let lists = found.places.then(|| places(&found.list)).into_iter().chain([found.list.clone()]).collect();
    let left = found.outer || view.outer;
    Some(Join {
        relation: unnest(lists, alias(name, names)),
        global: false,
        join_operator: if left {
            JoinOperator::LeftOuter(JoinConstraint::On(Expr::value(Value::Boolean(true))))
        } else {
            JoinOperator::CrossJoin(JoinConstraint::None)
        },
    })
}

fn alias(name: Ident, columns: Vec<Ident>) -> TableAlias {
    let columns = columns.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
    TableAlias { explicit: true, name, columns, at: None }
}

fn unnest(array_exprs: Vec<Expr>, alias: TableAlias) -> TableFactor {
    TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// Snowflake's `lateral flatten(input => x) f`.
pub(crate) fn flatten(factor: &mut TableFactor) {
    let TableFactor::Function { name, args, alias: written, with_ordinality: false, .. } = factor else { return };
    if one_word(name).as_deref() != Some("flatten") {
        return;
    }
    let list = match args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))] => list.clone(),
        [FunctionArg::Named { name, arg: FunctionArgExpr::Expr(list), .. }]
            if name.value.eq_ignore_ascii_case("input") =>
        {
            list.clone()
        }
        _ => return,
    };
    let name = written.as_ref().map_or_else(|| Ident::new("flatten"), |alias| alias.name.clone());
    *factor = unnest(vec![list], alias(name, vec![Ident::new("value")]));
}
