//! What was probably meant: hints for mistakes that a parser or planner names in its own words only.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::fault::Fault;
use super::parse::Sql;
use crate::error::did_you_mean;

/// Types for casts, as most people write them.
const TYPES: [&str; 12] = [
    "INT",
    "BIGINT",
    "SMALLINT",
    "DOUBLE",
    "REAL",
    "DECIMAL",
    "VARCHAR",
    "STRING",
    "BOOLEAN",
    "DATE",
    "TIMESTAMP",
    "INTERVAL",
];

/// Something stands behind what could be a whole query: `next`.
pub(super) fn leftover(sql: &Sql, next: &Token) -> Option<&'static str> {
    if sql.count(Keyword::CASE) > sql.count(Keyword::END) {
        return Some("a CASE needs an END");
    }
    match next {
        Token::Word(w) if w.keyword == Keyword::SELECT => {
            Some("a model is one SELECT: put the next one into a file of its own")
        }
        Token::Word(_) => Some("is a comma or a keyword missing before it?"),
        Token::Period | Token::LParen => Some("is FROM, or a comma, missing before it?"),
        _ => None,
    }
}

/// The hint for a syntax error that says `message`.
pub(super) fn syntax(message: &str) -> Option<&'static str> {
    if message.ends_with("found {") || message.ends_with("found }") {
        Some("Jinja stands in two braces: {{ ref('model') }}")
    } else if message.ends_with("found #") || message.ends_with("found //") {
        Some("a comment begins with --")
    } else if message.starts_with("Unterminated string literal") {
        Some("a quote is not closed; a quote inside text is doubled: 'it''s'")
    } else {
        None
    }
}

/// The fault that DataFusion's `message` means, where its own words do not help.
pub(super) fn planning(message: &str, sql: &Sql) -> Option<Fault> {
    if let Some(name) = message.split("Unsupported SQL type ").nth(1) {
        let name = name.trim().trim_end_matches('.');
        let place = sql.words_ignoring_case(name).first().and_then(|at| sql.place_of(*at));
        let fault = Fault::new("sql-type", format!("unknown type `{name}`")).at(place);
        return Some(match did_you_mean(name, TYPES) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(format!("types: {}", TYPES.join(", "))),
        });
    }
    if let Some(name) =
        ["ref", "source"].into_iter().find(|f| message.contains(&format!("table function '{f}' not found")))
    {
        let fault = Fault::new("sql", format!("`{name}` is a function of Jinja")).at(sql.place_of_call(name));
        return Some(fault.hint(format!("in two braces: {{{{ {name}(…) }}}}")));
    }
    if message.contains("Substring without for/from") {
        let place = sql.place_of_call("substr").or_else(|| sql.place_of_call("substring"));
        return Some(
            Fault::new("type", "`substr` needs a position").at(place).hint("write substr(text, from, length)"),
        );
    }
    if message.contains("Aggregate functions are not allowed in the WHERE clause") {
        let fault = Fault::new("aggregate-in-where", "WHERE looks at single rows, before they are aggregated");
        return Some(
            fault.at(sql.place_of_keyword(Keyword::WHERE)).hint("put the condition into HAVING, behind GROUP BY"),
        );
    }
    if message.contains("queries have different number of columns") {
        let operators = [Keyword::UNION, Keyword::INTERSECT, Keyword::EXCEPT];
        let place = operators.iter().find_map(|keyword| sql.place_of_keyword(*keyword));
        let fault = Fault::new("set-columns", "the queries on both sides have different numbers of columns");
        return Some(fault.at(place).hint("select the same columns; `null as x` stands for one that is missing"));
    }
    if let Some((left, operator, right)) = arithmetic(message) {
        let (left, right) = (sql_name(left), sql_name(right));
        let fault = Fault::new("type", format!("`{operator}` of {left} and {right}"));
        return Some(match operator {
            "+" if left == "STRING" || right == "STRING" => {
                fault.hint("text is joined with ||; or cast the text to a number")
            }
            _ => fault.hint("cast one of them: cast(x as double)"),
        });
    }
    if message.contains("failed to match any signature") {
        return signature(message, sql);
    }
    None
}

/// `Cannot coerce arithmetic expression Utf8 + Int64 to valid types`.
fn arithmetic(message: &str) -> Option<(&str, &str, &str)> {
    let rest = message.split("Cannot coerce arithmetic expression ").nth(1)?.split(" to valid types").next()?;
    let mut words = rest.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(left), Some(operator), Some(right), None) => Some((left, operator, right)),
        _ => None,
    }
}

/// `Function 'sum' failed to match any signature, errors: … requires Int64, but received String (DataType: Utf8).,…`
fn signature(message: &str, sql: &Sql) -> Option<Fault> {
    let name = message.split("Function '").nth(1)?.split('\'').next()?;
    let received = message.split("(DataType: ").nth(1)?.split(')').next()?;
    let mut takes: Vec<String> = Vec::new();
    for part in message.split(" requires ").skip(1) {
        let kind = sql_name(part.split(',').next()?);
        if !takes.contains(&kind) {
            takes.push(kind);
        }
    }
    let fault = Fault::new("type", format!("`{name}` does not take {}", sql_name(received)));
    Some(fault.at(sql.place_of_call(name)).hint(format!("it takes {}: cast the argument", takes.join(", "))))
}

/// Arrow's name of a type as SQL has it.
fn sql_name(arrow: &str) -> String {
    let name = match arrow {
        "Utf8" | "LargeUtf8" | "Utf8View" | "String" => "STRING",
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" | "UInt64" | "UInt32" => "BIGINT",
        "Float32" => "REAL",
        "Float64" => "DOUBLE",
        "Date32" | "Date64" => "DATE",
        other => return other.to_uppercase(),
    };
    name.to_string()
}
