//! One table of the configuration, read field by field: each mistake is noted and reading goes on.

use crate::config::place::{Place, Problems, suggestion};
use crate::config::tree::{Entry, Node, Table, Value, parse_value};
use crate::config::units;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A field as the reference lists it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the name is needed for reading; the reference needs the rest"))]
pub struct Field {
    pub name: &'static str,
    /// What it takes: `text`, `size`, `"initial" or "never"`.
    pub takes: &'static str,
    /// As it would be written; empty where there is none.
    pub default: &'static str,
    pub about: &'static str,
}

#[derive(Clone)]
pub struct Section<'a> {
    /// As in `pipelines.customers`; empty for the root.
    pub path: String,
    /// Where it stands, for what is missing from it.
    pub place: Place,
    table: Table,
    problems: &'a Problems,
}

/// What was found, with its place.
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

impl<'a> Section<'a> {
    /// A section whose fields are not looked at: their names are the user's, or checked later.
    pub fn open(path: &str, place: Place, table: Table, problems: &'a Problems) -> Self {
        Self { path: path.to_owned(), place, table, problems }
    }

    /// A section with these fields and no others.
    pub fn new(path: &str, place: Place, table: Table, fields: &[Field], problems: &'a Problems) -> Self {
        let section = Self::open(path, place, table, problems);
        for entry in &section.table.0 {
            let mut names = fields.iter().map(|field| field.name);
            if !names.any(|name| name == entry.name) {
                section.unknown(entry, fields.iter().map(|field| field.name));
            }
        }
        section
    }

