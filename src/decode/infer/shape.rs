//! What a field's values have been, and the type that takes them all.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use indexmap::IndexMap;
use std::sync::Arc;

use super::numbers::{Numbers, is_code, is_number};
use super::text::Texts;
use super::tree::Tree;

/// Objects with more different keys than this, none of which most of them have, are MAPs.
const MANY_KEYS: usize = 64;
/// Types nest at most so deep; what is deeper is rescued.
const MAX_DEPTH: usize = 40;

/// Everything seen of one field.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Values, nulls included.
    pub seen: u64,
    pub nulls: u64,
    booleans: u64,
    numbers: Numbers,
    texts: Option<Texts>,
    lists: u64,
    item: Option<Box<Shape>>,
    objects: u64,
    /// By the key in lower case: the decoder matches keys ignoring case.
    members: IndexMap<String, (String, Shape)>,
    /// These are CSV cells: any of them is text.
    cells: bool,
}

/// A column as it was guessed.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    pub name: String,
    pub data_type: DataType,
    /// strftime format of a date or timestamp that is not ISO 8601.
    pub format: Option<String>,
    /// What its reader should know.
    pub notes: Vec<String>,
    /// Some of its values fit no type: without rescued data their records are bad.
    pub misfit: bool,
}

impl Shape {
    /// Adds a value.
    pub fn add(&mut self, value: &Tree) {
        self.seen += 1;
        match value {
            Tree::Null => self.nulls += 1,
            Tree::Boolean(_) => self.booleans += 1,
            Tree::Number(text) => self.numbers.add(text),
            Tree::Text(text) => self.texts.get_or_insert_with(Texts::new).add(text),
            Tree::List(items) => {
                self.lists += 1;
                let item = self.item.get_or_insert_default();
                items.iter().for_each(|i| item.add(i));
            }
            Tree::Object(members) => {
                self.objects += 1;
                for (key, value) in members {
                    self.member(key).add(value);
                }
            }
        }
    }

    fn member(&mut self, key: &str) -> &mut Shape {
        &mut self.members.entry(key.to_lowercase()).or_insert_with(|| (key.to_string(), Shape::default())).1
    }

    /// The member `key` of the objects seen, ignoring case.
    pub fn get(&self, key: &str) -> Option<&Shape> {
        self.members.get(&key.to_lowercase()).map(|(_, shape)| shape)
    }

