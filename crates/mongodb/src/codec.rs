//! Documents as rows, and keys as the server takes them.

use crate::error::Error;
use crate::key::DocumentKey;
use bson::raw::CString;
use bson::{RawBson, RawDocumentBuf};
use sync_worker_core::document::write::Writer;
use sync_worker_core::document::{Document, Element, id};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::value::{Cell, Damaged, Value};

/// Builds rows of the two columns that a collection has.
#[derive(Default)]
pub struct Rows {
    builder: RowBuilder,
    scratch: Vec<u8>,
}

impl Rows {
    /// A whole document.
    pub fn whole(&mut self, key: &DocumentKey, document: Document<'_>) -> Result<Row, Error> {
        self.of(key, document, Cell::Present(Value::Document(document.as_bytes())))
    }

    /// What is known beside the key of a document.
    pub fn of(&mut self, key: &DocumentKey, document: Document<'_>, known: Cell<'_>) -> Result<Row, Error> {
        self.builder.push(Cell::Present(key.value(document, &mut self.scratch)?));
        self.builder.push(known);
        Ok(self.builder.finish())
    }

    /// What is known beside an `_id`.
    pub fn row(&mut self, id: Element<'_>, document: Cell<'_>) -> Result<Row, Error> {
        let id = id::canonical(id, &mut self.scratch)?;
        self.builder.push(Cell::Present(id));
        self.builder.push(document);
        Ok(self.builder.finish())
    }
}

/// A document with a key as its only field.
pub fn key_document(name: &str, key: &Key) -> Result<RawDocumentBuf, Error> {
    let Some(Ok(Cell::Present(value))) = key.cells().next() else {
        return Err(Damaged("a key without a value").into());
    };
    let mut bytes = Vec::new();
    let kind = id::element(value, &mut bytes)?;
    let mut writer = Writer::default();
    writer.put(kind, name, &bytes)?;
    raw(writer.finish()?)
}

/// The value of a key.
pub fn key_value(key: &Key) -> Result<RawBson, Error> {
    let document = key_document("_id", key)?;
    let value = document.get("_id").ok().flatten().ok_or(Damaged("a key that can't be read"))?;
    Ok(value.into())
}

/// A field's name as the driver takes it.
pub fn name(name: &str) -> Result<CString, Error> {
    CString::try_from(name).map_err(|_| Damaged("a field's name has a zero byte").into())
}

/// Our bytes as the driver takes them.
pub fn raw(bytes: Vec<u8>) -> Result<RawDocumentBuf, Error> {
    RawDocumentBuf::from_bytes(bytes).map_err(|_| Damaged("a document that can't be sent").into())
}
