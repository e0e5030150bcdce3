//! BSON values: their order, exact numbers, nesting, paths, and readers for parameters.

pub mod decimal;
pub mod depth;
pub mod order;
pub mod path;
pub mod read;

use std::sync::Arc;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};

/// A stored document. It is never changed in place.
pub type Shared = Arc<RawDocumentBuf>;

/// What a user may store, and what any reply or event may be at most.
pub const DOCUMENT_LIMIT: usize = 16 * 1024 * 1024;
/// The server's own documents (events, commands) may be a little larger.
pub const INTERNAL_LIMIT: usize = DOCUMENT_LIMIT + 16 * 1024;

pub fn append_all(into: &mut RawDocumentBuf, from: &RawDocument) {
    for (name, value) in from.iter().flatten() {
        into.append(name, value);
    }
}

/// Equal in type, bytes and field order. `==` on doubles would call NaN different and -0.0 equal to 0.0.
pub fn identical(one: RawBsonRef<'_>, other: RawBsonRef<'_>) -> bool {
    match (one, other) {
        (RawBsonRef::Double(one), RawBsonRef::Double(other)) => one.to_bits() == other.to_bits(),
        (one, other) => one == other,
    }
}
