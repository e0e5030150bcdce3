//! How deep a document is nested, found before anything recurses into it.

use bson::{RawBsonRef, RawDocument};

use crate::failure::{Failure, code};

/// What any message may hold.
pub const MESSAGE_LIMIT: usize = 200;
/// What may be stored: twenty levels are left for the server's own wrapping.
pub const STORAGE_LIMIT: usize = 180;

/// Walks the whole document, so its structure is known to be sound afterwards.
pub fn depth(document: &RawDocument, limit: usize) -> Result<usize, Failure> {
    if limit == 0 {
        return Err(Failure::new(
            code::OVERFLOW,
            format!("BSONObj exceeds maximum nested object depth: {MESSAGE_LIMIT}"),
        ));
    }
    let mut deepest = 0;
    for element in document.iter_elements() {
        let element = element?;
        use bson::spec::ElementType as T;
        if !matches!(element.element_type(), T::EmbeddedDocument | T::Array | T::JavaScriptCodeWithScope) {
            continue;
        }
        let inner = match element.value()? {
            RawBsonRef::Document(inner) => inner,
            RawBsonRef::Array(inner) => RawDocument::from_bytes(inner.as_bytes())?,
            RawBsonRef::JavaScriptCodeWithScope(code) => code.scope,
            _ => continue,
        };
        deepest = deepest.max(depth(inner, limit - 1)?);
    }
    Ok(deepest + 1)
}
