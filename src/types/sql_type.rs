//! SQL type names as projects write them (`columns: [{data_type: "STRUCT<number: STRING>"}]`, `from_json(x, 'STRUCT<…>')`),
//! to Arrow's types and back.
//!
//! Everything is nullable. Both spellings of members (`a: T`, `a T`), both brackets of STRUCT (`<>`, `()`) and `T[]` are read,
//! so that a type can be pasted from Spark, DuckDB or PostgreSQL.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use std::sync::Arc;

use crate::error::{Error, Result, did_you_mean};

/// Types nest at most so deep.
const MAX_DEPTH: usize = 64;

/// Names offered when one is misspelled.
const NAMES: &[&str] = &[
    "STRING",
    "TEXT",
    "VARCHAR",
    "CHAR",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "LONG",
    "FLOAT",
    "REAL",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_NTZ",
    "BINARY",
    "STRUCT",
    "ARRAY",
    "MAP",
];

/// The Arrow type of the SQL type `text`.
///
/// TIMESTAMP is an instant (µs, UTC), TIMESTAMP_NTZ has no zone, DECIMAL without arguments is DECIMAL(38,10) as in the engine's
/// SQL, DECIMAL(p) is DECIMAL(p,0). The error names the column inside `text`.
pub fn parse_sql_type(text: &str) -> Result<DataType> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let data_type = parser.data_type()?;
    parser.spaces();
    if parser.at < text.len() {
        return Err(parser.fault(parser.at, "expected the end of the type"));
    }
    Ok(data_type)
}