    /// Adds a CSV record: cells by their column's name; `None` is an empty cell.
    pub fn add_cells<'c>(&mut self, cells: impl IntoIterator<Item = (&'c str, Option<&'c str>)>) {
        self.seen += 1;
        self.objects += 1;
        for (name, cell) in cells {
            let member = self.member(name);
            member.cells = true;
            match cell {
                None => member.add(&Tree::Null),
                Some(text) => member.add(&cell_value(text)),
            }
        }
    }

    /// Adds all that another has seen.
    pub fn merge(&mut self, other: &Shape) {
        self.seen += other.seen;
        self.nulls += other.nulls;
        self.booleans += other.booleans;
        self.numbers.merge(&other.numbers);
        if let Some(texts) = &other.texts {
            self.texts.get_or_insert_with(Texts::new).merge(texts);
        }
        self.lists += other.lists;
        if let Some(item) = &other.item {
            self.item.get_or_insert_default().merge(item);
        }
        self.objects += other.objects;
        for (name, shape) in other.members.values() {
            self.member(name).merge(shape);
        }
    }

    /// How many kinds of values, nulls left out, there were.
    fn kinds(&self) -> usize {
        let texts = self.texts.as_ref().map_or(0, |t| t.count);
        [self.booleans, self.numbers.count, texts, self.lists, self.objects].into_iter().filter(|n| *n > 0).count()
    }

    /// The type that takes all values. `path` names the field in notes; what fits no type sets `guess.misfit`.
    fn data_type(&self, path: &str, depth: usize, guess: &mut Guess) -> DataType {
        let misfit = |guess: &mut Guess, note: String| {
            guess.misfit = true;
            guess.notes.push(note);
            DataType::Utf8
        };
        let at = |what: &str| if path.is_empty() { what.to_string() } else { format!("{path}: {what}") };
        match self.kinds() {
            0 => {
                guess.notes.push(at("null in all samples, so its type is a guess"));
                DataType::Utf8
            }
            _ if depth > MAX_DEPTH => misfit(guess, at("nested too deep, goes to rescued data")),
            1 if self.booleans > 0 => DataType::Boolean,
            1 if self.numbers.count > 0 => match self.numbers.data_type() {
                Some(data_type) => {
                    guess.notes.extend(self.numbers.notes(&data_type).into_iter().map(|note| at(&note)));
                    data_type
                }
                None => misfit(guess, at("has numbers beyond DOUBLE, which go to rescued data")),
            },
            1 if self.lists > 0 => {
                let item = match &self.item {
                    Some(item) if item.seen > 0 => item.data_type(&join(path, "[]"), depth + 1, guess),
                    _ => {
                        guess.notes.push(at("an empty array in all samples, so its items' type is a guess"));
                        DataType::Utf8
                    }
                };
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            }
            1 if self.objects > 0 => self.object_type(path, depth, guess),
            1 => self.text_type(path, guess),
            _ if self.cells => DataType::Utf8,
            _ => match self.number_or_text() {
                Some(data_type) => {
                    guess.notes.push(at("numbers, some of them written as text"));
                    data_type
                }
                None => {
                    misfit(guess, at(&format!("{} in the samples; what is no text goes to rescued data", self.found())))
                }
            },
        }
    }

    /// Numbers beside texts that are numbers too.
    fn number_or_text(&self) -> Option<DataType> {
        let texts = self.texts.as_ref()?;
        if self.kinds() != 2 || self.numbers.count == 0 || texts.numbers.count != texts.count {
            return None;
        }
        let mut all = self.numbers.clone();
        all.merge(&texts.numbers);
        all.data_type()
    }

    fn text_type(&self, path: &str, guess: &mut Guess) -> DataType {
        let Some(texts) = &self.texts else { return DataType::Utf8 };
        if texts.dates {
            return DataType::Date32;
        }
        if texts.instants {
            if texts.zoneless {
                let note = "has no time zone, and is read as UTC";
                guess.notes.push(if path.is_empty() { note.to_string() } else { format!("{path}: {note}") });
            }
            return DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        }
        if let Some(scale) = texts.scale {
            return DataType::Decimal128(if texts.longest <= 18 { 18 } else { 38 }, scale as i8);
        }
        // Only a column of its own can have a format.
        if path.is_empty() {
            match texts.format() {
                Ok(Some((format, instant))) => {
                    guess.format = Some(format.to_string());
                    return match instant {
                        true => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                        false => DataType::Date32,
                    };
                }
                Err([one, other]) => {
                    guess.notes.push(format!(
                        "if these are dates, add data_type: DATE or TIMESTAMP and format: \"{one}\" or \"{other}\""
                    ));
                }
                Ok(None) => {}
            }
        }
        DataType::Utf8
    }

    fn object_type(&self, path: &str, depth: usize, guess: &mut Guess) -> DataType {
        let map = |value: DataType| {
            let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair.into()), false)), false)
        };
        if self.members.is_empty() {
            let note = "an empty object in all samples, so its values' type is a guess";
            guess.notes.push(if path.is_empty() { note.to_string() } else { format!("{path}: {note}") });
            return map(DataType::Utf8);
        }
        let usual = self.members.values().any(|(_, shape)| shape.seen * 2 > self.objects);
        if self.members.len() > MANY_KEYS && !usual {
            let mut value = Shape::default();
            self.members.values().for_each(|(_, shape)| value.merge(shape));
            return map(value.data_type(&join(path, "{}"), depth + 1, guess));
        }
        let mut fields = Vec::with_capacity(self.members.len());
        for (name, shape) in self.members.values() {
            if is_template(name) {
                guess.misfit = true;
                guess.notes.push(format!("member {name:?} looks like Jinja, and goes to rescued data"));
                continue;
            }
            let path = join(path, name);
            fields.push(Field::new(name, shape.data_type(&path, depth + 1, guess), true));
        }
        if fields.is_empty() {
            return map(DataType::Utf8);
        }
        DataType::Struct(Fields::from(fields))
    }

    /// What kinds there were, in words.
    fn found(&self) -> String {
        let texts = self.texts.as_ref().map_or(0, |t| t.count);
        let kinds = [
            (self.booleans, "booleans"),
            (self.numbers.count, "numbers"),
            (texts, "texts"),
            (self.lists, "arrays"),
            (self.objects, "objects"),
        ];
        let found: Vec<&str> = kinds.into_iter().filter(|(n, _)| *n > 0).map(|(_, name)| name).collect();
        found.join(" and ")
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_string(),
        (path, "[]" | "{}") => format!("{path}{name}"),
        (path, name) => format!("{path}.{name}"),
    }
}

/// Text that the project's files would take for Jinja.
fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// What a CSV cell is: the decoder reads numbers and booleans in any type's words, and everything is text.
fn cell_value(text: &str) -> Tree {
    if is_number(text) && !is_code(text) {
        return Tree::Number(text.to_string());
    }
    match text.to_ascii_lowercase().as_str() {
        "true" => Tree::Boolean(true),
        "false" => Tree::Boolean(false),
        _ => Tree::Text(text.to_string()),
    }
}

/// The columns of records of this shape, in the order their keys were met.
pub fn columns(records: &Shape) -> Vec<Guess> {
    let mut columns = Vec::new();
    for (name, shape) in records.members.values() {
        let mut guess =
            Guess { name: name.clone(), data_type: DataType::Null, format: None, notes: Vec::new(), misfit: false };
        // No column can have such a name; rescued data, where it is asked for, keeps the values.
        if is_template(name) || name.trim().is_empty() {
            continue;
        }
        guess.data_type = shape.data_type("", 1, &mut guess);
        let absent = records.objects.saturating_sub(shape.seen);
        if shape.nulls < shape.seen && absent + shape.nulls > 0 {
            guess.notes.insert(0, format!("null or absent in {} of {}", absent + shape.nulls, records.objects));
        }
        columns.push(guess);
    }
    columns
}
