//! How the documents of a collection are told apart: by `_id`, or by fields of their own.

use crate::codec;
use crate::error::Error;
use bson::raw::cstr;
use bson::{RawArrayBuf, RawBson, RawDocumentBuf, rawdoc};
use sync_worker_core::document::mapping::DocumentMapping;
use sync_worker_core::document::write::Writer;
use sync_worker_core::document::{Document, Element, id, key, kind};
use sync_worker_core::row::Key;
use sync_worker_core::value::{Cell, Damaged, Value};

/// The key of a collection's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentKey {
    Id,
    /// In the order of the key. A unique index over them keeps each key one document's.
    Fields(Vec<String>),
}

impl DocumentKey {
    pub fn new(mapping: &DocumentMapping) -> Self {
        if mapping.key.is_empty() { Self::Id } else { Self::Fields(mapping.key.clone()) }
    }

    /// Of fields; none where it is `_id`.
    pub fn fields(&self) -> &[String] {
        match self {
            Self::Id => &[],
            Self::Fields(fields) => fields,
        }
    }

    pub fn is_id(&self) -> bool {
        *self == Self::Id
    }

    /// What the key column of a collection is called.
    pub fn name(&self) -> String {
        match self {
            Self::Id => "_id".to_owned(),
            Self::Fields(fields) => fields.join(", "),
        }
    }

    /// The canonical key of a document.
    pub fn value<'a>(&self, document: Document<'a>, scratch: &'a mut Vec<u8>) -> Result<Value<'a>, Damaged> {
        match self {
            Self::Id => id::canonical(document.get("_id")?.ok_or(Damaged("a document without an _id"))?, scratch),
            Self::Fields(fields) => key::of_document(document, fields, scratch),
        }
    }

    /// A key as a place in the index: a document with one field for each of the index's.
    pub fn bound(&self, key: &Key) -> Result<RawDocumentBuf, Error> {
        let Self::Fields(fields) = self else { return codec::key_document("_id", key) };
        self.of_parts(key, fields, |out, part| Ok(out.put(part.kind, part.name, part.bytes)?))
    }

    /// What a document with this key says, and perhaps one that has it in an array: so does a place in the index.
    pub fn equal(&self, key: &Key) -> Result<RawDocumentBuf, Error> {
        let Self::Fields(fields) = self else { return codec::key_document("_id", key) };
        self.of_parts(key, fields, |out, part| Ok(put_equal(out, part, false)?))
    }

    /// The documents with one of these keys, and perhaps some that have one in an array.
    pub fn any_of(&self, keys: &[Key]) -> Result<RawDocumentBuf, Error> {
        let name = match self.fields() {
            [] => Some("_id"),
            [name] => Some(name.as_str()),
            _ => None,
        };
        let (mut values, mut others) = (RawArrayBuf::new(), RawArrayBuf::new());
        for key in keys {
            match name.map(|_| codec::key_value(key)).transpose()? {
                // In a list it would be a pattern.
                Some(RawBson::RegularExpression(_)) | None => others.push(self.equal(key)?),
                Some(value) => values.push(value),
            }
        }
        let Some(name) = name else { return Ok(rawdoc! { "$or": others }) };
        let mut one_of = RawDocumentBuf::new();
        one_of.append(codec::name(name)?, rawdoc! { "$in": values });
        if others.is_empty() {
            return Ok(one_of);
        }
        others.push(one_of);
        Ok(rawdoc! { "$or": others })
    }

    /// What a `find` in the order of the index leaves out: the key after which it begins, and with `plain` the documents
    /// that stand at several places of the index, which no other key is before or after.
    pub fn left_out(&self, after: Option<&Key>, plain: bool) -> Result<Option<RawDocumentBuf>, Error> {
        let mut out = RawArrayBuf::new();
        if let Some(after) = after {
            out.push(self.equal(after)?);
        }
        for field in self.fields().iter().filter(|_| plain) {
            let mut array = RawDocumentBuf::new();
            array.append(codec::name(field)?, rawdoc! { "$type": "array" });
            out.push(array);
        }
        Ok((!out.is_empty()).then(|| rawdoc! { "$nor": out }))
    }

    /// What a `find` has to tell for the key alone.
    pub fn projection(&self) -> Result<RawDocumentBuf, Error> {
        let mut out = self.pattern()?;
        if !self.is_id() {
            out.append(cstr!("_id"), 0);
        }
        Ok(out)
    }

