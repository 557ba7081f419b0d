//! Rows of unit tests: mappings, CSV text or a query; in the YAML itself, or in a fixture file.

use std::sync::Arc;

use serde_json::Value as Json;

use super::super::SourceMap;
use super::super::problems::{Problems, suggest};
use super::super::yaml::{Node, Text, Value};
use super::{UnitCell, UnitOp, UnitRow, UnitRows};
use crate::error::Span;

/// What a row does; not a column.
const OP: &str = "_op";
/// How many times it comes or goes; not a column.
const WEIGHT: &str = "_weight";

/// What the rows are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Expected,
    /// Rows an input has at first.
    First,
    /// A later change; `keyed`: rows can be updated.
    Change {
        keyed: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Dict,
    Csv,
    Sql,
}

const FORMATS: &[(&str, Format)] = &[("dict", Format::Dict), ("csv", Format::Csv), ("sql", Format::Sql)];

/// The rows of `node`: an input, or what is expected.
pub(super) fn read(node: &Node, fixtures: &[Arc<Text>], for_: Use, p: &mut Problems) -> Option<UnitRows> {
    let format = match node.get("format") {
        Some(written) => written.choice("format", FORMATS, p)?,
        None => Format::Dict,
    };
    let rows = node.get("rows");
    if let Some(fixture) = node.get("fixture") {
        if let Some(rows) = rows {
            p.error("two-rows", rows.span(), "`rows` stand beside a `fixture`", "keep one of them");
            return None;
        }
        let extension = match format {
            Format::Csv => "csv",
            Format::Sql => "sql",
            Format::Dict => {
                let hint = "add format: csv, or format: sql";
                p.error("fixture-format", fixture.span(), "a fixture is a CSV or SQL file", hint);
                return None;
            }
        };
        let text = found(fixture, extension, fixtures, p)?;
        return match format {
            Format::Csv => csv(&Lines::of_file(text), for_, p),
            _ => Some(query(&text.content, SourceMap::verbatim(text.file.clone(), Arc::clone(&text.content)))),
        };
    }
    let Some(rows) = rows else {
        return match format {
            Format::Dict if for_ != Use::Expected => Some(UnitRows::Values(Vec::new())),
            _ => {
                p.error(
                    "missing-rows",
                    node.span(),
                    "there are no `rows`",
                    "add rows: [{id: 1}], or rows: [] for none",
                );
                None
            }
        };
    };
    match format {
        Format::Dict => {
            if let (Value::Str(text), true) = (&rows.value, true) {
                let format = if text.trim_start().to_lowercase().starts_with("select") { "sql" } else { "csv" };
                let message = "`rows` must be a list of mappings, found text";
                p.error("wrong-type", rows.span(), message, format!("add format: {format}"));
                return None;
            }
            let read = rows.items("rows", p).iter().map(|row| mapping(row, for_, p)).collect::<Option<Vec<_>>>()?;
            Some(UnitRows::Values(read))
        }
        Format::Csv => csv(&Lines::of_node(rows, p)?, for_, p),
        Format::Sql => {
            let sql = rows.text("rows", p)?;
            Some(query(&sql, super::super::jinja::map_to_node(&sql, rows)))
        }
    }
}

fn query(sql: &str, source_map: SourceMap) -> UnitRows {
    UnitRows::Query { sql: sql.trim_end().trim_end_matches(';').to_string(), source_map }
}

/// The file below `fixtures` that is called so.
fn found<'t>(node: &Node, extension: &str, fixtures: &'t [Arc<Text>], p: &mut Problems) -> Option<&'t Arc<Text>> {
    let written = node.text("fixture", p)?;
    let name = written.strip_suffix(&format!(".{extension}")).unwrap_or(&written);
    let of_kind = || fixtures.iter().filter(|t| t.file.extension().is_some_and(|e| e == extension));
    let stem = |t: &Text| t.file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let text = of_kind().find(|t| stem(t) == name || t.file.with_extension("").ends_with(name));
    if text.is_none() {
        let names: Vec<String> = of_kind().map(|t| stem(t)).collect();
        let hint = suggest(name, names.iter().map(String::as_str), &format!("{extension} fixtures in the test paths"));
        p.error("unknown-fixture", node.span(), format!("no fixture `{name}.{extension}`"), hint);
    }
    text
}

fn mapping(node: &Node, for_: Use, p: &mut Problems) -> Option<UnitRow> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("a row must be a mapping, found {}", node.kind());
        p.error("wrong-type", node.span(), message, "write {id: 1, name: a}");
        return None;
    }
    let entries = node.entries().iter();
    let cells = entries.map(|e| UnitCell { column: e.key.clone(), value: e.value.json(), span: e.value.span() });
    row(cells.collect(), node.span(), for_, p)
}