    pub fn unknown<'n>(&self, entry: &Entry, known: impl IntoIterator<Item = &'n str> + Clone) {
        let suggestion = suggestion(&entry.name, known);
        self.problems.add(&entry.place, &self.path, format!("unknown field {:?}{suggestion}", entry.name));
    }

    pub fn entries(&self) -> &[Entry] {
        &self.table.0
    }

    pub fn has(&self, name: &str) -> bool {
        self.table.get(name).is_some()
    }

    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn place_of(&self, name: &str) -> Place {
        self.table.get(name).map_or_else(|| self.place.clone(), |entry| entry.node.place.clone())
    }

    /// Notes a mistake in a field, or in the section as a whole where `name` is empty.
    pub fn problem(&self, name: &str, text: impl Into<String>) {
        let path = if name.is_empty() { self.path.clone() } else { self.path_of(name) };
        self.problems.add(&self.place_of(name), &path, text);
    }

    pub fn problem_at(&self, place: &Place, name: &str, text: impl Into<String>) {
        self.problems.add(place, &self.path_of(name), text);
    }

    pub fn missing(&self, name: &str, example: &str) {
        self.problem(name, format!("is missing; write {example}"));
    }

    fn wrong(&self, name: &str, node: &Node, wanted: &str) {
        self.problems.add(&node.place, &self.path_of(name), format!("must be {wanted}, not {}", node.kind()));
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.table.get(name).map(|entry| &entry.node)
    }

    pub fn text(&self, name: &str) -> Option<At<String>> {
        let node = self.node(name)?;
        match &node.value {
            Value::Text(text) => Some(At { value: text.clone(), place: node.place.clone() }),
            Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) | Value::Other(_) => {
                self.wrong(name, node, "text");
                None
            }
        }
    }

    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(choice, _)| *choice == text.value);
        if found.is_none() {
            let suggestion = suggestion(&text.value, choices.iter().map(|(choice, _)| *choice));
            self.problem(name, format!("there is no {:?}{suggestion}", text.value));
        }
        found.map(|(_, value)| *value)
    }

    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.node(name)?;
        let number = match (&node.value, node.environment_text()) {
            (Value::Integer(number), _) => u64::try_from(*number).ok(),
            (_, Some(text)) => text.trim().parse().ok(),
            (_, None) => {
                self.wrong(name, node, "a number");
                return None;
            }
        };
        self.within(name, number, &range, u64::to_string)
    }

    pub fn signed(&self, name: &str) -> Option<i64> {
        let node = self.node(name)?;
        let number = match (&node.value, node.environment_text()) {
            (Value::Integer(number), _) => Some(*number),
            (_, Some(text)) => text.trim().parse().ok(),
            (_, None) => None,
        };
        if number.is_none() {
            self.problem(name, "must be a whole number");
        }
        number
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        let node = self.node(name)?;
        let flag = match (&node.value, node.environment_text()) {
            (Value::Boolean(flag), _) => Some(*flag),
            (_, Some(text)) => text.trim().parse().ok(),
            (_, None) => None,
        };
        if flag.is_none() {
            self.wrong(name, node, "true or false");
        }
        flag
    }

    /// In bytes.
    pub fn size(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.with_unit(name, "64MiB")?;
        match units::size(&text) {
            Some(bytes) => self.within(name, Some(bytes), &range, |bytes| units::show_size(*bytes)),
            None => {
                self.problem(name, format!("{text:?} is no size; write a number and its unit, as in \"64MiB\""));
                None
            }
        }
    }

    pub fn duration(&self, name: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.with_unit(name, "10s")?;
        match units::duration(&text) {
            Some(duration) => self.within(name, Some(duration), &range, |duration| units::show_duration(*duration)),
            None => {
                self.problem(name, format!("{text:?} is no duration; write a number and its unit, as in \"10s\""));
                None
            }
        }
    }

    fn with_unit(&self, name: &str, example: &str) -> Option<String> {
        match &self.node(name)?.value {
            Value::Integer(number) => {
                self.problem(name, format!("{number} lacks its unit; write it as in {example:?}"));
                None
            }
            Value::Text(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) | Value::Other(_) => {
                self.text(name).map(|text| text.value)
            }
        }
    }

    fn within<T: PartialOrd>(
        &self,
        name: &str,
        value: Option<T>,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let found = value.filter(|value| range.contains(value));
        if found.is_none() {
            self.problem(name, format!("must be from {} to {}", show(range.start()), show(range.end())));
        }
        found
    }

    /// A list of texts. An environment variable may hold them with commas between them.
    pub fn texts(&self, name: &str) -> Option<Vec<At<String>>> {
        let node = self.node(name)?;
        let separated = node.environment_text().filter(|text| !text.trim_start().starts_with('['));
        if let Some(text) = separated {
            let part = |part: &str| At { value: part.trim().to_owned(), place: node.place.clone() };
            return Some(text.split(',').map(part).collect());
        }
        let mut texts = Vec::new();
        for item in self.list(name, "a list of texts")? {
            match item.value {
                Value::Text(text) => texts.push(At { value: text, place: item.place }),
                Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) | Value::Other(_) => {
                    self.wrong(name, &item, "a list of texts");
                }
            }
        }
        Some(texts)
    }

    /// A text, or a list of texts.
    pub fn text_or_texts(&self, name: &str) -> Option<Vec<At<String>>> {
        match self.node(name)? {
            Node { value: Value::Text(text), place } if !matches!(place, Place::Environment(_)) => {
                Some(vec![At { value: text.clone(), place: place.clone() }])
            }
            _ => self.texts(name),
        }
    }

    fn list(&self, name: &str, wanted: &str) -> Option<Vec<Node>> {
        let node = self.structured(name)?;
        match node.value {
            Value::Array(items) => Some(items),
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Other(_) => {
                self.wrong(name, &node, wanted);
                None
            }
        }
    }

    /// A field's value; an environment variable's text is read as TOML.
    fn structured(&self, name: &str) -> Option<Node> {
        let node = self.node(name)?;
        match (node.environment_text(), &node.place) {
            (Some(text), Place::Environment(variable)) => Some(parse_value(text, variable).unwrap_or(node.clone())),
            _ => Some(node.clone()),
        }
    }

    /// The section of that name; an empty one where it is missing or no table.
    pub fn section(&self, name: &str, fields: &[Field]) -> Section<'a> {
        let open = self.open_section(name);
        Section::new(&open.path, open.place, open.table, fields, self.problems)
    }

    /// The section of that name, whose own names are the user's.
    pub fn open_section(&self, name: &str) -> Section<'a> {
        let (place, table) = self.table_of(name).unwrap_or_else(|| (self.place.clone(), Table::default()));
        Section::open(&self.path_of(name), place, table, self.problems)
    }

    /// The sections in a table whose names are the user's. They are not checked for unknown fields.
    pub fn named(&self, name: &str) -> Vec<(String, Section<'a>)> {
        let Some((place, table)) = self.table_of(name) else { return vec![] };
        let outer = Section::open(&self.path_of(name), place, table, self.problems);
        let inner = |entry: &Entry| {
            let table = outer.table_of(&entry.name).map(|(_, table)| table).unwrap_or_default();
            let place = entry.place.clone();
            (entry.name.clone(), Section::open(&outer.path_of(&entry.name), place, table, self.problems))
        };
        outer.entries().iter().map(inner).collect()
    }

    /// The tables of a list: `[[pipelines.customers.tables]]`.
    pub fn sections(&self, name: &str, fields: &[Field]) -> Option<Vec<Section<'a>>> {
        let mut sections = Vec::new();
        for (index, item) in self.list(name, "a list of tables")?.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(name));
            match item.value {
                Value::Table(table) => sections.push(Section::new(&path, item.place, table, fields, self.problems)),
                Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Other(_) => {
                    self.problems.add(&item.place, &path, format!("must be a table, not {}", item.kind()));
                }
            }
        }
        Some(sections)
    }

    fn table_of(&self, name: &str) -> Option<(Place, Table)> {
        let node = self.structured(name)?;
        // A table's own place is that of its header.
        let place = self.table.get(name).map_or(node.place.clone(), |entry| entry.place.clone());
        match node.value {
            Value::Table(table) => Some((place, table)),
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Other(_) => {
                self.wrong(name, &node, "a table");
                None
            }
        }
    }
}
