//! A configuration as it was written: values with the places that they stand at.

use crate::config::place::{Place, Problems};
use std::borrow::Cow;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// Something that no field takes, by its name.
    Other(&'static str),
}

/// In the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<Entry>);

#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    /// Of the name; the value has its own.
    pub place: Place,
    pub node: Node,
}

impl Node {
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    /// The text of an environment variable, which may stand for a value of any kind.
    pub fn environment_text(&self) -> Option<&str> {
        match (&self.value, &self.place) {
            (Value::Text(text), Place::Environment(_)) => Some(text),
            _ => None,
        }
    }
}

impl Table {
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }
}

/// Reads a file's text; every mistake of syntax is reported.
pub fn parse(text: &str, problems: &Problems) -> Table {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = error.span().map_or(Place::Unknown, |span| place_of(text, span.start));
        // The message alone: an error's Display shows the line, which may hold a password (invariant 11).
        problems.add(&place, "", error.message());
    }
    table(document.get_ref(), &|offset| place_of(text, offset))
}

/// Reads a list or a table out of an environment variable; None for what is neither.
pub fn parse_value(text: &str, name: &Arc<str>) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let at = |_| Place::Environment(name.clone());
    Some(Node { value: convert(value.get_ref(), &at), place: at(0) })
}

fn table(document: &DeTable<'_>, at: &dyn Fn(usize) -> Place) -> Table {
    let mut entries: Vec<_> = document.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let entry = |(name, value): &(&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| Entry {
        name: name.get_ref().to_string(),
        place: at(name.span().start),
        node: node(value, at),
    };
    Table(entries.iter().map(entry).collect())
}

fn node(value: &Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> Place) -> Node {
    Node { value: convert(value.get_ref(), at), place: at(value.span().start) }
}

fn convert(value: &DeValue<'_>, at: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number beyond all bounds"),
        },
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(array) => Value::Array(array.iter().map(|value| node(value, at)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, at)),
    }
}

fn place_of(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    Place::File { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}
