//! Ways to make a row of each element of something, read as UNNEST: Spark's, Snowflake's, and the standard's WITH ORDINALITY.
//!
//! | written | read as |
//! |---|---|
//! | `select explode(x)`, `explode_outer(x)` | `unnest(x)`, a NULL where x has no element |
//! | `select explode(x) as (k, v)`: two names, so x is a MAP | `unnest(map_keys(x)) as k, unnest(map_values(x)) as v` |
//! | `select posexplode(x)` | a column more before it, `pos` from 0 |
//! | `from t lateral view [outer] explode(x) v as a` | `from t cross join unnest(x) as v(a)`, `left join … on true` |
//! | `inline(x)` with names for the fields | `lateral (select unnest(r) from unnest(x) as i(r))` |
//! | `json_tuple(x, 'a', 'b')` | `json_get(x, 'a')`, `json_get(x, 'b')` |
//! | `from t, lateral flatten(input => x) f` | `from t cross join unnest(flatten_values(x), …) as f(value, index, key)` |
//! | `unnest(x) with ordinality as u(a, n)` | `unnest(x, range(1, …)) as u(a, n)` |

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, LateralView, ObjectName, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, Value, VisitMut, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

use super::json_access::call;
use super::spelling::Fill;

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

/// The arguments of a call of `name`.
fn arguments_of(expr: &Expr, name: &str) -> Option<Vec<Expr>> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    (one_word(&function.name)? == name).then(|| list.args.iter().map(argument).collect())?
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
    filled(&list.clone(), list, Expr::value(Value::Null))
}

/// `list`, or `alone` as its only element where `counted` has none.
fn filled(counted: &Expr, list: Expr, alone: Expr) -> Expr {
    let alone = call("make_array", vec![alone]);
    let filled = Expr::BinaryOp {
        left: Box::new(call("coalesce", vec![call("array_length", vec![counted.clone()]), number(0)])),
        op: BinaryOperator::Gt,
        right: Box::new(number(0)),
    };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: filled, result: list }],
        else_result: Some(Box::new(alone)),
    }
}

