//! Keys in statements: their values as literals, and the conditions of ranges.

use super::Known;
use crate::error::Error;
use crate::literal;
use sync_worker_core::row::Key;
use sync_worker_core::schema::Column;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};

/// The labels of a column whose order is that of its number, not of its text.
#[derive(Clone, Debug)]
pub enum Numbered {
    Enum(Vec<String>),
    Set(Vec<String>),
}

impl Numbered {
    pub fn of(column: &Column) -> Option<Self> {
        match column.kind {
            ColumnType::Enum => Some(Self::Enum(labels(&column.type_name))),
            ColumnType::Set => Some(Self::Set(labels(&column.type_name))),
            _ => None,
        }
    }

    /// What the server stores: from 1, or a bit for each label.
    fn number(&self, text: &str) -> u64 {
        match self {
            Self::Enum(labels) => labels.iter().position(|label| label == text).map_or(0, |at| at as u64 + 1),
            Self::Set(labels) => {
                let bit = |member: &str| labels.iter().position(|label| label == member).map_or(0, |at| 1u64 << at);
                text.split(',').map(bit).fold(0, |mask, bit| mask | bit)
            }
        }
    }
}

/// The labels of `enum('a','b')`.
fn labels(type_name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = type_name;
    while let Some(start) = rest.find('\'') {
        let mut label = String::new();
        let mut characters = rest[start + 1..].char_indices().peekable();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            if character != '\'' {
                label.push(character);
            } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
                label.push('\'');
            } else {
                end = start + 1 + at + 1;
                break;
            }
        }
        found.push(label);
        rest = &rest[end..];
    }
    found
}

/// The values of a key as literals; `ordered` to compare by order, else for equality.
pub fn literals(known: &Known, key: &Key, ordered: bool) -> std::result::Result<Vec<String>, Error> {
    let unusable = |at: usize| Error::Value {
        table: known.schema.table.to_string(),
        column: known.schema.key.get(at).map_or(String::new(), |&at| known.schema.columns[at].name.clone()),
        problem: "a value of this type can't be looked up as a key".to_owned(),
    };
    let mut found = Vec::with_capacity(known.schema.key.len());
    for (at, cell) in key.cells().enumerate() {
        let Cell::Present(value) = cell? else { return Err(unusable(at)) };
        let value = match (value, known.numbered.get(at)) {
            // Ordered by their number, and compared by it with a number.
            (Value::Text(text), Some(Some(numbered))) if ordered => Value::unsigned(numbered.number(text)),
            (value, _) => value,
        };
        let mut text = String::new();
        literal::append(value, &mut text).ok_or_else(|| unusable(at))?;
        found.push(text);
    }
    match found.len() == known.schema.key.len() {
        true => Ok(found),
        false => Err(unusable(0)),
    }
}

/// `WHERE` for the keys between two, each row comparison written out, since the server uses its index for that form.
pub fn condition(known: &Known, after: Option<&Key>, up_to: Option<&Key>) -> std::result::Result<String, Error> {
    let names: Vec<String> = known.key_names().collect();
    let mut parts = Vec::new();
    for (key, strict, last) in [(after, ">", ">"), (up_to, "<", "<=")] {
        let Some(key) = key else { continue };
        let values = literals(known, key, true)?;
        let mut alternatives = Vec::new();
        for at in 0..names.len() {
            let operator = if at + 1 == names.len() { last } else { strict };
            let equal = names.iter().zip(&values).take(at).map(|(name, value)| format!("{name} = {value}"));
            let bound = format!("{} {operator} {}", names[at], values[at]);
            alternatives.push(equal.chain([bound]).collect::<Vec<_>>().join(" AND "));
        }
        parts.push(format!("(({}))", alternatives.join(") OR (")));
    }
    Ok(if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_taken_apart() {
        assert_eq!(labels("enum('a','it''s','','x,y')"), ["a", "it's", "", "x,y"]);
    }

    #[test]
    fn sets_are_ordered_by_their_bits() {
        let set = Numbered::Set(labels("set('a','b','c')"));
        assert_eq!(["", "a", "b", "a,b", "c"].map(|text| set.number(text)), [0, 1, 2, 3, 4]);
    }
}
