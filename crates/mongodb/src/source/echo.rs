//! Our own transactions in a member's stream: documents of `sync_worker.progress` and `sync_worker.parked` as an [`Echo`]
//! (invariant 4).

use crate::ddl;
use crate::error::Error;
use crate::own::{self, PARKED, PROGRESS};
use crate::source::event::TWO_WAY;
use bytes::Bytes;
use sync_worker_core::database::Scope;
use sync_worker_core::document::{Document, Element, id, kind};
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho, WRITTEN};
use sync_worker_core::guard::Seen;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;

/// Whose documents are ours: those of other pipelines and installations stand in the same collections.
pub struct Ours(Vec<u8>);

/// What a change of one of them tells of its transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Marker(Option<Offset>),
    Parked { unparked: Option<UnparkedEcho>, parked: Option<ParkedEcho> },
}

impl Ours {
    pub fn new(scope: &Scope, database: &DatabaseName) -> Self {
        Self(own::owner(scope, database).into_bytes())
    }

    pub fn is_own(collection: &str) -> bool {
        matches!(collection, PROGRESS | PARKED)
    }

    /// None where it is not ours, or says nothing.
    pub fn told(
        &self,
        collection: &str,
        operation: &str,
        id: Element<'_>,
        (before, after): (Option<Document<'_>>, Option<Document<'_>>),
    ) -> Result<Option<Told>, Error> {
        let is_ours = |owner: Element<'_>| owner.kind == kind::DOCUMENT && owner.bytes == self.0;
        if collection == PROGRESS {
            if !is_ours(id) || operation == "delete" {
                return Ok(None);
            }
            let after = after.ok_or_else(|| lacks(collection, TWO_WAY))?;
            return Ok(Some(Told::Marker(number(after, "offset")?)));
        }
        if id.kind != kind::DOCUMENT {
            return Ok(None);
        }
        let id = id.document()?;
        if !id.get("of")?.is_some_and(is_ours) {
            return Ok(None);
        }
        let table = id.get("table")?.filter(|table| table.kind == kind::STRING).ok_or_else(strange)?;
        let table = TableName::new(table.text()?);
        let before = || before.ok_or_else(|| lacks(collection, TWO_WAY));
        let after = || after.ok_or_else(|| lacks(collection, TWO_WAY));
        let unparked = |row: Document<'_>, written: bool| {
            Ok::<_, Error>(Some(UnparkedEcho { table: table.clone(), key: key(row)?, written }))
        };
        let parked = |row: Document<'_>| {
            let offset = number(row, "offset")?.ok_or_else(strange)?;
            let seen = match row.get("seen")? {
                None => None,
                Some(seen) if seen.kind == kind::NULL => None,
                // People may have written to the collection: what can't be read differs all the same.
                Some(seen) => {
                    let bytes = id::binary(seen).ok().filter(|_| seen.kind == kind::BINARY);
                    Some(bytes.and_then(|(_, bytes)| Seen::from_bytes(bytes).ok()).unwrap_or(Seen::UNKNOWN))
                }
            };
            Ok::<_, Error>(Some(ParkedEcho { table: table.clone(), key: key(row)?, offset, seen }))
        };
        Ok(match operation {
            "insert" => Some(Told::Parked { unparked: None, parked: parked(after()?)? }),
            "update" | "replace" => {
                let (old, new) = (before()?, after()?);
                let written = is_written(new)?;
                let parked = if written { None } else { parked(new)? };
                Some(Told::Parked { unparked: unparked(old, written)?, parked })
            }
            // The update before it has told.
            "delete" if is_written(before()?)? => None,
            "delete" => Some(Told::Parked { unparked: unparked(before()?, false)?, parked: None }),
            _ => None,
        })
    }
}

/// About what is held of a parked key.
pub fn size(parked: &ParkedEcho) -> usize {
    parked.key.as_bytes().len() + parked.seen.as_ref().map_or(0, Seen::size) + size_of::<ParkedEcho>()
}

impl Told {
    /// Adds it to the echo of its transaction, which the marker begins: a parked row that is met without one was touched by
    /// a person. Returns about how much the echo has grown.
    pub fn add_to(self, echo: &mut Option<Echo>) -> usize {
        match (self, echo) {
            (Told::Marker(offset), echo) => {
                echo.get_or_insert_default().offset = offset;
                0
            }
            (Told::Parked { unparked, parked }, Some(echo)) => {
                let size = unparked.as_ref().map_or(0, |one| one.key.as_bytes().len() + size_of::<UnparkedEcho>())
                    + parked.as_ref().map_or(0, size);
                echo.unparked.extend(unparked);
                echo.parked.extend(parked);
                size
            }
            (Told::Parked { .. }, None) => 0,
        }
    }
}

/// What can't be known any more (invariant 8).
pub fn lacks(collection: &str, needed_by: &str) -> Error {
    Error::Gap(format!(
        "a change of collection {collection} came without the document before or after it, which {needed_by} needs: the images were off, or kept for too short a time; run {} and remove the pipeline's state, then copy the rows anew",
        ddl::post_images(collection)
    ))
}