/// Rewrites a SELECT of Spark's.
pub(crate) fn rewrite(select: &mut Select) {
    let mut projection = Vec::with_capacity(select.projection.len());
    for item in std::mem::take(&mut select.projection) {
        let (expr, names) = match &item {
            SelectItem::UnnamedExpr(expr) => (Some(expr), vec![]),
            SelectItem::ExprWithAlias { expr, alias } => (Some(expr), vec![alias.clone()]),
            SelectItem::ExprWithAliases { expr, aliases } => (Some(expr), aliases.clone()),
            _ => (None, vec![]),
        };
        let several = expr.and_then(|expr| {
            explode(expr)
                .and_then(|found| items(found, &names))
                .or_else(|| tuple(expr, &names))
                .or_else(|| inlined(expr, &names, select))
        });
        match several {
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

/// What is unfolded side by side, and its columns' names: places, then the elements, or keys and values. As many names as given say which.
fn columns(found: &Explode, names: &[Ident]) -> Option<(Vec<Expr>, Vec<Ident>)> {
    let placed = usize::from(found.places);
    let is_map = names.len() == placed + 2;
    let names = match names.len() {
        0 => ["pos", "col"].iter().skip(1 - placed).map(|name| Ident::new(*name)).collect(),
        given if is_map || given == placed + 1 => names.to_vec(),
        _ => return None,
    };
    let of_map = |part| call(part, vec![found.list.clone()]);
    let mut lists = if is_map { vec![of_map("map_keys"), of_map("map_values")] } else { vec![found.list.clone()] };
    if found.places {
        lists.insert(0, places(&lists[0]));
    }
    Some((lists, names))
}

/// The columns of a call in the SELECT list.
fn items(found: Explode, names: &[Ident]) -> Option<Vec<SelectItem>> {
    let (mut lists, names) = columns(&found, names)?;
    if found.outer
        && let Some(last) = lists.pop()
    {
        lists.push(outer(last));
    }
    let item = |(list, alias)| SelectItem::ExprWithAlias { expr: call("unnest", vec![list]), alias };
    Some(lists.into_iter().zip(names).map(item).collect())
}

/// `json_tuple(x, 'a', …)` in the SELECT list.
fn tuple(expr: &Expr, names: &[Ident]) -> Option<Vec<SelectItem>> {
    let arguments = arguments_of(expr, "json_tuple")?;
    let (text, keys) = arguments.split_first()?;
    let names = match names {
        [] => (0..keys.len()).map(|i| Ident::new(format!("c{i}"))).collect(),
        names if names.len() == keys.len() => names.to_vec(),
        _ => return None,
    };
    let item = |(key, alias): (&Expr, Ident)| SelectItem::ExprWithAlias {
        expr: call("json_get", vec![text.clone(), key.clone()]),
        alias,
    };
    Some(keys.iter().zip(names).map(item).collect())
}

/// `inline(x) as (a, b)` in the SELECT list: the rows stand beside those of the last relation.
fn inlined(expr: &Expr, names: &[Ident], select: &mut Select) -> Option<Vec<SelectItem>> {
    let (rows, outer) = inline(expr)?;
    if names.is_empty() {
        return None;
    }
    let from = select.from.last_mut()?;
    let relation = Ident::new(format!("__inline_{}", from.joins.len()));
    from.joins.push(joined(INLINE, &[rows], alias(relation.clone(), names.to_vec()), outer)?);
    let item = |name: &Ident| SelectItem::ExprWithAlias {
        expr: Expr::CompoundIdentifier(vec![relation.clone(), name.clone()]),
        alias: name.clone(),
    };
    Some(names.iter().map(item).collect())
}

/// A list of structs whose fields become columns, and whether a row stays where it has none.
fn inline(expr: &Expr) -> Option<(Expr, bool)> {
    let of = |name, outer| arguments_of(expr, name).and_then(|mut a| (a.len() == 1).then(|| (a.remove(0), outer)));
    of("inline", false).or_else(|| of("inline_outer", true))
}

const INLINE: &str = "(select unnest(__row) from unnest($1) as __rows(__row))";

/// `cross join lateral <query> as alias`, or `left join … on true`, with arguments for the query's `$1`, ….
fn joined(query: &str, arguments: &[Expr], alias: TableAlias, outer: bool) -> Option<Join> {
    let sql = match outer {
        false => format!("select 1 from t cross join lateral {query} as v"),
        true => format!("select 1 from t left join lateral {query} as v on true"),
    };
    let Statement::Query(parsed) = Parser::parse_sql(&GenericDialect {}, &sql).ok()?.pop()? else { return None };
    let SetExpr::Select(mut select) = *parsed.body else { return None };
    let mut join = select.from.pop()?.joins.pop()?;
    let _ = VisitMut::visit(&mut join, &mut Fill(arguments));
    if let TableFactor::Derived { alias: named, .. } = &mut join.relation {
        *named = Some(alias);
    }
    Some(join)
}

/// The join that a LATERAL VIEW is.
fn join(view: &LateralView) -> Option<Join> {
    let name = view.lateral_view_name.0.last()?.as_ident()?.clone();
    let given = &view.lateral_col_alias;
    if let Some((rows, outer)) = inline(&view.lateral_view) {
        let named = !given.is_empty();
        return named.then(|| joined(INLINE, &[rows], alias(name, given.clone()), outer || view.outer))?;
    }
    if let Some(arguments) = arguments_of(&view.lateral_view, "json_tuple") {
        let keys: Vec<String> = (2..=arguments.len()).map(|i| format!("json_get($1, ${i}) as c{}", i - 2)).collect();
        let named = given.is_empty() || given.len() == keys.len();
        let names = if given.is_empty() {
            (0..keys.len()).map(|i| Ident::new(format!("c{i}"))).collect()
        } else {
            given.clone()
        };
        let query = format!("(select {})", keys.join(", "));
        return named.then(|| joined(&query, &arguments, alias(name, names), view.outer))?;
    }
    let found = explode(&view.lateral_view)?;
    let (lists, names) = columns(&found, given)?;
    Some(Join {
        relation: unnest(lists, alias(name, names)),
        global: false,
        join_operator: if found.outer || view.outer {
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

/// Snowflake's `lateral flatten(input => x) f` and `table(flatten(…)) f`, with `outer`, `path`, `mode` and `recursive`. `wanted`: columns that cost
/// something, of `path` and `this`, which the query asks for.
pub(crate) fn flatten(factor: &mut TableFactor, wanted: &[&'static str]) {
    let (args, written) = match factor {
        TableFactor::Function { name, args, alias, with_ordinality: false, .. }
            if one_word(name).as_deref() == Some("flatten") =>
        {
            (args.as_slice(), alias)
        }
        TableFactor::TableFunction { expr: Expr::Function(function), alias }
            if one_word(&function.name).as_deref() == Some("flatten") =>
        {
            let FunctionArguments::List(list) = &function.args else { return };
            (list.args.as_slice(), alias)
        }
        _ => return,
    };
    let (mut input, mut path, mut keeps) = (None, String::new(), false);
    let (mut mode, mut recursive) = (MODES[0].to_string(), false);
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if input.is_none() => input = Some(expr.clone()),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                match (name.value.to_lowercase().as_str(), expr) {
                    ("input", expr) => input = Some(expr.clone()),
                    ("outer", Expr::Value(value)) => keeps = value.value == Value::Boolean(true),
                    ("recursive", Expr::Value(value)) => recursive = value.value == Value::Boolean(true),
                    ("path", Expr::Value(value)) => match &value.value {
                        Value::SingleQuotedString(text) => path = text.clone(),
                        _ => return,
                    },
                    ("mode", Expr::Value(value)) => match &value.value {
                        Value::SingleQuotedString(text) if MODES.contains(&&*text.to_lowercase()) => {
                            mode = text.to_lowercase()
                        }
                        _ => return,
                    },
                    _ => return,
                }
            }
            _ => return,
        }
    }
    let Some(mut input) = input else { return };
    let text = |text: String| Expr::value(Value::SingleQuotedString(text));
    if !path.is_empty() {
        input = call("get_json_object", vec![input, text(format!("$.{path}"))]);
    }
    let name = written.as_ref().map_or_else(|| Ident::new("flatten"), |alias| alias.name.clone());
    let part = |part: &str| {
        let mut arguments = vec![input.clone()];
        if mode != MODES[0] || recursive || part == "flatten_paths" {
            arguments.extend([text(mode.clone()), Expr::value(Value::Boolean(recursive)), text(path.clone())]);
        }
        call(part, arguments)
    };
    let values = part("flatten_values");
    let mut lists =
        vec![if keeps { outer(values.clone()) } else { values.clone() }, part("flatten_indexes"), part("flatten_keys")];
    let mut columns = vec![Ident::new("value"), Ident::new("index"), Ident::new("key")];
    for name in wanted {
        // The row that stays where there is nothing has them.
        let (list, alone) = match *name {
            "path" => (part("flatten_paths"), text(path.clone())),
            _ => (part("flatten_this"), input.clone()),
        };
        lists.push(if keeps { filled(&values, list, alone) } else { list });
        columns.push(Ident::new(*name));
    }
    *factor = unnest(lists, alias(name, columns));
}

const MODES: [&str; 3] = ["both", "array", "object"];

/// The columns of `flatten` that cost something, among those a query mentions.
pub(crate) fn wanted(parsed: &mut impl VisitMut) -> Vec<&'static str> {
    let mut found = Vec::new();
    let _ = visit_expressions_mut(parsed, |expr| {
        let last = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last_mut(),
            _ => None,
        };
        for name in ["path", "this"] {
            if last.as_ref().is_some_and(|ident| ident.value.eq_ignore_ascii_case(name)) && !found.contains(&name) {
                found.push(name);
            }
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

/// `unnest(x) with ordinality`: the places from 1, as one list more.
pub(crate) fn ordinality(factor: &mut TableFactor) {
    let TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = factor else { return };
    if !std::mem::take(with_ordinality) {
        return;
    }
    let length = |list: &Expr| call("coalesce", vec![call("array_length", vec![list.clone()]), number(0)]);
    let longest = match array_exprs.as_slice() {
        [one] => length(one),
        several => call("greatest", several.iter().map(length).collect()),
    };
    let int64 = Expr::value(Value::SingleQuotedString("Int64".into()));
    let end = Expr::BinaryOp {
        left: Box::new(call("arrow_cast", vec![longest, int64])),
        op: BinaryOperator::Plus,
        right: Box::new(number(1)),
    };
    if let Some(alias) = alias
        && alias.columns.len() == array_exprs.len()
    {
        alias.columns.push(TableAliasColumnDef { name: Ident::new("ordinality"), data_type: None });
    }
    array_exprs.push(call("range", vec![number(1), end]));
}
