//! Reads by a unique secondary index: between two places of it, or at single ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocument};

use super::collection::Collection;
use super::index::Index;
use super::oplog::Oplog;
use super::store::View;
use crate::failure::Failure;
use crate::query::condition::Condition;
use crate::query::filter::Filter;
use crate::value::Shared;
use crate::value::order::Key;
use crate::value::read::Read;

/// Which places of an index a read looks at.
#[derive(Debug)]
pub struct Walk {
    pub index: String,
    places: Places,
}

#[derive(Debug)]
enum Places {
    Between(Bound<Key>, Bound<Key>),
    At(Vec<Key>),
}

impl Walk {
    /// By the hint of a `find`; None where that is the index of `_id`, or one that holds no entries here.
    pub fn hinted(command: &RawDocument, collection: &Collection) -> Result<Option<Self>, Failure> {
        let named = |index: &&Index| match command.value("hint") {
            Some(RawBsonRef::String(name)) => index.name == name,
            Some(RawBsonRef::Document(pattern)) => index.pattern() == Some(pattern),
            _ => false,
        };
        let Some(index) = collection.indexes.iter().find(named) else {
            return match command.value("hint") {
                None | Some(RawBsonRef::String("_id_")) => Ok(None),
                Some(RawBsonRef::Document(pattern)) if is_by_id(pattern) => Ok(None),
                Some(_) => Err(Failure::bad_value(
                    "error processing query: planner returned error :: caused by :: hint provided does not correspond to an existing index",
                )),
            };
        };
        if !index.has_all() {
            return Ok(None);
        }
        let (low, high) = (place(command, "min", index)?, place(command, "max", index)?);
        let low = low.map_or(Bound::Unbounded, Bound::Included);
        let high = high.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(Some(Self { index: index.name.clone(), places: Places::Between(low, high) }))
    }

    /// By a filter that fixes all fields of an index.
    pub fn planned(filter: &Filter, collection: &Collection) -> Option<Self> {
        collection.indexes.iter().filter(|index| index.has_all()).find_map(|index| {
            let mut places = points(filter, index)?;
            places.sort();
            places.dedup();
            Some(Self { index: index.name.clone(), places: Places::At(places) })
        })
    }

    /// The rows at these places, in the order of the index, each once.
    pub fn rows(&self, collection: &Collection, oplog: &Oplog, view: View<'_>) -> Vec<Shared> {
        let Some(index) = collection.indexes.iter().find(|index| index.name == self.index) else { return Vec::new() };
        let own = view.transaction.and_then(|transaction| transaction.own(&collection.namespace));
        // Those whose entries may have been others at the time of the view.
        let mut moved: BTreeMap<&Key, Option<&Shared>> = BTreeMap::new();
        if let Some(time) = view.time {
            for at in oplog.first_at(time.next())..oplog.end() {
                let entry = oplog.at(at).filter(|entry| entry.namespace == collection.namespace);
                if let Some((key, _)) = entry.and_then(|entry| entry.change.row()) {
                    moved.insert(key, collection.rows.get(key, view.time));
                }
            }
        }
        moved.extend(own.into_iter().flatten().map(|(key, row)| (key, row.as_ref())));
        let mut found: BTreeMap<Key, &Shared> = BTreeMap::new();
        let mut seen: BTreeSet<&Key> = BTreeSet::new();
        for (entry, id) in self.entries(index) {
            if moved.contains_key(id) || !seen.insert(id) {
                continue;
            }
            if let Some(row) = collection.rows.get(id, view.time) {
                found.insert(entry.clone(), row);
            }
        }
        for row in moved.into_values().flatten() {
            if let Some(entry) = index.keys(row).into_iter().find(|entry| self.has(entry)) {
                found.insert(entry, row);
            }
        }
        found.into_values().cloned().collect()
    }

    /// The fields of its index.
    pub fn names<'a>(&self, collection: &'a Collection) -> impl Iterator<Item = &'a str> {
        let index = collection.indexes.iter().find(|index| index.name == self.index);
        index.into_iter().flat_map(Index::names)
    }

    fn entries<'a>(&'a self, index: &'a Index) -> Box<dyn Iterator<Item = (&'a Key, &'a Key)> + 'a> {
        match &self.places {
            Places::Between(low, high) => index.between(low.as_ref(), high.as_ref()),
            Places::At(keys) => Box::new(keys.iter().filter_map(|key| Some((key, index.holder(key)?)))),
        }
    }

    fn has(&self, entry: &Key) -> bool {
        match &self.places {
            Places::Between(low, high) => {
                let above = match low {
                    Bound::Included(low) => entry >= low,
                    Bound::Excluded(low) => entry > low,
                    Bound::Unbounded => true,
                };
                above
                    && match high {
                        Bound::Included(high) => entry <= high,
                        Bound::Excluded(high) => entry < high,
                        Bound::Unbounded => true,
                    }
            }
            Places::At(keys) => keys.binary_search(entry).is_ok(),
        }
    }
}

fn is_by_id(pattern: &RawDocument) -> bool {
    pattern.iter_elements().flatten().all(|field| matches!(field.key().as_str(), "_id" | "$natural"))
}

/// A bound names the fields of the index, all of them in its order.
fn place(command: &RawDocument, name: &str, index: &Index) -> Result<Option<Key>, Failure> {
    let Some(bound) = command.document(name) else { return Ok(None) };
    let mut values = RawArrayBuf::new();
    let mut fields = index.names();
    for field in bound.iter() {
        let (field, value) = field?;
        if fields.next() != Some(field.as_str()) {
            return Err(mismatch(name));
        }
        values.push(RawBson::from(value));
    }
    if fields.next().is_some() { Err(mismatch(name)) } else { Ok(Some(Key(RawBson::Array(values)))) }
}

fn mismatch(name: &str) -> Failure {
    Failure::new(51174, format!("{name} does not match the fields of the index that is hinted at"))
}

/// The entries that a match of the filter has one of; None where it does not fix them.
fn points(filter: &Filter, index: &Index) -> Option<Vec<Key>> {
    if let Filter::Any(branches) = filter {
        let all: Option<Vec<Vec<Key>>> = branches.iter().map(|branch| points(branch, index)).collect();
        return Some(all?.concat());
    }
    let mut keys: Vec<Vec<&RawBson>> = vec![Vec::new()];
    for name in index.names() {
        let mut conditions = Vec::new();
        filter.conditions_of(name, &mut conditions);
        let values = conditions.into_iter().find_map(values)?;
        keys = keys
            .iter()
            .flat_map(|key| values.iter().map(|value| key.iter().copied().chain([*value]).collect()))
            .collect();
    }
    let key = |values: Vec<&RawBson>| {
        let mut array = RawArrayBuf::new();
        values.into_iter().for_each(|value| array.push(value.clone()));
        Key(RawBson::Array(array))
    };
    Some(keys.into_iter().map(key).collect())
}

/// The values that a condition fixes. One that is an array stands in the index by its elements.
fn values(condition: &Condition) -> Option<Vec<&RawBson>> {
    match condition {
        Condition::Equal(value) if !matches!(value, RawBson::Array(_)) => Some(vec![value]),
        Condition::In(conditions) => {
            let each: Option<Vec<_>> = conditions.iter().map(values).collect();
            Some(each?.concat())
        }
        _ => None,
    }
}
