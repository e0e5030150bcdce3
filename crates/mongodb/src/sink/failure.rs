//! What a server's error means for a write: the fault of a document, or of everything.

use crate::error::ServerError;
use sync_worker_core::error::ErrorClass;

/// Another document has the value of a unique index.
pub const DUPLICATE: i32 = 11000;

/// Values that an index, a rule or the server's limits do not take, and updates that do not fit what is there.
const POISON: &[i32] = &[
    2, 14, 15, 16, 17, 22, 28, 40, 52, 53, 54, 55, 56, 57, 66, 121, 171, 10334, 15992, 16410, 16755, 16837, 17280,
    17419, 17420, 51024, 51177, 31109, 31249,
];

/// A write that only this document is to blame for.
pub struct Fault {
    pub class: ErrorClass,
    pub reason: String,
    /// Another document has the value of a unique index.
    pub taken: bool,
}

/// None: nothing can be written.
pub fn sort(error: &ServerError) -> Option<Fault> {
    let class = match error.code {
        DUPLICATE => ErrorClass::Dependency,
        code if POISON.contains(&code) => ErrorClass::Poison,
        _ => return None,
    };
    let what = match error.code {
        DUPLICATE => match index_of(error.raw_message()) {
            Some(index) => format!("another document has the same value in unique index {index}"),
            None => "another document has the same value in a unique index".to_owned(),
        },
        121 => "the document breaks the collection's rules".to_owned(),
        10334 | 17419 | 17420 => "the document is larger than 16 MB".to_owned(),
        15 | 22 => "the document is nested too deeply".to_owned(),
        52 | 55 | 56 | 57 => "a field's name is not allowed".to_owned(),
        171 | 16755 => "an index does not take the value".to_owned(),
        _ => "the document is not accepted".to_owned(),
    };
    Some(Fault { class, reason: format!("{what} (error {})", error.code), taken: error.code == DUPLICATE })
}

/// Whether a document has come up under the key of one that was to be inserted. `keys`: indexes of keys beside `_id`.
pub fn is_overtaken(error: &ServerError, keys: &[String]) -> bool {
    let index = index_of(error.raw_message()).filter(|_| error.code == DUPLICATE);
    index.is_some_and(|index| index == "_id_" || keys.iter().any(|key| key == index))
}

/// `... index: email_1 dup key: ...`: the name stands before any value.
fn index_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" index: ")?;
    rest.split(' ').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_index_and_no_value() {
        let message = "E11000 duplicate key error collection: d.c index: email_1 dup key: { email: \"secret\" }";
        let fault = sort(&ServerError::new(DUPLICATE, "DuplicateKey", message)).unwrap();
        assert_eq!(fault.reason, "another document has the same value in unique index email_1 (error 11000)");
        assert_eq!(fault.class, ErrorClass::Dependency);
        assert_eq!(sort(&ServerError::new(121, "", "secret")).unwrap().class, ErrorClass::Poison);
        assert!(sort(&ServerError::new(112, "WriteConflict", "")).is_none());
        assert!(!is_overtaken(&ServerError::new(DUPLICATE, "DuplicateKey", message), &[]));
        assert!(is_overtaken(&ServerError::new(DUPLICATE, "DuplicateKey", message), &["email_1".to_owned()]));
        let message = "E11000 duplicate key error collection: d.c index: _id_ dup key: { _id: 1 }";
        assert!(is_overtaken(&ServerError::new(DUPLICATE, "DuplicateKey", message), &[]));
    }
}
