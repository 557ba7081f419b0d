//! What a dialect calls differently: its functions, written as the SQL that the engine has.
//!
//! A call is replaced in the parsed query, before anything is planned, so types, NULLs and incremental rules are those of
//! the SQL it stands for. The table is docs/dialects.md's; each row there is a test. Arguments keep their places.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Select, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

use super::spelling_spark::{self, SPARK, SPARK_NAMES};
use super::{explode, json_access, named_arguments};
use crate::project::Dialect;

/// (function, number of arguments, what it stands for).
const SNOWFLAKE: &[(&str, usize, &str)] = &[
    ("iff", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("zeroifnull", 1, "coalesce($1, 0)"),
    ("nullifzero", 1, "nullif($1, 0)"),
    ("div0", 2, "CASE WHEN $2 = 0 THEN 0 ELSE $1 / $2 END"),
    ("div0null", 2, "CASE WHEN $2 = 0 OR $2 IS NULL THEN 0 ELSE $1 / $2 END"),
    ("equal_null", 2, "$1 IS NOT DISTINCT FROM $2"),
    ("array_size", 1, "CAST(array_length($1) AS BIGINT)"),
    ("len", 1, "length($1)"),
    ("charindex", 2, "strpos($2, $1)"),
    ("position", 2, "strpos($2, $1)"),
    ("startswith", 2, "starts_with($1, $2)"),
    ("endswith", 2, "ends_with($1, $2)"),
    ("editdistance", 2, "levenshtein($1, $2)"),
    ("square", 1, "($1) * ($1)"),
    ("truncate", 1, "trunc($1)"),
    ("truncate", 2, "trunc($1, $2)"),
    ("to_number", 1, "CAST($1 AS DECIMAL(38, 0))"),
    ("to_decimal", 1, "CAST($1 AS DECIMAL(38, 0))"),
    ("to_numeric", 1, "CAST($1 AS DECIMAL(38, 0))"),
    ("try_to_number", 1, "TRY_CAST($1 AS DECIMAL(38, 0))"),
    ("try_to_decimal", 1, "TRY_CAST($1 AS DECIMAL(38, 0))"),
    ("to_double", 1, "CAST($1 AS DOUBLE)"),
    ("try_to_double", 1, "TRY_CAST($1 AS DOUBLE)"),
    ("to_boolean", 1, "CAST($1 AS BOOLEAN)"),
    ("try_to_boolean", 1, "TRY_CAST($1 AS BOOLEAN)"),
    ("to_char", 1, "CAST($1 AS VARCHAR)"),
    ("to_varchar", 1, "CAST($1 AS VARCHAR)"),
    ("to_timestamp_ntz", 1, "to_timestamp($1)"),
    ("to_timestamp_ntz", 2, "to_timestamp($1, $2)"),
    ("to_timestamp_tz", 1, "to_timestamp($1)"),
    ("to_timestamp_tz", 2, "to_timestamp($1, $2)"),
    ("to_timestamp_ltz", 1, "to_timestamp($1)"),
    ("to_timestamp_ltz", 2, "to_timestamp($1, $2)"),
    ("date_from_parts", 3, "make_date($1, $2, $3)"),
    ("datefromparts", 3, "make_date($1, $2, $3)"),
    ("year", 1, "date_part('year', $1)"),
    ("quarter", 1, "date_part('quarter', $1)"),
    ("month", 1, "date_part('month', $1)"),
    ("week", 1, "date_part('week', $1)"),
    ("weekofyear", 1, "date_part('week', $1)"),
    ("day", 1, "date_part('day', $1)"),
    ("dayofmonth", 1, "date_part('day', $1)"),
    ("dayofweek", 1, "date_part('dow', $1)"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("hour", 1, "date_part('hour', $1)"),
    ("minute", 1, "date_part('minute', $1)"),
    ("second", 1, "CAST(floor(date_part('second', $1)) AS BIGINT)"),
    ("monthname", 1, "to_char($1, 'MON')"),
    ("dayname", 1, "to_char($1, 'DY')"),
    ("getdate", 0, "now()"),
    ("sysdate", 0, "now()"),
    ("count_if", 1, "count(CASE WHEN $1 THEN 1 END)"),
    ("md5_hex", 1, "md5($1)"),
    ("regexp_count", 2, "regexp_count($1, $2)"),
    ("rlike", 2, "regexp_like($1, concat('^(', $2, ')$'))"),
];

/// What every dialect has: (function, number of arguments, what it stands for).
const EVERYWHERE: &[(&str, usize, &str)] = &[
    ("mod", 2, "$1 % $2"),
    (
        "width_bucket",
        4,
        "CASE WHEN $1 < $2 THEN 0 WHEN $1 >= $3 THEN $4 + 1 \
         ELSE CAST(floor((CAST($1 AS DOUBLE) - $2) * $4 / ($3 - $2)) AS BIGINT) + 1 END",
    ),
];

/// Functions that only have another name: everything behind it (DISTINCT, FILTER, OVER, ORDER BY) stays.
const SNOWFLAKE_NAMES: &[(&str, &str)] = &[
    ("listagg", "string_agg"),
    ("boolor_agg", "bool_or"),
    ("booland_agg", "bool_and"),
    ("any_value", "min"),
    ("approx_count_distinct", "approx_distinct"),
    ("timestampadd", "dateadd"),
    ("timeadd", "dateadd"),
    ("timestampdiff", "datediff"),
    ("timediff", "datediff"),
];

/// Functions whose first argument may be a bare unit, `dateadd(day, 1, x)`; the position of the unit.
const UNIT_ARGUMENT: &[(&str, usize)] = &[
    ("dateadd", 0),
    ("datediff", 0),
    ("timestampadd", 0),
    ("timeadd", 0),
    ("timestampdiff", 0),
    ("timediff", 0),
    ("date_trunc", 0),
    ("date_part", 0),
    ("last_day", 1),
];

/// Replaces the dialect's spellings in a parsed query.
pub(crate) fn translate(parsed: &mut impl VisitMut, dialect: Dialect) {
    let wanted = if dialect == Dialect::Snowflake { explode::wanted(parsed) } else { Vec::new() };
    let _ = VisitMut::visit(parsed, &mut Translate { dialect, wanted });
}

struct Translate {
    dialect: Dialect,
    /// Columns of `flatten` that are made where they are asked for.
    wanted: Vec<&'static str>,
}

impl VisitorMut for Translate {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if matches!(self.dialect, Dialect::Spark | Dialect::Databricks) {
            explode::rewrite(select);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if self.dialect == Dialect::Snowflake {
            explode::flatten(factor, &self.wanted);
        }
        explode::ordinality(factor);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(replaced) = json_access::read(expr, self.dialect) {
            *expr = replaced;
        }
        if let Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: operand } = expr
            && matches!(self.dialect, Dialect::Spark | Dialect::Databricks)
        {
            *expr = json_access::call("bitwise_not", vec![operand.as_ref().clone()]);
        }
        if let Expr::Function(function) = expr {
            named_arguments::compare(function);
            quote_unit(function);
            let replaced = match self.dialect {
                Dialect::Snowflake => snowflake(function).or_else(|| everywhere(function)),
                Dialect::Spark | Dialect::Databricks => spark(function).or_else(|| everywhere(function)),
                _ => everywhere(function),
            };
            if let Some(replaced) = replaced {
                *expr = replaced;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The unqualified name of a function, in lower case.
fn name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

/// `dateadd(day, …)`: the unit becomes a text.
fn quote_unit(function: &mut Function) {
    let Some(name) = name(function) else { return };
    let Some((_, position)) = UNIT_ARGUMENT.iter().find(|(n, _)| *n == name) else { return };
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.get_mut(*position)
        && let Expr::Identifier(ident) = argument
        && ident.quote_style.is_none()
        && crate::functions::is_unit(&ident.value)
    {
        *argument = Expr::value(Value::SingleQuotedString(ident.value.to_lowercase()));
    }
}

/// The arguments of a plain call: with DISTINCT, FILTER or OVER it is left alone, because what they would apply to is not a call any more.
fn plain_arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if function.over.is_some() || function.filter.is_some() || list.duplicate_treatment.is_some() {
        return None;
    }
    let expr = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(expr).collect()
}

fn everywhere(function: &Function) -> Option<Expr> {
    let name = name(function)?;
    let arguments = plain_arguments(function)?;
    let (_, _, template) = EVERYWHERE.iter().find(|(n, count, _)| *n == name && *count == arguments.len())?;
    fill(template, &arguments)
}

fn snowflake(function: &mut Function) -> Option<Expr> {
    let name = name(function)?;
    if let Some((_, other)) = SNOWFLAKE_NAMES.iter().find(|(n, _)| *n == name) {
        rename(function, other);
    }
    if matches!(&*name, "listagg" | "array_agg") {
        order_within(function, name == "listagg");
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    if name == "count_if"
        && (function.over.is_some() || function.filter.is_some())
        && list.duplicate_treatment.is_none()
    {
        return count_if(function);
    }
    let arguments = plain_arguments(function)?;
    match (&*name, arguments.len()) {
        // NULL if any is: DataFusion's leaves NULLs out.
        ("concat", 2..) => {
            return fill(&places(arguments.len(), " || "), &arguments);
        }
        ("decode", 3..) => return fill(&decode(arguments.len()), &arguments),
        ("array_construct", _) => return Some(json_access::call("make_array", arguments)),
        ("object_construct" | "object_construct_keep_null", _) => {
            let places = arguments.into_iter().enumerate();
            let members = places.map(|(i, argument)| if i % 2 == 1 { json_access::raw(argument) } else { argument });
            return Some(json_access::call(&name, members.collect()));
        }
        ("to_json", 1) => {
            return Some(json_access::call("to_json", arguments.into_iter().map(json_access::raw).collect()));
        }
        ("to_number" | "to_decimal" | "to_numeric" | "try_to_number" | "try_to_decimal", 2 | 3) => {
            let digits = |i: usize| arguments.get(i).map(ToString::to_string).unwrap_or_else(|| "0".to_string());
            let cast = if name.starts_with("try") { "TRY_CAST" } else { "CAST" };
            return fill(&format!("{cast}($1 AS DECIMAL({}, {}))", digits(1), digits(2)), &arguments);
        }
        _ => {}
    }
    let (_, _, template) = SNOWFLAKE.iter().find(|(n, count, _)| *n == name && *count == arguments.len())?;
    fill(template, &arguments)
}

fn spark(function: &mut Function) -> Option<Expr> {
    let name = name(function)?;
    if let Some((_, other)) = SPARK_NAMES.iter().find(|(n, _)| *n == name) {
        rename(function, other);
        return None;
    }
    let arguments = plain_arguments(function)?;
    if let Some(replaced) = spelling_spark::rewritten(&name, &arguments) {
        return Some(replaced);
    }
    let (_, _, template) = SPARK.iter().find(|(n, count, _)| *n == name && *count == arguments.len())?;
    fill(template, &arguments)
}

/// `$1 || $2 || …`
pub(crate) fn places(count: usize, between: &str) -> String {
    (1..=count).map(|i| format!("${i}")).collect::<Vec<_>>().join(between)
}

/// `count_if(x) OVER (…)`, `count_if(x) FILTER (…)`.
fn count_if(function: &mut Function) -> Option<Expr> {
    rename(function, "count");
    if let FunctionArguments::List(list) = &mut function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(condition))] = list.args.as_mut_slice()
        && let Some(case) = fill("CASE WHEN $1 THEN 1 END", std::slice::from_ref(condition))
    {
        *condition = case;
    }
    None
}

fn rename(function: &mut Function, to: &str) {
    function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(to))]);
}

