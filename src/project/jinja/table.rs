//! Rows of a query as templates handle them: in the manner of agate's tables, which dbt returns.
//!
//! `results.columns[0].values()`, `results.columns['name']`, `for row in results.rows` or `in results`, `row[0]`, `row['name']`, `row.name`.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Tuple};
use minijinja::{Error, ErrorKind, State, Value};

use super::clock::Moment;
use super::containers::{Dict, List};
use super::scope::Scope;
use crate::project::answers::{Answer, Cell};

/// Rows that `print_table` shows unless it is told otherwise, and columns: agate's.
const SHOWN: (usize, usize) = (20, 6);

/// A table of results.
#[derive(Clone)]
pub(super) struct Table {
    columns: Arc<Vec<(String, String)>>,
    rows: Arc<Vec<Vec<Value>>>,
    /// Hears what is printed.
    scope: Arc<Scope>,
}

impl Table {
    pub fn new(answer: &Answer, scope: &Arc<Scope>) -> Self {
        let rows = answer.rows.iter().map(|row| row.iter().map(value).collect()).collect();
        Table { columns: Arc::new(answer.columns.clone()), rows: Arc::new(rows), scope: Arc::clone(scope) }
    }

    /// The rows as `load_result(…).data` has them.
    pub fn data(&self) -> Value {
        List::value(self.rows.iter().map(|row| Value::from(Tuple::from(row.clone()))).collect())
    }

    fn with(&self, columns: Vec<(String, String)>, rows: Vec<Vec<Value>>) -> Value {
        let scope = Arc::clone(&self.scope);
        Value::from_object(Table { columns: Arc::new(columns), rows: Arc::new(rows), scope })
    }

    fn position(&self, key: &Value) -> Option<usize> {
        position(&self.columns, key)
    }

    fn taken(&self, positions: &[usize]) -> Value {
        let columns = positions.iter().map(|i| self.columns[*i].clone()).collect();
        let rows = self.rows.iter().map(|row| positions.iter().map(|i| row[*i].clone()).collect()).collect();
        self.with(columns, rows)
    }

    /// The columns that `keys`, one or a list, name.
    fn named(&self, keys: Option<&Value>) -> Result<Vec<usize>, Error> {
        let keys = keys.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
        let keys: Vec<Value> = match keys.as_str() {
            Some(_) => vec![keys.clone()],
            None => keys.try_iter()?.collect(),
        };
        let unknown = |key: &Value| Error::new(ErrorKind::InvalidOperation, format!("the result has no column {key}"));
        keys.iter().map(|key| self.position(key).ok_or_else(|| unknown(key))).collect()
    }

    fn printed(&self, max_rows: usize, max_columns: usize) -> String {
        let columns = self.columns.len().min(max_columns);
        let mut lines: Vec<Vec<String>> = vec![self.columns[..columns].iter().map(|(name, _)| name.clone()).collect()];
        let text = |v: &Value| if v.is_none() { String::new() } else { v.to_string() };
        lines.extend(self.rows.iter().take(max_rows).map(|row| row[..columns].iter().map(text).collect()));
        let width = |i: usize| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let mut out = vec![line(&lines[0])];
        out.push(format!("| {} |", widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().join(" | ")));
        out.extend(lines[1..].iter().map(|l| line(l)));
        if self.rows.len() > max_rows {
            out.push("...".to_string());
        }
        out.join("\n")
    }
}

/// The value of a cell; dates and times are Python's.
fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::from(()),
        Cell::Bool(b) => Value::from(*b),
        Cell::Int(i) => Value::from(*i),
        Cell::Float(f) => Value::from(*f),
        Cell::Text(t) => Value::from(t.as_str()),
        Cell::Date(days) => Moment::date(*days),
        Cell::Timestamp(micros) => Moment::timestamp(*micros),
        Cell::List(items) => List::value(items.iter().map(value).collect()),
        Cell::Map(entries) => Dict::value(entries.iter().map(|(k, v)| (Value::from(k.as_str()), value(v)))),
    }
}

/// By number, or by name, ignoring case where no name is equal.
fn position(columns: &[(String, String)], key: &Value) -> Option<usize> {
    match key.as_str() {
        Some(name) => {
            let exact = columns.iter().position(|(n, _)| n == name);
            exact.or_else(|| columns.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)))
        }
        None => key.as_usize().filter(|i| *i < columns.len()),
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<table of {} rows>", self.rows.len())
    }
}