/// The SQL name of `data_type`, which [`parse_sql_type`] reads back. Types without a SQL name of ours are shown as Arrow's.
pub fn sql_type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP_NTZ".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BINARY".into(),
        DataType::Struct(fields) => {
            let members: Vec<String> =
                fields.iter().map(|f| format!("{}: {}", member_name(f.name()), sql_type_name(f.data_type()))).collect();
            format!("STRUCT<{}>", members.join(", "))
        }
        DataType::List(item) | DataType::LargeList(item) => format!("ARRAY<{}>", sql_type_name(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP<{}, {}>", sql_type_name(pair[0].data_type()), sql_type_name(pair[1].data_type()))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn member_name(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_string() } else { format!("`{}`", name.replace('`', "``")) }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn fault(&self, at: usize, message: &str) -> Error {
        let column = self.text[..at].chars().count() + 1;
        Error::user("sql-type", format!("type `{}`, column {column}: {message}", self.text))
    }

    fn spaces(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        self.spaces();
        let found = self.text[self.at..].starts_with(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) {
            return Ok(());
        }
        Err(self.fault(self.at, &format!("expected `{c}`")))
    }

    /// The next bare word, empty when there is none.
    fn word(&mut self) -> &'a str {
        self.spaces();
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Skips `words` if they are what comes next.
    fn eat_words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        for word in words {
            if !self.word().eq_ignore_ascii_case(word) {
                self.at = start;
                return false;
            }
        }
        true
    }

    fn data_type(&mut self) -> Result<DataType> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(self.at, &format!("types nest at most {MAX_DEPTH} deep")));
        }
        let mut data_type = self.base_type()?;
        while self.eat('[') {
            self.expect(']')?;
            data_type = array_of(data_type);
        }
        self.depth -= 1;
        Ok(data_type)
    }

    fn base_type(&mut self) -> Result<DataType> {
        self.spaces();
        let start = self.at;
        let word = self.word();
        Ok(match word.to_ascii_uppercase().as_str() {
            "STRING" | "TEXT" => DataType::Utf8,
            "VARCHAR" | "CHAR" | "CHARACTER" => {
                self.eat_words(&["VARYING"]);
                self.numbers(1)?;
                DataType::Utf8
            }
            "BOOLEAN" | "BOOL" => DataType::Boolean,
            "TINYINT" | "BYTE" => DataType::Int8,
            "SMALLINT" | "SHORT" | "INT2" => DataType::Int16,
            "INT" | "INTEGER" | "INT4" => DataType::Int32,
            "BIGINT" | "LONG" | "INT8" => DataType::Int64,
            "FLOAT" | "REAL" | "FLOAT4" => DataType::Float32,
            "DOUBLE" => {
                self.eat_words(&["PRECISION"]);
                DataType::Float64
            }
            "FLOAT8" => DataType::Float64,
            "DECIMAL" | "NUMERIC" | "DEC" => self.decimal()?,
            "DATE" => DataType::Date32,
            "TIMESTAMP" | "DATETIME" => {
                self.numbers(1)?;
                let naive = self.eat_words(&["WITHOUT", "TIME", "ZONE"]);
                if !naive {
                    self.eat_words(&["WITH", "LOCAL", "TIME", "ZONE"]);
                    self.eat_words(&["WITH", "TIME", "ZONE"]);
                }
                timestamp(!naive)
            }
            "TIMESTAMPTZ" | "TIMESTAMP_LTZ" | "TIMESTAMP_TZ" => timestamp(true),
            "TIMESTAMP_NTZ" => timestamp(false),
            "BINARY" | "BYTEA" | "VARBINARY" | "BLOB" => {
                self.numbers(1)?;
                DataType::Binary
            }
            "STRUCT" | "ROW" => self.members()?,
            "ARRAY" | "LIST" => {
                self.expect('<')?;
                let item = self.data_type()?;
                self.expect('>')?;
                array_of(item)
            }
            "MAP" => {
                let round = self.open()?;
                let key_at = self.at;
                let key = self.data_type()?;
                if matches!(key, DataType::Struct(_) | DataType::List(_) | DataType::Map(..)) {
                    return Err(self.fault(key_at, "the key of a MAP must be a plain type"));
                }
                self.expect(',')?;
                let value = self.data_type()?;
                self.expect(round)?;
                map_of(key, value)
            }
            "" => return Err(self.fault(start, "expected a type")),
            _ => {
                let error = self.fault(start, &format!("unknown type `{word}`"));
                return Err(match did_you_mean(word, NAMES.iter().copied()) {
                    Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                    None => error.with_hint(format!("types: {}", NAMES.join(", "))),
                });
            }
        })
    }

    /// The opening bracket; returns the closing one.
    fn open(&mut self) -> Result<char> {
        if self.eat('(') {
            return Ok(')');
        }
        self.expect('<')?;
        Ok('>')
    }

    fn members(&mut self) -> Result<DataType> {
        let close = self.open()?;
        let mut fields: Vec<Field> = Vec::new();
        if self.eat(close) {
            return Ok(DataType::Struct(Fields::empty()));
        }
        loop {
            self.spaces();
            let start = self.at;
            let name = self.name()?;
            if fields.iter().any(|f| *f.name() == name) {
                return Err(self.fault(start, &format!("member `{name}` stands twice")));
            }
            self.eat(':');
            fields.push(Field::new(name, self.data_type()?, true));
            if self.eat(close) {
                return Ok(DataType::Struct(fields.into()));
            }
            if !self.eat(',') {
                return Err(self.fault(self.at, &format!("expected `,` or `{close}`")));
            }
        }
    }

    fn name(&mut self) -> Result<String> {
        self.spaces();
        let start = self.at;
        let Some(quote) = self.text[start..].chars().next().filter(|c| matches!(c, '`' | '"')) else {
            let word = self.word();
            return if word.is_empty() {
                Err(self.fault(start, "expected the name of a member"))
            } else {
                Ok(word.to_string())
            };
        };
        let mut name = String::new();
        let mut rest = self.text[start + 1..].char_indices().peekable();
        while let Some((i, c)) = rest.next() {
            if c != quote {
                name.push(c);
            } else if rest.peek().is_some_and(|(_, c)| *c == quote) {
                rest.next();
                name.push(quote);
            } else {
                self.at = start + 1 + i + 1;
                return Ok(name);
            }
        }
        Err(self.fault(start, &format!("this {quote} is never closed")))
    }

    /// `(n, …)`, at most `max` of them; nothing is no number.
    fn numbers(&mut self, max: usize) -> Result<Vec<(usize, i64)>> {
        let mut numbers = Vec::new();
        if !self.eat('(') {
            return Ok(numbers);
        }
        loop {
            self.spaces();
            let start = self.at;
            let negative = self.eat('-');
            let digits = self.word();
            match digits.parse::<i64>() {
                Ok(n) if numbers.len() < max => numbers.push((start, if negative { -n } else { n })),
                Ok(_) => return Err(self.fault(start, "too many arguments")),
                Err(_) => return Err(self.fault(start, "expected a number")),
            }
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(numbers);
            }
        }
    }

    fn decimal(&mut self) -> Result<DataType> {
        let numbers = self.numbers(2)?;
        let (precision, scale) = match numbers[..] {
            [] => return Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 10)),
            [p] => (p, (p.0, 0)),
            [p, s, ..] => (p, s),
        };
        let Some(p) = u8::try_from(precision.1).ok().filter(|p| (1..=DECIMAL128_MAX_PRECISION).contains(p)) else {
            return Err(self.fault(precision.0, "the precision of a DECIMAL is 1 to 38"));
        };
        match i8::try_from(scale.1) {
            Ok(s) if s >= 0 && s as u8 <= p => Ok(DataType::Decimal128(p, s)),
            _ => Err(self.fault(scale.0, &format!("the scale of a DECIMAL({p}, …) is 0 to {p}"))),
        }
    }
}

