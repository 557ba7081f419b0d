//! Random schemas, records for them, and damage.

use arrow::datatypes::{DataType, Field, Fields};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::types::parse_sql_type;

const PLAIN: &[&str] = &[
    "STRING",
    "STRING",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL(10,2)",
    "DECIMAL(38,0)",
    "DECIMAL(38,38)",
    "DECIMAL(4,4)",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_NTZ",
    "BINARY",
];
const NAMES: &[&str] =
    &["id", "ID", "Id", "name", "größe", "a b", "q\"uote", "back\\slash", "ts", "x", "long_name_of_a_field", "k"];

pub fn schema(rng: &mut StdRng) -> Fields {
    fields(rng, 0)
}

fn fields(rng: &mut StdRng, depth: usize) -> Fields {
    let mut fields: Vec<Field> = Vec::new();
    for _ in 0..rng.random_range(if depth == 0 { 1..7 } else { 0..4 }) {
        let name = *NAMES.choose(rng).unwrap();
        if fields.iter().all(|f| f.name() != name) {
            fields.push(Field::new(name, data_type(rng, depth), true));
        }
    }
    fields.into()
}

fn data_type(rng: &mut StdRng, depth: usize) -> DataType {
    let plain = *PLAIN.choose(rng).unwrap();
    if depth >= 3 || rng.random_ratio(2, 3) {
        return parse_sql_type(plain).unwrap();
    }
    match rng.random_range(0..3) {
        0 => DataType::Struct(fields(rng, depth + 1)),
        1 => DataType::new_list(data_type(rng, depth + 1), true),
        _ => {
            let key = *["STRING", "INT", "BOOLEAN", "DATE", "DOUBLE", "DECIMAL(6,2)"].choose(rng).unwrap();
            let pair = vec![
                Field::new("key", parse_sql_type(key).unwrap(), false),
                Field::new("value", data_type(rng, depth + 1), true),
            ];
            DataType::Map(std::sync::Arc::new(Field::new("entries", DataType::Struct(pair.into()), false)), false)
        }
    }
}

pub fn record(rng: &mut StdRng, fields: &Fields) -> Vec<u8> {
    let mut out = String::new();
    space(rng, &mut out);
    object(rng, fields, &mut out);
    space(rng, &mut out);
    out.into_bytes()
}

fn space(rng: &mut StdRng, out: &mut String) {
    if rng.random_ratio(1, 12) {
        out.push_str([" ", "\n", "\t", "\r\n", "   "].choose(rng).unwrap());
    }
}

fn object(rng: &mut StdRng, fields: &Fields, out: &mut String) {
    let mut members: Vec<(String, Option<&DataType>)> = Vec::new();
    for field in fields {
        if rng.random_ratio(9, 10) {
            members.push((field.name().clone(), Some(field.data_type())));
        }
        if rng.random_ratio(1, 10) {
            let name = if rng.random() { field.name().to_uppercase() } else { field.name().clone() };
            members.push((name, Some(field.data_type())));
        }
    }
    if rng.random_ratio(1, 5) {
        members.push((NAMES.choose(rng).unwrap().to_string() + "_unknown", None));
    }
    if rng.random_ratio(1, 4) && members.len() > 1 {
        let (i, j) = (rng.random_range(0..members.len()), rng.random_range(0..members.len()));
        members.swap(i, j);
    }
    out.push('{');
    for (i, (name, data_type)) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        space(rng, out);
        string(rng, name, out);
        space(rng, out);
        out.push(':');
        space(rng, out);
        match data_type {
            Some(data_type) => value(rng, data_type, out),
            None => anything(rng, 0, out),
        }
        space(rng, out);
    }
    out.push('}');
}