/// Takes what a row does out of its cells.
fn row(cells: Vec<UnitCell>, span: Span, for_: Use, p: &mut Problems) -> Option<UnitRow> {
    let mut op = None;
    let mut weight = None;
    let mut kept = Vec::with_capacity(cells.len());
    for cell in cells {
        match cell.column.as_str() {
            OP | WEIGHT if for_ == Use::Expected => {
                let message = format!("`{}` has no place in expected rows", cell.column);
                p.error("bad-row", cell.span, message, "a row that is expected twice is written twice");
                return None;
            }
            OP => op = Some(cell),
            WEIGHT => weight = Some(cell),
            _ => kept.push(cell),
        }
    }
    let op = match (op, weight) {
        (Some(op), Some(weight)) => {
            let message = format!("`{OP}` and `{WEIGHT}` say the same in two ways");
            p.error("bad-row", op.span.clone(), message, format!("keep `{}`", weight.column));
            return None;
        }
        (None, None) => UnitOp::Weight(1),
        (None, Some(weight)) => {
            let number = weight.value.as_i64().or_else(|| weight.value.as_str()?.trim().parse().ok());
            let Some(number) = number.filter(|n| *n != 0) else {
                let message = format!("`{WEIGHT}` must be a number of rows, found {}", weight.value);
                p.error("bad-row", weight.span, message, "write 2 for two of them, -1 to take one out");
                return None;
            };
            UnitOp::Weight(number)
        }
        (Some(op), None) => match (op.value.as_str().unwrap_or_default(), for_) {
            // The letters are Debezium's.
            ("insert" | "c" | "r", _) => UnitOp::Weight(1),
            ("delete" | "d", _) => UnitOp::Delete,
            ("upsert" | "u", _) => UnitOp::Upsert,
            ("update", Use::Change { keyed: false }) => {
                let hint = "say which columns find the row: add key: [id] to the input";
                p.error("update-without-key", op.span, "an update needs to know its row", hint);
                return None;
            }
            ("update", _) => UnitOp::Update,
            (other, _) => {
                let hint = suggest(other, ["insert", "delete", "update", "upsert"], "it can be");
                p.error("unknown-value", op.span, format!("`{OP}` cannot be `{other}`"), hint);
                return None;
            }
        },
    };
    Some(UnitRow { op, cells: kept, span })
}

/// CSV text with the place of each of its lines.
struct Lines {
    lines: Vec<(String, Span)>,
}

impl Lines {
    fn of_file(text: &Text) -> Self {
        let mut lines = Vec::new();
        let mut at = 0;
        for line in text.content.split_inclusive('\n') {
            let bare = line.trim_end_matches(['\r', '\n']);
            lines.push((bare.to_string(), text.span(at, bare.len().max(1))));
            at += line.len();
        }
        Lines { lines }
    }

    /// The lines of a block of text in YAML.
    fn of_node(node: &Node, p: &mut Problems) -> Option<Self> {
        let text = node.text("rows", p)?;
        let file: Vec<&str> = node.text.content.lines().collect();
        let mut next = node.mark.line.saturating_sub(1);
        let place = |line: &str| {
            // Blocks keep their lines: each stands at or below the one before.
            let found = (next..file.len()).find(|i| file[*i].contains(line.trim()) && !line.trim().is_empty());
            let Some(i) = found else { return (line.to_string(), node.span()) };
            next = i + 1;
            let column = file[i].find(line.trim()).map_or(1, |at| file[i][..at].chars().count() + 1);
            let mark = super::super::yaml::Mark { line: i + 1, column, width: line.trim().chars().count() };
            (line.to_string(), node.span_of(mark))
        };
        Some(Lines { lines: text.lines().map(place).collect() })
    }
}

/// The first line names the columns; an empty field is NULL, `""` an empty text.
fn csv(lines: &Lines, for_: Use, p: &mut Problems) -> Option<UnitRows> {
    let mut rows = lines.lines.iter().filter(|(line, _)| !line.trim().is_empty());
    let Some((header, at)) = rows.next() else { return Some(UnitRows::Values(Vec::new())) };
    let header: Vec<String> = fields(header, at, p)?.into_iter().map(Option::unwrap_or_default).collect();
    let mut read = Vec::new();
    for (line, span) in rows {
        let values = fields(line, span, p)?;
        if values.len() != header.len() {
            let message = format!("{} values for {} columns", values.len(), header.len());
            p.error("csv", span.clone(), message, "quote a value that has a comma in it");
            return None;
        }
        let cell = |(column, value): (&String, Option<String>)| UnitCell {
            column: column.clone(),
            value: value.map_or(Json::Null, Json::from),
            span: span.clone(),
        };
        let mut cells: Vec<UnitCell> = header.iter().zip(values).map(cell).collect();
        // A column of operations that is empty here says nothing.
        cells.retain(|c| !(matches!(c.column.as_str(), OP | WEIGHT) && c.value.is_null()));
        read.push(row(cells, span.clone(), for_, p)?);
    }
    Some(UnitRows::Values(read))
}

fn fields(line: &str, span: &Span, p: &mut Problems) -> Option<Vec<Option<String>>> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    loop {
        rest = rest.trim_start();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        value.push('"');
                    }
                    Some((i, '"')) => break i + 1,
                    Some((_, c)) => value.push(c),
                    None => {
                        p.error("csv", span.clone(), "a quoted value does not end", "close it with \"");
                        return None;
                    }
                }
            };
            fields.push(Some(value));
            rest = quoted[end..].trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let value = rest[..end].trim();
            fields.push((!value.is_empty()).then(|| value.to_string()));
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Some(fields),
            None => {
                p.error("csv", span.clone(), format!("`{rest}` stands behind a quoted value"), "put a comma between");
                return None;
            }
        }
    }
}
