//! Reading parameters out of a command, leniently as the server does: a whole double is a number, 1 is true.

use bson::{RawArray, RawBsonRef, RawDocument, Timestamp};

use crate::failure::{Failure, code};

pub trait Read {
    fn value(&self, name: &str) -> Option<RawBsonRef<'_>>;

    fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(RawBsonRef::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(whole)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.value(name).map(truth)
    }

    fn is_set(&self, name: &str) -> bool {
        self.flag(name).unwrap_or(false)
    }

    fn document(&self, name: &str) -> Option<&RawDocument> {
        self.value(name).and_then(RawBsonRef::as_document)
    }

    fn array(&self, name: &str) -> Option<&RawArray> {
        self.value(name).and_then(RawBsonRef::as_array)
    }

    fn timestamp(&self, name: &str) -> Option<Timestamp> {
        self.value(name).and_then(RawBsonRef::as_timestamp)
    }

    fn needed_text(&self, name: &str) -> Result<&str, Failure> {
        self.text(name).ok_or_else(|| missing(name, "string"))
    }
}

impl Read for RawDocument {
    fn value(&self, name: &str) -> Option<RawBsonRef<'_>> {
        self.get(name).ok().flatten()
    }
}

fn missing(name: &str, kind: &str) -> Failure {
    Failure::new(code::TYPE_MISMATCH, format!("BSON field '{name}' is missing or not a {kind}"))
}

pub fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(value) => Some(value.into()),
        RawBsonRef::Int64(value) => Some(value),
        RawBsonRef::Double(value) => Some(value as i64),
        RawBsonRef::Decimal128(value) => value.to_string().parse().ok(),
        _ => None,
    }
}

pub fn truth(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(value) => value,
        RawBsonRef::Null | RawBsonRef::Undefined => false,
        RawBsonRef::Double(value) => value != 0.0,
        other => whole(other) != Some(0),
    }
}

pub fn documents(array: &RawArray) -> impl Iterator<Item = &RawDocument> {
    array.into_iter().flatten().filter_map(RawBsonRef::as_document)
}

pub fn texts(array: &RawArray) -> impl Iterator<Item = &str> {
    array.into_iter().flatten().filter_map(RawBsonRef::as_str)
}