fn timestamp(zoned: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into()))
}

fn array_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn map_of(key: DataType, value: DataType) -> DataType {
    let pair = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in [
            "STRING",
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INT",
            "BIGINT",
            "FLOAT",
            "DOUBLE",
            "DECIMAL(10,2)",
            "DECIMAL(38,38)",
            "DATE",
            "TIMESTAMP",
            "TIMESTAMP_NTZ",
            "BINARY",
            "STRUCT<>",
            "STRUCT<number: STRING, `cell site`: STRUCT<`a``b`: ARRAY<INT>>>",
            "ARRAY<ARRAY<DOUBLE>>",
            "MAP<STRING, MAP<BIGINT, DATE>>",
            "STRUCT<é: STRING>",
        ] {
            assert_eq!(sql_type_name(&parse_sql_type(text).unwrap()), text);
        }
    }

    #[test]
    fn other_spellings_mean_the_same() {
        for (text, name) in [
            (" varchar ( 20 ) ", "STRING"),
            ("character varying(3)", "STRING"),
            ("double precision", "DOUBLE"),
            ("long", "BIGINT"),
            ("numeric(12)", "DECIMAL(12,0)"),
            ("decimal", "DECIMAL(38,10)"),
            ("timestamp with time zone", "TIMESTAMP"),
            ("timestamp(6) without time zone", "TIMESTAMP_NTZ"),
            ("struct(a int, \"b c\" text)", "STRUCT<a: INT, `b c`: STRING>"),
            ("struct<a int,b:array<string>>", "STRUCT<a: INT, b: ARRAY<STRING>>"),
            ("int[][]", "ARRAY<ARRAY<INT>>"),
            ("struct<date: date, timestamp timestamp>", "STRUCT<date: DATE, timestamp: TIMESTAMP>"),
            ("real", "FLOAT"),
        ] {
            assert_eq!(sql_type_name(&parse_sql_type(text).unwrap()), name, "{text}");
        }
        assert_eq!(
            parse_sql_type("TIMESTAMP").unwrap(),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
    }

    #[test]
    fn errors_name_the_column() {
        for (text, message) in [
            ("STRUCT<a: STRNG>", "column 11: unknown type `STRNG`"),
            ("STRUCT<a: INT", "column 14: expected `,` or `>`"),
            ("STRUCT<a: INT, a: INT>", "column 16: member `a` stands twice"),
            ("ARRAY INT", "column 7: expected `<`"),
            ("DECIMAL(39,2)", "column 9: the precision"),
            ("DECIMAL(4,5)", "column 11: the scale"),
            ("MAP<ARRAY<INT>, INT>", "column 5: the key of a MAP"),
            ("INT INT", "column 5: expected the end"),
            ("", "column 1: expected a type"),
            ("STRUCT<`a: INT>", "column 8: this ` is never closed"),
        ] {
            let error = parse_sql_type(text).unwrap_err();
            assert!(error.message().contains(message), "{text}: {error}");
        }
        assert_eq!(parse_sql_type("STRNG").unwrap_err().hint(), Some("did you mean `STRING`?"));
        assert!(parse_sql_type(&"ARRAY<".repeat(5000)).is_err());
    }
}
