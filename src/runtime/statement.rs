//! Statements of hooks and operations, taken apart: what they are, and which table they are about.

use crate::error::{Error, Result};

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// A query: its rows are read.
    Query,
    /// Rows of `query` go into the columns of a table; all of them when none are named.
    Insert {
        table: Name,
        columns: Vec<String>,
        query: String,
    },
    Optimize(Name),
    Vacuum(Name),
    /// Its first words: of no use here, since tables belong to their models.
    Other(String),
}

/// A table by name; the schema where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub schema: Option<String>,
    pub table: String,
}

/// The statements of a text, without comments; `;` ends one.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' | '"' | '`' => rest[1..].find(c).map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = &rest[rest.find("*/").map_or(rest.len(), |end| end + 2)..];
                continue;
            }
            ';' => {
                statements.push(String::new());
                rest = &rest[1..];
                continue;
            }
            c => c.len_utf8(),
        };
        if let Some(last) = statements.last_mut() {
            last.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    statements.into_iter().map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect()
}

/// What one statement is.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    let mut words = Words(sql);
    let first = words.word().to_lowercase();
    match first.as_str() {
        "select" | "with" | "values" | "" => Ok(Statement::Query),
        "insert" => insert(words),
        "optimize" | "vacuum" => {
            let _ = words.keyword("table");
            let name = words.name().ok_or_else(|| incomplete(sql, &format!("{first} <table>")))?;
            // How long files are kept is the target's to say.
            Ok(if first == "optimize" { Statement::Optimize(name) } else { Statement::Vacuum(name) })
        }
        _ => {
            let second = words.word().to_lowercase();
            Ok(Statement::Other(format!("{first} {second}").trim().to_uppercase()))
        }
    }
}

fn insert(mut words: Words<'_>) -> Result<Statement> {
    let sql = words.0;
    if words.keyword("overwrite") {
        return Ok(Statement::Other("INSERT OVERWRITE".to_string()));
    }
    let usage = "insert into <table> [(columns)] select …";
    if !words.keyword("into") {
        return Err(incomplete(sql, usage));
    }
    let _ = words.keyword("table");
    let table = words.name().ok_or_else(|| incomplete(sql, usage))?;
    let columns = words.list();
    let query = words.0.trim().to_string();
    if query.is_empty() {
        return Err(incomplete(sql, usage));
    }
    Ok(Statement::Insert { table, columns, query })
}

fn incomplete(sql: &str, usage: &str) -> Error {
    let start: String = sql.trim().chars().take(60).collect();
    Error::user("bad-statement", format!("a statement is not complete: {start}")).with_hint(format!("write {usage}"))
}

/// What is left of a statement.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        let rest = self.0.trim_start();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.0 = &rest[end..];
        &rest[..end]
    }

    /// Takes the word if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let before = self.0;
        let is = self.word().eq_ignore_ascii_case(keyword);
        if !is {
            self.0 = before;
        }
        is
    }

    /// One part of a name, in quotes or not.
    fn part(&mut self) -> Option<String> {
        let rest = self.0.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '`'));
        let Some(quote) = quote else { return Some(self.word().to_string()).filter(|w| !w.is_empty()) };
        let end = rest[1..].find(quote)? + 1;
        self.0 = &rest[end + 1..];
        Some(rest[1..end].to_string())
    }

    /// `table`, `schema.table`, `database.schema.table`: there is one database.
    fn name(&mut self) -> Option<Name> {
        let mut parts = vec![self.part()?];
        while let Some(rest) = self.0.strip_prefix('.') {
            self.0 = rest;
            parts.push(self.part()?);
        }
        let table = parts.pop()?;
        Some(Name { schema: parts.pop(), table })
    }

    /// `(a, "b")`, unless it begins a query.
    fn list(&mut self) -> Vec<String> {
        let Some(inside) = self.0.trim_start().strip_prefix('(') else { return Vec::new() };
        let mut words = Words(inside);
        let mut names = Vec::new();
        while let Some(name) = words.part() {
            names.push(name);
            let rest = words.0.trim_start();
            if let Some(rest) = rest.strip_prefix(')') {
                self.0 = rest;
                return names;
            }
            match rest.strip_prefix(',') {
                Some(rest) => words.0 = rest,
                None => return Vec::new(),
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: Option<&str>, table: &str) -> Name {
        Name { schema: schema.map(str::to_string), table: table.to_string() }
    }

    #[test]
    fn statements_are_told_apart() {
        assert_eq!(parse("select 1").unwrap(), Statement::Query);
        assert_eq!(parse("(select 1)").unwrap(), Statement::Query);
        let insert = |table, columns: &[&str], query: &str| Statement::Insert {
            table,
            columns: columns.iter().map(|c| c.to_string()).collect(),
            query: query.to_string(),
        };
        assert_eq!(parse("INSERT INTO a.b select 1").unwrap(), insert(name(Some("a"), "b"), &[], "select 1"));
        assert_eq!(
            parse("insert into \"a\".\"b c\" (x, \"y\") values (1, 'z')").unwrap(),
            insert(name(Some("a"), "b c"), &["x", "y"], "values (1, 'z')")
        );
        assert_eq!(parse("insert into b (select 1)").unwrap(), insert(name(None, "b"), &[], "(select 1)"));
        assert_eq!(parse("optimize db.a.b zorder by (x)").unwrap(), Statement::Optimize(name(Some("a"), "b")));
        assert_eq!(parse("vacuum `a`.`b` retain 0 hours").unwrap(), Statement::Vacuum(name(Some("a"), "b")));
        assert_eq!(parse("GRANT SELECT ON x TO y").unwrap(), Statement::Other("GRANT SELECT".to_string()));
        assert_eq!(parse("insert overwrite x select 1").unwrap(), Statement::Other("INSERT OVERWRITE".to_string()));
        assert_eq!(parse("insert x").unwrap_err().code(), "bad-statement");
    }

    #[test]
    fn a_text_holds_several_statements() {
        let text = "-- first; of all\nselect ';' as \"a;b\"; /* ; */ insert into t select 1;\n;";
        assert_eq!(split(text), ["select ';' as \"a;b\"", "insert into t select 1"]);
        assert_eq!(split(" -- nothing\n"), Vec::<String>::new());
    }
}