impl Object for Table {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    /// Its rows; without any it is false.
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Arc::new(Rows(Table::clone(self))).enumerate()
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.rows.len())
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if key.as_str().is_none() {
            return Arc::new(Rows(Table::clone(self))).get_value(key);
        }
        let names =
            |of: fn(&(String, String)) -> &str| List::value(self.columns.iter().map(|c| of(c).into()).collect());
        match key.as_str()? {
            "columns" => Some(Value::from_object(Columns(Table::clone(self)))),
            "column_names" => Some(names(|(name, _)| name)),
            "column_types" => Some(names(|(_, data_type)| data_type)),
            "rows" => Some(Value::from_object(Rows(Table::clone(self)))),
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let (args, named) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let find = |name: &str, at: usize| {
            let named = named.as_ref().and_then(|k| k.get::<Value>(name).ok());
            args.get(at).cloned().or(named).filter(|v| !v.is_none() && !v.is_undefined())
        };
        let number =
            |name: &str, at: usize, default: usize| find(name, at).and_then(|v| v.as_usize()).unwrap_or(default);
        match method {
            "print_table" => {
                let text = self.printed(number("max_rows", 0, SHOWN.0), number("max_columns", 1, SHOWN.1));
                self.scope.note_said(text);
                Ok(Value::from(""))
            }
            "select" => Ok(self.taken(&self.named(find("key", 0).as_ref())?)),
            "exclude" => {
                let out = self.named(find("key", 0).as_ref())?;
                Ok(self.taken(&(0..self.columns.len()).filter(|i| !out.contains(i)).collect::<Vec<_>>()))
            }
            "limit" => {
                let (start, stop) = match (args.len(), number("start_or_stop", 0, self.rows.len())) {
                    (0 | 1, stop) => (0, stop),
                    (_, start) => (start, number("stop", 1, self.rows.len())),
                };
                let stop = stop.min(self.rows.len());
                Ok(self.with(self.columns.to_vec(), self.rows[start.min(stop)..stop].to_vec()))
            }
            "order_by" => {
                let by = self.named(find("key", 0).as_ref())?;
                let mut rows = self.rows.to_vec();
                let key = |row: &Vec<Value>| by.iter().map(|i| row[*i].clone()).collect::<Vec<_>>();
                rows.sort_by_cached_key(key);
                if find("reverse", 1).is_some_and(|v| v.is_true()) {
                    rows.reverse();
                }
                Ok(self.with(self.columns.to_vec(), rows))
            }
            "distinct" => {
                let by = match find("key", 0) {
                    Some(key) => self.named(Some(&key))?,
                    None => (0..self.columns.len()).collect(),
                };
                let mut seen: Vec<Vec<Value>> = Vec::new();
                let mut rows = self.rows.to_vec();
                rows.retain(|row| {
                    let key: Vec<Value> = by.iter().map(|i| row[*i].clone()).collect();
                    let new = !seen.contains(&key);
                    seen.push(key);
                    new
                });
                Ok(self.with(self.columns.to_vec(), rows))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printed(SHOWN.0, SHOWN.1))
    }
}

/// Whether a value is the columns, the rows, a column or a row of a result.
pub(super) fn is_part(value: &Value) -> bool {
    value.downcast_object_ref::<Columns>().is_some()
        || value.downcast_object_ref::<Rows>().is_some()
        || value.downcast_object_ref::<Column>().is_some()
        || value.downcast_object_ref::<Row>().is_some()
}

/// `results.columns`: by number or name, iterated in order.
#[derive(Debug)]
struct Columns(Table);

impl Columns {
    fn column(&self, index: usize) -> Value {
        Value::from_object(Column { table: self.0.clone(), index })
    }
}

impl Object for Columns {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.position(key).map(|i| self.column(i))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values((0..self.0.columns.len()).map(|i| self.column(i)).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.columns.len())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let names = || self.0.columns.iter().map(|(name, _)| Value::from(name.as_str()));
        let columns = || (0..self.0.columns.len()).map(|i| self.column(i));
        match method {
            "keys" => Ok(List::value(names().collect())),
            "values" => Ok(List::value(columns().collect())),
            "items" => {
                Ok(List::value(names().zip(columns()).map(|(n, c)| Value::from(Tuple::from(vec![n, c]))).collect()))
            }
            "get" => {
                let found = args.first().and_then(|key| self.get_value(key));
                Ok(found.or_else(|| args.get(1).cloned()).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// One column: its values in order.
#[derive(Debug)]
struct Column {
    table: Table,
    index: usize,
}

impl Column {
    fn values(&self) -> Vec<Value> {
        self.table.rows.iter().map(|row| row[self.index].clone()).collect()
    }
}

impl Object for Column {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let (name, data_type) = &self.table.columns[self.index];
        match key.as_str() {
            Some("name") => Some(Value::from(name.as_str())),
            Some("data_type") => Some(Value::from(data_type.as_str())),
            Some("index") => Some(Value::from(self.index)),
            Some(_) => None,
            None => self.table.rows.get(key.as_usize()?).map(|row| row[self.index].clone()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.table.rows.len())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        let present = || self.values().into_iter().filter(|v| !v.is_none());
        match method {
            "values" => Ok(Value::from(Tuple::from(self.values()))),
            "values_distinct" => Ok(List::unique(self.values())),
            "values_without_nulls" => Ok(List::value(present().collect())),
            "values_sorted" => {
                let mut values: Vec<Value> = self.values();
                values.sort();
                Ok(List::value(values))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `results.rows`
#[derive(Debug)]
struct Rows(Table);

impl Rows {
    fn row(&self, index: usize) -> Value {
        Value::from_object(Row { table: self.0.clone(), index })
    }
}

impl Object for Rows {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        key.as_usize().filter(|i| *i < self.0.rows.len()).map(|i| self.row(i))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values((0..self.0.rows.len()).map(|i| self.row(i)).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.rows.len())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        match method {
            "values" => Ok(List::value((0..self.0.rows.len()).map(|i| self.row(i)).collect())),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// One row: by number, by name, or unpacked.
#[derive(Debug)]
struct Row {
    table: Table,
    index: usize,
}

impl Row {
    fn cells(&self) -> &[Value] {
        &self.table.rows[self.index]
    }
}

impl Object for Row {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.table.position(key).map(|i| self.cells()[i].clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.cells().to_vec())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.cells().len())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let names = || self.table.columns.iter().map(|(name, _)| Value::from(name.as_str()));
        let pairs = || names().zip(self.cells().iter().cloned());
        match method {
            "values" => Ok(Value::from(Tuple::from(self.cells().to_vec()))),
            "keys" => Ok(List::value(names().collect())),
            "dict" => Ok(Dict::value(pairs())),
            "items" => Ok(List::value(pairs().map(|(n, v)| Value::from(Tuple::from(vec![n, v]))).collect())),
            "get" => {
                let found = args.first().and_then(|key| self.get_value(key));
                Ok(found.or_else(|| args.get(1).cloned()).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}