fn string(rng: &mut StdRng, text: &str, out: &mut String) {
    let rare = rng.random_ratio(1, 10);
    out.push('"');
    for c in text.chars() {
        if rare && rng.random() {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else if c == '"' || c == '\\' {
            out.push('\\');
            out.push(c);
        } else if c < ' ' {
            out.push_str(&format!("\\u{:04X}", c as u32));
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

fn value(rng: &mut StdRng, data_type: &DataType, out: &mut String) {
    match rng.random_range(0..40) {
        0..3 => return out.push_str("null"),
        3 => return anything(rng, 0, out),
        _ => {}
    }
    match data_type {
        DataType::Struct(fields) => object(rng, fields, out),
        DataType::List(item) => {
            out.push('[');
            for i in 0..rng.random_range(0..4) {
                if i > 0 {
                    out.push(',');
                }
                space(rng, out);
                value(rng, item.data_type(), out);
            }
            out.push(']');
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { panic!() };
            out.push('{');
            for i in 0..if rng.random_ratio(1, 8) { rng.random_range(0..24) } else { rng.random_range(0..4) } {
                if i > 0 {
                    out.push(',');
                }
                let key = plain(rng, pair[0].data_type());
                string(rng, key.trim_matches('"'), out);
                out.push(':');
                value(rng, pair[1].data_type(), out);
            }
            out.push('}');
        }
        _ => {
            let text = plain(rng, data_type);
            match text.strip_prefix('"') {
                Some(text) => string(rng, text.trim_end_matches('"'), out),
                None => out.push_str(&text),
            }
        }
    }
}

/// JSON text of a plain value that probably fits, strings without escapes.
fn plain(rng: &mut StdRng, data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => {
            let words = [
                "",
                "a",
                "Cairo",
                "über",
                "日本",
                "😀",
                "tab\there",
                "quote\"",
                "back\\",
                "a long text without any special characters",
            ];
            format!("\"{}{}\"", words.choose(rng).unwrap(), words.choose(rng).unwrap())
        }
        DataType::Boolean => ["true", "false"].choose(rng).unwrap().to_string(),
        DataType::Date32 => {
            format!(
                "\"{:04}-{:02}-{:02}\"",
                rng.random_range(0..9999),
                rng.random_range(1..13),
                rng.random_range(1..32)
            )
        }
        DataType::Timestamp(..) => {
            let zone = if rng.random_ratio(1, 3) {
                *["Z", "z", "+02:00", "-0530", "+14", "+24"].choose(rng).unwrap()
            } else {
                ""
            };
            let fraction = *["", "", ".5", ".123456", ".123456789", ".1234567890"].choose(rng).unwrap();
            let second = *[":00", ":59", ":60", ""].choose(rng).unwrap();
            let (day, hour) = (rng.random_range(1..30), rng.random_range(0..25));
            let t = ["T", " ", "t"].choose(rng).unwrap();
            format!("\"{:04}-02-{day:02}{t}{hour:02}:07{second}{fraction}{zone}\"", rng.random_range(1900..2100))
        }
        DataType::Binary => {
            let texts = ["", "AA==", "AA", "aGVsbG8=", "aGVsbG8", "-_-_", "+/+/", "AB==", "A", "A===", "YQ=="];
            format!("\"{}\"", texts.choose(rng).unwrap())
        }
        _ => number(rng),
    }
}

fn number(rng: &mut StdRng) -> String {
    let magnitude = rng.random_range(0..64);
    let mut text = match rng.random_range(0..10) {
        0..4 => (rng.random::<i64>() >> magnitude).to_string(),
        4 => format!("{}.{}", rng.random::<i64>() >> magnitude, rng.random_range(0..100)),
        5 => format!("{}.{:03}e{}", rng.random_range(-20..20), rng.random_range(0..1000), rng.random_range(-4..30)),
        6 => format!("{}", rng.random::<f64>() * 10f64.powi(rng.random_range(-40..40))),
        7 => format!("{}{}", rng.random::<u64>(), rng.random::<u64>()),
        8 => [
            "0",
            "-0",
            "1.0",
            "1e2",
            "100e-2",
            "0.00",
            "1E400",
            "1e-400",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "0e99999999999",
            "127",
            "128",
            "-128",
            "99999999.99",
            "0.1",
            "3.4028236e38",
            "1e39",
            "0.00000000000000000000000000000000000001",
            "99999999999999999999999999999999999999",
        ]
        .choose(rng)
        .unwrap()
        .to_string(),
        _ => [
            "\"NaN\"",
            "\"Infinity\"",
            "\"-Infinity\"",
            "\"+5\"",
            "\".5\"",
            "\"5.\"",
            "\"007\"",
            "\" 1\"",
            "\"\"",
            "\"1e1\"",
            "\"inf\"",
        ]
        .choose(rng)
        .unwrap()
        .to_string(),
    };
    if rng.random_ratio(1, 6) && !text.starts_with('"') {
        text = format!("\"{text}\"");
    }
    text
}

fn anything(rng: &mut StdRng, depth: usize, out: &mut String) {
    match rng.random_range(0..if depth > 4 { 5 } else { 7 }) {
        0 => out.push_str("null"),
        1 => out.push_str(["true", "false"].choose(rng).unwrap()),
        2 => out.push_str(&number(rng)),
        3 => string(rng, "some \"text\" ü\n", out),
        4 => out.push_str(["{}", "[]", "\"\""].choose(rng).unwrap()),
        5 => {
            out.push('[');
            anything(rng, depth + 1, out);
            out.push(',');
            anything(rng, depth + 1, out);
            out.push(']');
        }
        _ => {
            out.push_str("{\"k\":");
            anything(rng, depth + 1, out);
            out.push('}');
        }
    }
}

/// Changes some bytes, cuts, doubles or swaps pieces.
pub fn damage(rng: &mut StdRng, record: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..3) {
        let at = rng.random_range(0..=record.len());
        match rng.random_range(0..6) {
            0 => record.truncate(at),
            1 if at < record.len() => {
                record.remove(at);
            }
            2 => record.insert(at, *b"{}[]\",:\\0-.eEtn \x00\x1f\x7f\xc3\xff".choose(rng).unwrap()),
            3 if at < record.len() => record[at] = rng.random(),
            4 if at < record.len() => record[at] ^= 1 << rng.random_range(0..8),
            _ => {
                let end = rng.random_range(at..=record.len());
                let piece = record[at..end].to_vec();
                let to = rng.random_range(0..=record.len());
                record.splice(to..to, piece);
            }
        }
    }
}
