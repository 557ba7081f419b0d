//! What templates may ask of the lake, and how they are answered: the project loader does no I/O of its own, so whoever has a lake
//! hands it an [`Answers`].
//!
//! A project is loaded without answers first. A model whose template asks then *waits*: its graph is known, its SQL is not
//! ([`Asks`]). Loaded again with answers, it has its SQL; a question about a table that is not made yet leaves it waiting. So a run makes
//! what does not wait, loads again, and goes on, as dbt does that renders a model when its turn has come.

use std::fmt;

use crate::error::{Error, Result};

/// Code of the error that makes a template wait.
pub const WAITS: &str = "waits-for-lake";

/// Code of the error that a table is not there yet.
pub(crate) const NO_TABLE: &str = "no-table";

/// Asked by templates while they are rendered; every method may block on I/O.
pub trait Answers: fmt::Debug + Send + Sync {
    /// Runs a statement. `this`, schema and name, is the table of the model that asks: it is read as it stands in the lake.
    /// An error of code [`WAITS`] makes the template wait.
    fn query(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Answer>;

    /// Name and SQL type of the columns of a table or view; empty when there is none of that name.
    fn columns(&self, schema: &str, name: &str, this: Option<(&str, &str)>) -> Result<Vec<(String, String)>>;

    /// Whether there is a table of this name.
    fn exists(&self, schema: &str, name: &str) -> Result<bool>;
}

/// The rows of a query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Name and SQL type.
    pub columns: Vec<(String, String)>,
    pub rows: Vec<Vec<Cell>>,
    /// What a statement without rows did: `INSERT 3`.
    pub message: String,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// µs since 1970-01-01.
    Timestamp(i64),
    List(Vec<Cell>),
    Map(Vec<(String, Cell)>),
}

/// Whether an error of a template that asks is one of its own: it does not wait for anything.
pub fn is_failure(error: &Error) -> bool {
    error.code() != WAITS
}

/// What a model's template asks of the lake.
#[derive(Debug, Clone, Default)]
pub struct Asks {
    /// Its SQL depends on what tables held when it was rendered.
    pub rows: bool,
    /// Its SQL is not known yet, and why.
    pub waits: Option<Error>,
}

/// The error that makes a template wait: `why` completes "it asks the lake, …".
pub(crate) fn waits(why: impl fmt::Display) -> Error {
    Error::user(WAITS, format!("the template asks the lake, {why}"))
}
