//! Creating, changing, renaming and dropping collections and indexes.

use bson::{Binary, RawDocument, RawDocumentBuf, spec::BinarySubtype};

use super::collection::Collection;
use super::index::Index;
use super::namespace::Namespace;
use super::oplog::{Change, Entry};
use super::store::Store;
use super::write::missing;
use crate::failure::{Failure, code};
use crate::query::filter::Filter;
use crate::value::append_all;
use crate::value::read::Read;

impl Store {
    pub fn needed(&self, namespace: &Namespace) -> Result<&Collection, Failure> {
        self.collection(namespace).ok_or_else(|| missing(namespace))
    }

    pub fn ensure(&mut self, namespace: &Namespace) -> Result<bool, Failure> {
        let is_new = !self.collections.contains_key(namespace);
        if is_new {
            self.create(namespace, &RawDocumentBuf::new())?;
        }
        Ok(is_new)
    }

    pub fn create(&mut self, namespace: &Namespace, options: &RawDocument) -> Result<(), Failure> {
        if self.collections.contains_key(namespace) {
            return Err(Failure::new(code::NAMESPACE_EXISTS, format!("Collection {namespace} already exists.")));
        }
        namespace.check_writable()?;
        options.document("validator").map(Filter::parse).transpose()?;
        self.change_catalog(namespace, Change::Create { options: options.to_owned() })
    }

    pub fn modify(&mut self, namespace: &Namespace, changed: &RawDocument) -> Result<(), Failure> {
        let old = &self.needed(namespace)?.options;
        changed.document("validator").map(Filter::parse).transpose()?;
        let mut options = RawDocumentBuf::new();
        for (name, value) in old.iter().flatten() {
            if changed.value(name.as_str()).is_none() {
                options.append(name, value);
            }
        }
        append_all(&mut options, changed);
        self.change_catalog(namespace, Change::Modify { options })
    }

    pub fn drop_collection(&mut self, namespace: &Namespace) -> Result<(), Failure> {
        self.change_catalog(namespace, Change::Drop)
    }

    pub fn drop_database(&mut self, database: &str) -> Result<(), Failure> {
        let all: Vec<Namespace> = self.in_database(database).map(|collection| collection.namespace.clone()).collect();
        if all.is_empty() {
            return Ok(());
        }
        for namespace in all {
            self.drop_collection(&namespace)?;
        }
        self.change_catalog(&Namespace::of_database(database), Change::DropDatabase)
    }

    pub fn rename(&mut self, from: &Namespace, to: &Namespace, drop_target: bool) -> Result<(), Failure> {
        self.needed(from)?;
        to.check_writable()?;
        if self.collections.contains_key(to) {
            if !drop_target {
                return Err(Failure::new(code::NAMESPACE_EXISTS, "target namespace exists"));
            }
            self.drop_collection(to)?;
        }
        self.change_catalog(from, Change::Rename { to: to.clone() })
    }

    /// Makes an index unless the same one is there.
    pub fn create_index(&mut self, namespace: &Namespace, given: &RawDocument) -> Result<(), Failure> {
        let mut specification = RawDocumentBuf::new();
        specification.append(bson::raw::cstr!("v"), 2);
        for (name, value) in given.iter().flatten() {
            if name.as_str() != "v" {
                specification.append(name, value);
            }
        }
        let mut index = Index::parse(&specification)?;
        let collection = self.needed(namespace)?;
        if index.name == "_id_" {
            return Ok(());
        }
        if let Some(known) = collection.indexes.iter().find(|known| known.name == index.name) {
            if known.pattern() == index.pattern() && known.unique == index.unique {
                return Ok(());
            }
            return Err(Failure::new(
                86,
                format!("An existing index has the same name as the requested index: {}", index.name),
            ));
        }
        for (key, row) in collection.rows.now() {
            for entry in index.keys(row) {
                if index.holder(&entry).is_some() {
                    return Err(index.duplicate(namespace, &entry));
                }
            }
            index.replace(key, None, Some(row));
        }
        self.change_catalog(namespace, Change::CreateIndex { specification })
    }

    pub fn drop_index(&mut self, namespace: &Namespace, name: &str) -> Result<(), Failure> {
        let index = self.needed(namespace)?.indexes.iter().find(|index| index.name == name);
        let Some(index) = index else {
            return Err(Failure::new(27, format!("index not found with name [{name}]")));
        };
        let specification = index.specification.clone();
        self.change_catalog(namespace, Change::DropIndex { name: name.to_owned(), specification })
    }

    pub fn note(&mut self, data: &RawDocument) -> Result<(), Failure> {
        self.change_catalog(&Namespace::new("local", "note"), Change::Note { data: data.to_owned() })
    }

    fn change_catalog(&mut self, namespace: &Namespace, change: Change) -> Result<(), Failure> {
        self.commit(None, vec![(namespace.clone(), change)])
    }

    pub(super) fn apply_to_catalog(&mut self, entry: &mut Entry) -> Result<(), Failure> {
        let namespace = &entry.namespace;
        match &entry.change {
            Change::Create { options } => {
                let uuid = entry.collection.get_or_insert_with(new_uuid).clone();
                let collection = Collection::new(namespace.clone(), uuid, options)?;
                self.collections.insert(namespace.clone(), collection);
            }
            Change::Drop => {
                self.collections.remove(namespace);
                self.gone.insert(namespace.clone(), entry.time);
            }
            Change::Rename { to } => {
                if let Some(mut collection) = self.collections.remove(namespace) {
                    collection.namespace = to.clone();
                    self.collections.insert(to.clone(), collection);
                }
                self.gone.insert(namespace.clone(), entry.time);
                self.gone.insert(to.clone(), entry.time);
            }
            Change::Modify { options } => {
                self.collections.get_mut(namespace).ok_or_else(|| missing(namespace))?.set_options(options)?;
            }
            Change::CreateIndex { specification } => {
                let collection = self.collections.get_mut(namespace).ok_or_else(|| missing(namespace))?;
                let mut index = Index::parse(specification)?;
                collection.rows.now().for_each(|(key, row)| index.replace(key, None, Some(row)));
                collection.indexes.push(index);
            }
            Change::DropIndex { name, .. } => {
                let collection = self.collections.get_mut(namespace).ok_or_else(|| missing(namespace))?;
                collection.indexes.retain(|index| index.name != *name);
            }
            _ => {}
        }
        Ok(())
    }
}

fn new_uuid() -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: bson::Uuid::new().bytes().to_vec() }
}