    /// The index that a key needs.
    pub fn pattern(&self) -> Result<RawDocumentBuf, Error> {
        let Self::Fields(fields) = self else { return Ok(rawdoc! { "_id": 1 }) };
        let mut out = RawDocumentBuf::new();
        for field in fields {
            out.append(codec::name(field)?, 1);
        }
        Ok(out)
    }

    /// Whether a part of the key is an array, whose elements the index has one by one.
    pub fn is_spread(&self, key: &Key) -> Result<bool, Error> {
        let Self::Fields(fields) = self else { return Ok(false) };
        let mut spread = false;
        self.of_parts(key, fields, |_, part| {
            spread |= part.kind == kind::ARRAY;
            Ok(())
        })?;
        Ok(spread)
    }

    fn of_parts(
        &self,
        key: &Key,
        fields: &[String],
        mut put: impl FnMut(&mut Writer, Element<'_>) -> Result<(), Error>,
    ) -> Result<RawDocumentBuf, Error> {
        let Some(Ok(Cell::Present(value))) = key.cells().next() else {
            return Err(Damaged("a key without a value").into());
        };
        let (mut bytes, mut out) = (Vec::new(), Writer::default());
        let kind = id::element(value, &mut bytes)?;
        for part in key::parts(kind, &bytes, fields)? {
            put(&mut out, part)?;
        }
        codec::raw(out.finish()?)
    }
}

/// A condition on one field. `alone`: an array that has the value among others is another key.
pub fn put_equal(out: &mut Writer, part: Element<'_>, alone: bool) -> Result<(), Damaged> {
    out.begin(kind::DOCUMENT, part.name)?;
    out.put(part.kind, "$eq", part.bytes)?;
    if alone {
        out.begin(kind::DOCUMENT, "$not")?;
        out.text("$type", "array")?;
        out.end()?;
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::row::RowBuilder;

    fn key_of(key: &DocumentKey, document: &RawDocumentBuf) -> Key {
        let (mut scratch, mut builder) = (Vec::new(), RowBuilder::default());
        let value = key.value(Document::new(document.as_bytes()).unwrap(), &mut scratch).unwrap();
        builder.push(Cell::Present(value));
        Key::from_bytes(builder.finish().as_bytes().clone())
    }

    #[test]
    fn keys_are_places_of_their_index() {
        let document = rawdoc! { "_id": 1, "a": 5.0, "b": "x", "tags": ["t"] };
        let fields = |names: &[&str]| DocumentKey::Fields(names.iter().map(|name| (*name).to_owned()).collect());
        let (one, two) = (fields(&["a"]), fields(&["b", "a"]));
        assert_eq!(DocumentKey::Id.bound(&key_of(&DocumentKey::Id, &document)).unwrap(), rawdoc! { "_id": 1 });
        assert_eq!(one.bound(&key_of(&one, &document)).unwrap(), rawdoc! { "a": 5 });
        assert_eq!(two.bound(&key_of(&two, &document)).unwrap(), rawdoc! { "b": "x", "a": 5 });
        let key = key_of(&two, &document);
        assert_eq!(two.equal(&key).unwrap(), rawdoc! { "b": { "$eq": "x" }, "a": { "$eq": 5 } });
        assert_eq!(one.any_of(&[key_of(&one, &document)]).unwrap(), rawdoc! { "a": { "$in": [5] } });
        let spread = fields(&["b", "tags"]);
        assert!(spread.is_spread(&key_of(&spread, &document)).unwrap());
        assert!(!two.is_spread(&key).unwrap());
    }

    #[test]
    fn a_pattern_as_a_key_is_no_pattern_to_the_server() {
        let key = DocumentKey::Fields(vec!["a".to_owned()]);
        let regex = bson::Regex { pattern: cstr!("x").into(), options: cstr!("").into() };
        let pattern = key_of(&key, &rawdoc! { "a": regex.clone() });
        let plain = key_of(&key, &rawdoc! { "a": "x" });
        let expected = rawdoc! { "$or": [{ "a": { "$eq": regex } }, { "a": { "$in": ["x"] } }] };
        assert_eq!(key.any_of(&[plain, pattern]).unwrap(), expected);
    }
}