fn strange() -> Error {
    Error::Fatal(format!(
        "a document of {PARKED} or {PROGRESS} is not as this version makes it; stop all workers, drop both collections, then remove the pipeline's state"
    ))
}

/// None for null.
fn number(row: Document<'_>, name: &str) -> Result<Option<Offset>, Error> {
    match row.get(name)? {
        Some(field) if field.kind == kind::NULL => Ok(None),
        Some(field) if field.kind == kind::INT64 => {
            Ok(Some(Offset(i64::from_le_bytes(field.array()?).cast_unsigned())))
        }
        Some(_) | None => Err(strange()),
    }
}

fn key(row: Document<'_>) -> Result<Key, Error> {
    let field = row.get("key")?.filter(|field| field.kind == kind::BINARY).ok_or_else(strange)?;
    let (_, bytes) = id::binary(field)?;
    Ok(Key::from_bytes(Bytes::copy_from_slice(bytes)))
}

fn is_written(row: Document<'_>) -> Result<bool, Error> {
    let reason = row.get("reason")?.filter(|reason| reason.kind == kind::STRING).ok_or_else(strange)?;
    Ok(reason.text()? == WRITTEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Binary, RawBson, RawDocumentBuf, rawdoc};

    fn owner(pipeline: &str) -> RawDocumentBuf {
        rawdoc! { "installation": "i", "pipeline": pipeline, "database": "shop", "partition": 0 }
    }

    fn binary(bytes: &[u8]) -> RawBson {
        RawBson::Binary(Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.to_vec() })
    }

    fn row(pipeline: &str, offset: i64, reason: &str, seen: RawBson) -> RawDocumentBuf {
        let id = rawdoc! { "of": owner(pipeline), "table": "t", "key": binary(b"digest") };
        rawdoc! { "_id": id, "key": binary(b"k"), "offset": offset, "reason": reason, "seen": seen }
    }

    /// What a change tells: its operation, and the documents before and after it.
    fn told(
        collection: &str,
        operation: &str,
        before: Option<&RawDocumentBuf>,
        after: Option<&RawDocumentBuf>,
    ) -> Result<Option<Told>, Error> {
        fn document(row: &RawDocumentBuf) -> Document<'_> {
            Document::new(row.as_bytes()).unwrap()
        }
        let id = after.or(before).map(document).unwrap().get("_id").unwrap().unwrap();
        Ours(owner("p").into_bytes()).told(collection, operation, id, (before.map(document), after.map(document)))
    }

    #[test]
    fn parked_rows_tell_what_became_of_their_versions() {
        let refused = row("p", 7, "no parent", RawBson::Null);
        let differs = row("p", 9, "differs", binary(b""));
        let written = row("p", 9, WRITTEN, binary(b""));
        let other = row("q", 7, "differs", RawBson::Null);
        let parts = |operation, before, after| match told(PARKED, operation, before, after).unwrap() {
            Some(Told::Parked { unparked, parked }) => {
                Some((unparked.map(|one| one.written), parked.map(|one| (one.offset.0, one.seen.is_some()))))
            }
            _ => None,
        };
        assert_eq!(parts("insert", None, Some(&refused)), Some((None, Some((7, false)))));
        assert_eq!(parts("replace", Some(&refused), Some(&differs)), Some((Some(false), Some((9, true)))));
        assert_eq!(parts("update", Some(&differs), Some(&written)), Some((Some(true), None)));
        assert_eq!(parts("delete", Some(&written), None), None);
        assert_eq!(parts("delete", Some(&refused), None), Some((Some(false), None)));
        assert_eq!(parts("insert", None, Some(&other)), None);
        let image = Document::new(refused.as_bytes()).unwrap();
        let id = image.get("_id").unwrap().unwrap();
        let error = Ours(owner("p").into_bytes()).told(PARKED, "delete", id, (None, None)).unwrap_err();
        assert!(error.to_string().contains("collMod"), "{error}");
    }

    #[test]
    fn only_the_own_marker_makes_an_echo() {
        let marker =
            |pipeline: &str, offset: RawBson| rawdoc! { "_id": owner(pipeline), "offset": offset, "writes": 1i64 };
        for (row, expected) in [
            (marker("p", RawBson::Int64(7)), Some(Told::Marker(Some(Offset(7))))),
            (marker("p", RawBson::Null), Some(Told::Marker(None))),
            (marker("q", RawBson::Int64(7)), None),
        ] {
            assert_eq!(told(PROGRESS, "update", None, Some(&row)).unwrap(), expected);
        }
        let mut echo = None;
        let unparked = Some(UnparkedEcho { table: "t".into(), key: Key::from_bytes(Bytes::new()), written: false });
        Told::Parked { unparked: unparked.clone(), parked: None }.add_to(&mut echo);
        assert_eq!(echo, None);
        Told::Marker(Some(Offset(7))).add_to(&mut echo);
        Told::Parked { unparked, parked: None }.add_to(&mut echo);
        assert_eq!(echo.map(|echo| (echo.offset, echo.unparked.len())), Some((Some(Offset(7)), 1)));
    }
}
