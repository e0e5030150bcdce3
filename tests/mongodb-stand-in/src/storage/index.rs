//! Secondary indexes. Only unique ones hold entries: they refuse duplicates, and reads may go by them (`walk`).

use std::collections::BTreeMap;
use std::ops::Bound;

use bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::namespace::Namespace;
use super::rows;
use crate::failure::{Failure, code};
use crate::query::filter::Filter;
use crate::value::order::Key;
use crate::value::path::{self, Path};
use crate::value::read::Read;

#[derive(Debug)]
pub struct Index {
    pub name: String,
    pub specification: RawDocumentBuf,
    pub unique: bool,
    sparse: bool,
    partial: Option<Filter>,
    fields: Vec<(String, Path)>,
    /// From the indexed values to the row's `_id`.
    entries: BTreeMap<Key, Key>,
}

impl Index {
    pub fn parse(specification: &RawDocument) -> Result<Self, Failure> {
        let key = specification.document("key").ok_or_else(|| Failure::unparsable("an index needs a key"))?;
        let fields =
            key.iter().map(|field| field.map(|(name, _)| (name.as_str().to_owned(), path::parse(name.as_str()))));
        Ok(Self {
            name: specification.needed_text("name")?.to_owned(),
            specification: specification.to_owned(),
            unique: specification.is_set("unique"),
            sparse: specification.is_set("sparse"),
            partial: specification.document("partialFilterExpression").map(Filter::parse).transpose()?,
            fields: fields.collect::<Result<_, _>>()?,
            entries: BTreeMap::new(),
        })
    }

    pub fn pattern(&self) -> Option<&RawDocument> {
        self.specification.document("key")
    }

    /// The entries of a row: one, or one per element where a field holds an array.
    pub fn keys(&self, row: &RawDocument) -> Vec<Key> {
        if !self.unique || self.partial.as_ref().is_some_and(|partial| !partial.matches(row)) {
            return Vec::new();
        }
        let mut found_any = false;
        let mut keys: Vec<Vec<RawBsonRef<'_>>> = vec![Vec::new()];
        for (_, path) in &self.fields {
            let mut found = Vec::new();
            path::resolve(row, path, &mut found);
            let mut values = Vec::new();
            for value in found {
                found_any |= value.is_some();
                match value {
                    Some(RawBsonRef::Array(array)) if !array.is_empty() => values.extend(array.into_iter().flatten()),
                    Some(RawBsonRef::Array(_)) => values.push(RawBsonRef::Undefined),
                    value => values.push(value.unwrap_or(RawBsonRef::Null)),
                }
            }
            keys = keys
                .iter()
                .flat_map(|key| values.iter().map(|value| key.iter().copied().chain([*value]).collect()))
                .collect();
        }
        if self.sparse && !found_any {
            return Vec::new();
        }
        let mut keys: Vec<Key> =
            keys.into_iter().map(|key| Key(RawBson::Array(key.into_iter().collect::<RawArrayBuf>()))).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Whether every row has an entry, so that a read may go by it.
    pub fn has_all(&self) -> bool {
        self.unique && !self.sparse && self.partial.is_none()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// The entries between two places, with their rows' `_id`s.
    pub fn between<'a>(
        &'a self,
        low: Bound<&Key>,
        high: Bound<&Key>,
    ) -> Box<dyn Iterator<Item = (&'a Key, &'a Key)> + 'a> {
        if rows::is_empty((low, high)) {
            return Box::new(std::iter::empty());
        }
        Box::new(self.entries.range::<Key, _>((low, high)))
    }

    pub fn holder(&self, key: &Key) -> Option<&Key> {
        self.entries.get(key)
    }

    pub fn replace(&mut self, id: &Key, old: Option<&RawDocument>, new: Option<&RawDocument>) {
        for key in old.map(|old| self.keys(old)).unwrap_or_default() {
            if self.entries.get(&key) == Some(id) {
                self.entries.remove(&key);
            }
        }
        for key in new.map(|new| self.keys(new)).unwrap_or_default() {
            self.entries.insert(key, id.clone());
        }
    }

    pub fn duplicate(&self, namespace: &Namespace, key: &Key) -> Failure {
        let mut values = RawDocumentBuf::new();
        if let RawBsonRef::Array(array) = key.value() {
            for ((name, _), value) in self.fields.iter().zip(array.into_iter().flatten()) {
                if let Ok(name) = bson::raw::CString::try_from(name.as_str()) {
                    values.append(name, value);
                }
            }
        }
        duplicate(namespace, &self.name, self.pattern().unwrap_or(&RawDocumentBuf::new()), &values)
    }
}

pub fn duplicate_id(namespace: &Namespace, key: &Key) -> Failure {
    duplicate(namespace, "_id_", &rawdoc! {"_id": 1}, &rawdoc! {"_id": key.0.clone()})
}

fn duplicate(namespace: &Namespace, index: &str, pattern: &RawDocument, values: &RawDocument) -> Failure {
    let shown = bson::Document::try_from(values).map(|values| values.to_string()).unwrap_or_default();
    let message = format!("E11000 duplicate key error collection: {namespace} index: {index} dup key: {shown}");
    let mut failure = Failure::new(code::DUPLICATE_KEY, message);
    failure.details = rawdoc! { "keyPattern": pattern.to_owned(), "keyValue": values.to_owned() };
    failure
}
