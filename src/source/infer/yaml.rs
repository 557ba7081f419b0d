//! A described source table as a properties file.

use super::describe::Described;
use super::sample::Origin;
use crate::project::Format;
use crate::types::sql_type_name;

/// Words that YAML does not read as text.
const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "nan", "inf"];

pub(super) fn print(table: &Described) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    for note in &table.notes {
        line(format!("# {}", comment(note)));
    }
    line("version: 2".to_string());
    line("sources:".to_string());
    line(format!("  - name: {}", scalar(&table.source)));
    line("    tables:".to_string());
    line(format!("      - name: {}", scalar(&table.table)));
    line("        config:".to_string());
    let mut config = |key: &str, value: String| line(format!("          {key}: {value}"));
    match &table.origin {
        Origin::Kafka { connection, bootstrap_servers, topic } => {
            config("connector", "kafka".to_string());
            match connection {
                Some(name) => config("connection", scalar(name)),
                None => config("properties", format!("{{bootstrap.servers: {}}}", scalar(bootstrap_servers))),
            }
            config("topic", scalar(topic));
        }
        Origin::Files { path } => {
            config("connector", "files".to_string());
            config("path", scalar(path));
        }
    }
    config("format", format_name(table.format).to_string());
    let mut options = Vec::new();
    if table.format == Format::Csv {
        if table.csv.delimiter != b',' {
            options.push(format!("delimiter: {}", quoted(&char::from(table.csv.delimiter).to_string())));
        }
        if table.csv.header.is_none() {
            options.push("header: false".to_string());
        }
    }
    if !options.is_empty() && matches!(table.origin, Origin::Files { .. }) {
        config("options", format!("{{{}}}", options.join(", ")));
    }
    if !table.primary_key.is_empty() {
        let names: Vec<String> = table.primary_key.iter().map(|name| scalar(name)).collect();
        config("primary_key", format!("[{}]", names.join(", ")));
    }
    if let Some(name) = &table.key {
        config("include", format!("{{key: {}}}", scalar(name)));
    }
    if let Some(name) = &table.rescued {
        config("rescued_data", scalar(name));
    }
    line("        columns:".to_string());
    for column in &table.columns {
        let format = column.format.as_ref().map_or(String::new(), |f| format!(", format: {}", quoted(f)));
        let notes = match column.notes.is_empty() {
            true => String::new(),
            false => format!("  # {}", comment(&column.notes.join("; "))),
        };
        let data_type = scalar(&sql_type_name(&column.data_type));
        line(format!("          - {{name: {}, data_type: {data_type}{format}}}{notes}", scalar(&column.name)));
    }
    out
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Csv => "csv",
        Format::Parquet => "parquet",
        Format::Raw => "raw",
        Format::DebeziumJson => "debezium-json",
    }
}

/// A text inside a flow mapping: bare where YAML reads it back as this text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_string() } else { quoted(text) }
}

/// In double quotes, everything escaped that does not stand in a line of YAML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || is_noncharacter(c) => {
                out.push_str(&format!("\\U{:08x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// U+FFFE and its like, which no YAML stream may hold.
fn is_noncharacter(c: char) -> bool {
    (c as u32) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c)
}

/// A note as a comment: one line.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_noncharacter(c) { ' ' } else { c })
        .collect()
}
