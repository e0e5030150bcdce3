//! Keys that are fields of the document, where `_id` is somebody else's.
//!
//! One field is a key as `_id` is one. Several are a document of themselves, in the order of the key, as a composite `_id`
//! would be: so nothing that handles keys has to know which of the two a collection has.

use super::write::Writer;
use super::{Document, Element, id, kind};
use crate::value::{Damaged, Value};

/// What is not there is null: an index tells the two apart no more than a table does.
const MISSING: Element<'static> = Element { kind: kind::NULL, name: "", bytes: &[] };

/// The canonical key of a document by these fields. Equal parts have equal bytes, as the canonical `_id` has.
pub fn of_document<'a>(
    document: Document<'a>,
    fields: &[String],
    scratch: &'a mut Vec<u8>,
) -> Result<Value<'a>, Damaged> {
    let field = |name: &String| document.get(name).map(|field| field.unwrap_or(MISSING));
    if let [name] = fields {
        return id::canonical(field(name)?, scratch);
    }
    let mut out = Writer::default();
    for name in fields {
        put_part(&mut out, name, field(name)?)?;
    }
    scratch.clear();
    scratch.push(kind::DOCUMENT);
    scratch.extend_from_slice(&out.finish()?);
    Ok(Value::Raw(scratch))
}

/// A part of a key in its canonical form.
pub fn put_part(out: &mut Writer, name: &str, part: Element<'_>) -> Result<(), Damaged> {
    let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
    let kind = id::element(id::canonical(part, &mut scratch)?, &mut bytes)?;
    out.put(kind, name, &bytes)
}

/// The parts of a key, each under the name of its field.
pub fn parts<'a>(kind: u8, bytes: &'a [u8], fields: &'a [String]) -> Result<Vec<Element<'a>>, Damaged> {
    match fields {
        [name] => Ok(vec![Element { kind, name, bytes }]),
        _ if kind != kind::DOCUMENT => Err(Damaged("a key of several fields that is no document")),
        _ => Document::new(bytes)?.fields().collect(),
    }
}

/// Why a part of this type can't be one of a row's key.
pub fn unfit(kind: u8) -> Option<&'static str> {
    match kind {
        kind::NULL | kind::UNDEFINED => Some("is missing or null"),
        kind::ARRAY => Some("is an array"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|field| (*field).to_owned()).collect()
    }

    #[test]
    fn numbers_that_the_server_takes_for_one_are_one_key() {
        let document = |put: &dyn Fn(&mut Writer)| {
            let mut out = Writer::default();
            put(&mut out);
            out.finish().unwrap()
        };
        let short = document(&|out| {
            out.text("b", "x").unwrap();
            out.put(kind::INT32, "a", &7i32.to_le_bytes()).unwrap();
        });
        let float = document(&|out| {
            out.put(kind::DOUBLE, "a", &7f64.to_le_bytes()).unwrap();
            out.put(kind::OBJECT_ID, "_id", &[1; 12]).unwrap();
            out.text("b", "x").unwrap();
        });
        for fields in [names(&["a"]), names(&["a", "b"])] {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            let one = of_document(Document::new(&short).unwrap(), &fields, &mut one).unwrap();
            let other = of_document(Document::new(&float).unwrap(), &fields, &mut other).unwrap();
            assert_eq!(one, other);
        }
    }

    #[test]
    fn what_is_missing_is_a_part_that_no_row_has() {
        let mut out = Writer::default();
        out.begin(kind::ARRAY, "tags").unwrap();
        let bytes = out.finish().unwrap();
        let (fields, mut scratch, mut id) = (names(&["a", "tags"]), Vec::new(), Vec::new());
        let key = of_document(Document::new(&bytes).unwrap(), &fields, &mut scratch).unwrap();
        let kind = id::element(key, &mut id).unwrap();
        let parts = parts(kind, &id, &fields).unwrap();
        let reasons: Vec<_> = parts.iter().map(|part| (part.name, unfit(part.kind))).collect();
        assert_eq!(reasons, [("a", Some("is missing or null")), ("tags", Some("is an array"))]);
    }
}