/// `decode(x, a, 1, b, 2, 3)`: NULL equals NULL; the last of an even number is what else.
fn decode(count: usize) -> String {
    let mut case = String::from("CASE");
    let mut i = 2;
    while i < count {
        case.push_str(&format!(" WHEN $1 IS NOT DISTINCT FROM ${i} THEN ${}", i + 1));
        i += 2;
    }
    if i == count {
        case.push_str(&format!(" ELSE ${i}"));
    }
    case + " END"
}

/// `listagg(x, ',') WITHIN GROUP (ORDER BY y)` is `string_agg(x, ',' ORDER BY y)`; without a separator it is empty.
fn order_within(function: &mut Function, separated: bool) {
    let order = std::mem::take(&mut function.within_group);
    let FunctionArguments::List(list) = &mut function.args else { return };
    if separated && list.args.len() == 1 {
        let empty = Expr::value(Value::SingleQuotedString(String::new()));
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(empty)));
    }
    if !order.is_empty() {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
}

/// The expression of a template, `$1` and so on being the arguments.
pub(crate) fn fill(template: &str, arguments: &[Expr]) -> Option<Expr> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(template).ok()?;
    let mut expr = parser.parse_expr().ok()?;
    let _ = VisitMut::visit(&mut expr, &mut Fill(arguments));
    // What stood between parentheses of a call keeps together among operators.
    Some(match expr {
        Expr::BinaryOp { .. } | Expr::IsNotDistinctFrom(..) => Expr::Nested(Box::new(expr)),
        other => other,
    })
}

/// Puts arguments in the places of `$1`, `$2`, ….
pub(crate) struct Fill<'a>(pub &'a [Expr]);

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let place = match expr {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(place) => place.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()),
                _ => None,
            },
            _ => None,
        };
        if let Some(argument) = place.and_then(|n| self.0.get(n.wrapping_sub(1))) {
            *expr = match argument {
                Expr::BinaryOp { .. } | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::UnaryOp { .. } => {
                    Expr::Nested(Box::new(argument.clone()))
                }
                other => other.clone(),
            };
        }
        ControlFlow::Continue(())
    }
}
