//! What may be stored: size, nesting and the `_id`.

use bson::{RawBsonRef, RawDocument};

use crate::failure::{Failure, code};
use crate::value::DOCUMENT_LIMIT;
use crate::value::depth::{self, MESSAGE_LIMIT, STORAGE_LIMIT};
use crate::value::order::Key;

pub fn check_insert(document: &RawDocument) -> Result<Key, Failure> {
    let size = document.as_bytes().len();
    if size > DOCUMENT_LIMIT {
        return Err(Failure::bad_value(format!(
            "object to insert too large. size in bytes: {size}, max size: {DOCUMENT_LIMIT}"
        )));
    }
    if depth::depth(document, MESSAGE_LIMIT)? > STORAGE_LIMIT {
        return Err(Failure::new(
            code::OVERFLOW,
            format!("cannot insert document because it exceeds {STORAGE_LIMIT} levels of nesting"),
        ));
    }
    key(document)
}

pub fn check_update(document: &RawDocument) -> Result<(), Failure> {
    if document.as_bytes().len() > DOCUMENT_LIMIT {
        return Err(Failure::new(17419, format!("Resulting document after update is larger than {DOCUMENT_LIMIT}")));
    }
    if depth::depth(document, MESSAGE_LIMIT)? > STORAGE_LIMIT {
        return Err(Failure::new(
            code::OVERFLOW,
            format!("Document exceeds maximum nested object depth: {STORAGE_LIMIT}"),
        ));
    }
    Ok(())
}

fn key(document: &RawDocument) -> Result<Key, Failure> {
    let id = document.get("_id")?.ok_or_else(|| Failure::new(53, "a document needs an _id"))?;
    match id {
        RawBsonRef::Array(_) => Err(invalid("array")),
        RawBsonRef::RegularExpression(_) => Err(invalid("regex")),
        RawBsonRef::Undefined => Err(invalid("undefined")),
        RawBsonRef::Document(inner) => {
            match inner.iter_elements().flatten().find(|field| field.key().as_str().starts_with('$')) {
                Some(field) => Err(Failure::new(
                    code::DOLLAR_PREFIXED_FIELD_NAME,
                    format!(
                        "_id fields may not contain '$'-prefixed fields: {} is not valid for storage.",
                        field.key()
                    ),
                )),
                None => Ok(Key::of(id)),
            }
        }
        id => Ok(Key::of(id)),
    }
}

fn invalid(kind: &str) -> Failure {
    Failure::new(53, format!("The '_id' value cannot be of type {kind}"))
}
