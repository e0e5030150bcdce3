//! Environment variables over the file: `SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHOT=never`.
//!
//! Two underscores stand between the levels; case does not matter, and `_` also stands for the `-` of a name in the file.
//! A number is a place in a list, from 0. A variable's text stays text until the field that takes it says otherwise, so
//! that a password `0123` remains one.

use crate::config::place::{Place, Problems};
use crate::config::tree::{Entry, Node, Table, Value};
use std::sync::Arc;

pub const PREFIX: &str = "SYNC_WORKER__";

/// Lays the variables over what the file says, in the order of their names.
pub fn overlay(root: &mut Table, variables: &[(String, String)], problems: &Problems) {
    let mut variables: Vec<_> = variables.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let place = Place::Environment(Arc::from(name.as_str()));
        let path: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        if path.iter().any(|part| part.is_empty()) {
            problems.add(
                &place,
                "",
                "names no field: two underscores stand between the levels, SYNC_WORKER__HTTP__LISTEN",
            );
            continue;
        }
        let node = Node { value: Value::Text(value.clone()), place: place.clone() };
        set_in_table(root, &path, node, &place, problems);
    }
}

fn set_in_table(table: &mut Table, path: &[&str], node: Node, place: &Place, problems: &Problems) {
    let Some((first, rest)) = path.split_first() else { return };
    let position = table.0.iter().position(|entry| matches(&entry.name, first));
    let entry = match position {
        Some(position) => &mut table.0[position],
        None => {
            let empty = Node { value: Value::Table(Table::default()), place: place.clone() };
            table.0.push(Entry { name: first.to_lowercase(), place: place.clone(), node: empty });
            match table.0.last_mut() {
                Some(entry) => entry,
                None => return,
            }
        }
    };
    if rest.is_empty() {
        entry.place = place.clone();
    }
    set(&mut entry.node, rest, node, place, problems);
}

fn set(at: &mut Node, path: &[&str], node: Node, place: &Place, problems: &Problems) {
    let Some((first, rest)) = path.split_first() else {
        *at = node;
        return;
    };
    let index = first.parse::<usize>();
    match (&mut at.value, index) {
        (Value::Table(table), _) => set_in_table(table, path, node, place, problems),
        (Value::Array(items), Ok(index)) => {
            if index == items.len() {
                items.push(Node { value: Value::Table(Table::default()), place: place.clone() });
            }
            let length = items.len();
            match items.get_mut(index) {
                Some(item) => set(item, rest, node, place, problems),
                None => problems.add(
                    place,
                    "",
                    format!("there is no item {index} in a list of {length}; they count from 0"),
                ),
            }
        }
        (Value::Array(_), Err(_)) => {
            problems.add(place, "", format!("{first:?} is no place in a list; they count from 0"))
        }
        (Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Other(_), _) => {
            // A shorter form in the file gives way to a longer one.
            *at = Node { value: Value::Table(Table::default()), place: place.clone() };
            set(at, path, node, place, problems);
        }
    }
}

fn matches(name: &str, part: &str) -> bool {
    name.replace('-', "_").eq_ignore_ascii_case(&part.replace('-', "_"))
}
