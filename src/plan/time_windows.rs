//! `FROM tumble(T, ts, size)`, `hop(T, ts, slide, size)` and `session(T, ts, gap, key…)`: T with the columns window_start and window_end.
//!
//! They are replaced in the parsed query by the SELECT they stand for, so names, types and incremental rules are those of SQL: tumble
//! is a projection, hop a projection and an UNNEST of the windows of each row, session two window functions (`functions::sessions`), which
//! lowering makes one node of. Arguments keep their places. T may be a relation, a common table expression or a subquery in parentheses; a row without a time lies in no window.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Query, Spanned, TableAlias, TableFactor,
    TableFunctionArgs, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use std::ops::ControlFlow;

use super::fault::{Fault, Place};
use super::parse::place;
use crate::functions::{SESSION_END, SESSION_TIME, SESSION_WINDOW_END, SESSION_WINDOW_START};

/// The names of the functions.
pub(super) const FUNCTIONS: [&str; 3] = ["tumble", "hop", "session"];

/// Replaces them in a parsed query.
pub(super) fn expand(query: &mut Query) -> Result<(), Fault> {
    match VisitMut::visit(query, &mut Expand) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(fault) => Err(fault),
    }
}

struct Expand;

impl VisitorMut for Expand {
    type Break = Fault;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Fault> {
        let TableFactor::Table { name, alias, args: Some(args), .. } = factor else { return ControlFlow::Continue(()) };
        let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        if !FUNCTIONS.iter().any(|f| function.value.eq_ignore_ascii_case(f)) {
            return ControlFlow::Continue(());
        }
        match windowed(function, args, alias.as_ref()) {
            Ok(derived) => *factor = derived,
            Err(fault) => return ControlFlow::Break(fault),
        }
        ControlFlow::Continue(())
    }
}

/// What a call stands for.
fn windowed(function: &Ident, args: &TableFunctionArgs, alias: Option<&TableAlias>) -> Result<TableFactor, Fault> {
    let name = function.value.to_lowercase();
    let at = place(function.span);
    let mut exprs = Vec::new();
    for argument in &args.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr.clone()),
            other => {
                let fault = Fault::new("window-arguments", format!("`{other}` is no argument of {name}"));
                return Err(fault.at(place(other.span()).or(at)).hint(usage(&name)));
            }
        }
    }
    let fits = match name.as_str() {
        "tumble" => (3..=4).contains(&exprs.len()),
        "hop" => (4..=5).contains(&exprs.len()),
        _ => exprs.len() >= 3,
    };
    if !fits {
        let message = format!("{name} has {} argument{}", exprs.len(), if exprs.len() == 1 { "" } else { "s" });
        return Err(Fault::new("window-arguments", message).at(at).hint(usage(&name)));
    }
    let relation = relation(&name, &exprs[0], at)?;
    // Columns of T may be written with its name inside the arguments, and outside.
    let known_as = match &relation {
        TableFactor::Table { name, .. } => name.0.last().and_then(|p| p.as_ident()).cloned(),
        _ => None,
    };
    let known_as = known_as.unwrap_or_else(|| Ident::new("windowed"));
    let inner = match relation {
        TableFactor::Derived { lateral, subquery, sample, .. } => {
            let alias = Some(alias_of(known_as.clone()));
            TableFactor::Derived { lateral, subquery, alias, sample }
        }
        table => table,
    };
    let subquery = template(&name, exprs.len()).and_then(|template| {
        let mut query = parse(&template)?;
        let mut fill = Fill { arguments: &exprs[1..], relation: &inner, known_as: &known_as };
        let _ = VisitMut::visit(&mut query, &mut fill);
        Some(query)
    });
    let subquery =
        subquery.ok_or_else(|| Fault::new("window-arguments", format!("{name} cannot be expanded")).at(at))?;
    let alias = alias.cloned().unwrap_or_else(|| alias_of(known_as));
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias: Some(alias), sample: None })
}

/// The first argument as something to select from.
fn relation(function: &str, argument: &Expr, at: Option<Place>) -> Result<TableFactor, Fault> {
    let words = match argument {
        Expr::Identifier(word) => vec![word.clone()],
        Expr::CompoundIdentifier(words) => words.clone(),
        Expr::Subquery(subquery) => {
            return Ok(TableFactor::Derived { lateral: false, subquery: subquery.clone(), alias: None, sample: None });
        }
        other => {
            let fault = Fault::new("window-arguments", format!("the first argument of {function} is a relation"));
            return Err(fault.at(place(other.span()).or(at)).hint(usage(function)));
        }
    };
    Ok(TableFactor::Table {
        name: ObjectName(words.into_iter().map(ObjectNamePart::Identifier).collect()),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}

fn usage(function: &str) -> &'static str {
    match function {
        "tumble" => "write: from tumble(relation, time_column, interval '5 minutes' [, offset interval])",
        "hop" => "write: from hop(relation, time_column, slide interval, size interval [, offset interval])",
        _ => "write: from session(relation, time_column, gap interval [, key columns])",
    }
}

/// The SELECT, over the relation `t` (called `t` in every level), with the arguments behind the first as `$1` and so on.
fn template(function: &str, arguments: usize) -> Option<String> {
    let offset = |n: usize| if arguments > n { format!(", ${n}") } else { String::new() };
    Some(match function {
        "tumble" => format!(
            "SELECT *, window_end(window_start, $2) AS window_end \
             FROM (SELECT *, tumble_start($1, $2{}) AS window_start FROM t WHERE $1 IS NOT NULL) AS t",
            offset(3)
        ),
        "hop" => format!(
            "SELECT *, window_end(window_start, $3) AS window_end \
             FROM (SELECT *, unnest(hop_starts($1, $2, $3{})) AS window_start FROM t) AS t",
            offset(4)
        ),
        "session" => {
            let keys: Vec<String> = (3..arguments).map(|n| format!("${n}")).collect();
            let by = if keys.is_empty() { String::new() } else { format!("PARTITION BY {} ", keys.join(", ")) };
            format!(
                "SELECT * EXCLUDE (__time, __end), \
                 {SESSION_WINDOW_START}(__time, __end) OVER ({by}ORDER BY __time) AS window_start, \
                 {SESSION_WINDOW_END}(__time, __end) OVER ({by}ORDER BY __time) AS window_end \
                 FROM (SELECT *, {SESSION_TIME}($1) AS __time, {SESSION_END}($1, $2) AS __end FROM t) AS t \
                 WHERE __time IS NOT NULL"
            )
        }
        _ => return None,
    })
}

/// Without places: those are the model's alone.
fn parse(text: &str) -> Option<Query> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().ok()?;
    Some(*Parser::new(&GenericDialect {}).with_tokens(tokens).parse_query().ok()?)
}

fn alias_of(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: vec![], at: None }
}

struct Fill<'a> {
    arguments: &'a [Expr],
    relation: &'a TableFactor,
    known_as: &'a Ident,
}

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { .. } => *factor = self.relation.clone(),
            TableFactor::Derived { alias: Some(alias), .. }
                if alias.name.span.start.line == 0 && alias.name.value == "t" =>
            {
                alias.name = self.known_as.clone();
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let number = match expr {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(number) => number.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()),
                _ => None,
            },
            _ => None,
        };
        if let Some(argument) = number.and_then(|n| self.arguments.get(n.wrapping_sub(1))) {
            *expr = argument.clone();
        }
        ControlFlow::Continue(())
    }
}
