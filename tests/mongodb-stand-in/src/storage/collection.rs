//! One collection: rows, indexes and options.

use bson::{Binary, RawDocument, RawDocumentBuf, rawdoc};

use super::clock::Time;
use super::index::Index;
use super::namespace::Namespace;
use super::rows::Rows;
use crate::failure::Failure;
use crate::query::filter::Filter;
use crate::value::Shared;
use crate::value::order::Key;
use crate::value::read::Read;

#[derive(Debug)]
pub struct Collection {
    pub namespace: Namespace,
    pub uuid: Binary,
    pub options: RawDocumentBuf,
    /// Whether pre- and post-images are kept for change streams.
    pub images: bool,
    validator: Option<Filter>,
    pub rows: Rows,
    /// Without the one on `_id`, which the rows are.
    pub indexes: Vec<Index>,
}

impl Collection {
    pub fn new(namespace: Namespace, uuid: Binary, options: &RawDocument) -> Result<Self, Failure> {
        let mut collection = Self {
            namespace,
            uuid,
            options: RawDocumentBuf::new(),
            images: false,
            validator: None,
            rows: Rows::default(),
            indexes: Vec::new(),
        };
        collection.set_options(options)?;
        Ok(collection)
    }

    pub fn set_options(&mut self, options: &RawDocument) -> Result<(), Failure> {
        self.options = options.to_owned();
        self.images = options.document("changeStreamPreAndPostImages").is_some_and(|images| images.is_set("enabled"));
        let validator = options.document("validator").filter(|_| options.text("validationAction") != Some("warn"));
        self.validator = validator.map(Filter::parse).transpose()?;
        Ok(())
    }

    pub fn put(&mut self, key: &Key, time: Time, row: Option<Shared>) -> Option<Shared> {
        let before = self.rows.put(key, time, row.clone());
        for index in self.indexes.iter_mut().filter(|index| index.unique) {
            index.replace(key, before.as_deref().map(AsRef::as_ref), row.as_deref().map(AsRef::as_ref));
        }
        before
    }

    /// Whether the collection's validator takes the document.
    pub fn validate(&self, row: &RawDocument) -> Result<(), Failure> {
        match &self.validator {
            Some(validator) if !validator.matches(row) => {
                let mut failure = Failure::new(121, "Document failed validation");
                let id: bson::RawBson = row.get("_id").ok().flatten().unwrap_or(bson::RawBsonRef::Null).into();
                failure.details = rawdoc! {
                    "errInfo": { "failingDocumentId": id, "details": { "operatorName": "validator" } }
                };
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    pub fn index_specifications(&self) -> Vec<Shared> {
        let id = rawdoc! {"v": 2, "key": {"_id": 1}, "name": "_id_"};
        let others = self.indexes.iter().map(|index| index.specification.clone());
        [id].into_iter().chain(others).map(Shared::new).collect()
    }
}
