//! One event of the stream: what it says of a row, or of a whole collection.

use crate::codec::Rows;
use crate::error::Error;
use crate::key::DocumentKey;
use crate::source::echo::{Ours, Told, lacks};
use crate::source::keyed;
use bson::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::document::write::Writer;
use sync_worker_core::document::{Document, Element, kind};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Damaged, Value};

/// The collections of a pipeline, by their names.
pub type Tables = HashMap<String, Collection>;

#[derive(Clone, Debug)]
pub struct Collection {
    pub schema: Arc<Schema>,
    pub key: DocumentKey,
}

/// A row's change with its place, or what a stream can't go on over.
#[derive(Debug)]
pub struct Event {
    pub time: Timestamp,
    /// The transaction's session and number; None for a write of its own.
    pub transaction: Option<Arc<str>>,
    /// Microseconds since 1970-01-01 UTC.
    pub commit_time: i64,
    pub change: Option<Change>,
    /// Two-way: what it says of marker and parked rows.
    pub told: Option<Told>,
}

/// The fields of an event, as they come.
#[derive(Default)]
pub struct Parts<'a> {
    pub token: Option<Document<'a>>,
    /// It is one of several fragments.
    pub split: Option<Document<'a>>,
    pub(super) operation: &'a str,
    time: Option<Timestamp>,
    wall: Option<i64>,
    collection: Option<&'a str>,
    to: Option<&'a str>,
    id: Option<Element<'a>>,
    pub(super) full: Option<Document<'a>>,
    pub(super) before: Option<Document<'a>>,
    update: Option<Document<'a>>,
    session: Option<Document<'a>>,
    number: Option<i64>,
}

fn collection(field: Element<'_>) -> Result<Option<&str>, Damaged> {
    field.document()?.get("coll")?.map(|name| name.text()).transpose()
}

impl<'a> Parts<'a> {
    /// Walks the event once.
    pub fn of(event: Document<'a>) -> Result<Self, Damaged> {
        let mut parts = Parts::default();
        for field in event.fields() {
            let field = field?;
            match (field.name, field.kind) {
                ("_id", kind::DOCUMENT) => parts.token = Some(field.document()?),
                ("operationType", kind::STRING) => parts.operation = field.text()?,
                ("clusterTime", kind::TIMESTAMP) => {
                    let bits = u64::from_le_bytes(field.array()?);
                    #[allow(clippy::cast_possible_truncation)] // the two halves
                    let (seconds, increment) = ((bits >> 32) as u32, bits as u32);
                    parts.time = Some(Timestamp { time: seconds, increment });
                }
                ("wallTime", kind::DATE) => parts.wall = Some(i64::from_le_bytes(field.array()?)),
                ("ns", kind::DOCUMENT) => parts.collection = collection(field)?,
                ("to", kind::DOCUMENT) => parts.to = collection(field)?,
                ("documentKey", kind::DOCUMENT) => parts.id = field.document()?.get("_id")?,
                ("fullDocument", kind::DOCUMENT) => parts.full = Some(field.document()?),
                ("fullDocumentBeforeChange", kind::DOCUMENT) => parts.before = Some(field.document()?),
                ("updateDescription", kind::DOCUMENT) => parts.update = Some(field.document()?),
                ("lsid", kind::DOCUMENT) => parts.session = Some(field.document()?),
                ("txnNumber", kind::INT64) => parts.number = Some(i64::from_le_bytes(field.array()?)),
                ("splitEvent", kind::DOCUMENT) => parts.split = Some(field.document()?),
                _ => {}
            }
        }
        Ok(parts)
    }

    /// Refuses what lacks a document: the server keeps them for a time, from when it is told to.
    fn needs_images(&self, needed_by: &str) -> Result<(), Error> {
        let lacking = match self.operation {
            "insert" => self.full.is_none(),
            "delete" => self.before.is_none(),
            _ => self.full.is_none() || self.before.is_none(),
        };
        if lacking { Err(lacks(self.collection.unwrap_or_default(), needed_by)) } else { Ok(()) }
    }
}

/// What needs the documents before and after each change.
pub const TWO_WAY: &str = "a two-way pipeline";

/// `ours`: the pipeline is two-way.
pub fn decode(mut parts: Parts<'_>, tables: &Tables, ours: Option<&Ours>, rows: &mut Rows) -> Result<Event, Error> {
    let time = parts.time.ok_or(Damaged("an event without its time"))?;
    let commit_time = match parts.wall {
        Some(millis) => millis.saturating_mul(1_000),
        None => i64::from(time.time) * 1_000_000,
    };
    let transaction = match (parts.session, parts.number) {
        (Some(session), Some(number)) => Some(name_of(session, number)?),
        _ => None,
    };
    let table = parts.collection.and_then(|name| tables.get(name));
    let change = match (parts.operation, table) {
        ("insert" | "update" | "replace" | "delete", Some(Collection { schema, key: DocumentKey::Id })) => {
            match ours {
                Some(_) => parts.needs_images(TWO_WAY)?,
                // Sent for the sake of another collection.
                None => parts.before = None,
            }
            Some(change(&parts, schema, rows)?)
        }
        ("insert" | "update" | "replace" | "delete", Some(table)) => {
            parts.needs_images(if ours.is_some() { TWO_WAY } else { keyed::NEEDS })?;
            Some(keyed::change(&parts, table, ours.is_some(), rows)?)
        }
        ("insert" | "update" | "replace" | "delete", None) => None,
        ("drop" | "rename", Some(_)) => {
            let (name, done) = (parts.collection.unwrap_or_default(), parts.operation);
            let done = if done == "drop" { "dropped" } else { "renamed" };
            return Err(Error::Gap(format!(
                "collection {name} was {done} at the source: what its rows became is not in the stream; create it, remove the pipeline's state and take a new snapshot"
            )));
        }
        ("rename", None) if parts.to.is_some_and(|to| tables.contains_key(to)) => {
            let name = parts.to.unwrap_or_default();
            return Err(Error::Gap(format!(
                "another collection was renamed to {name} at the source: its rows are not in the stream; remove the pipeline's state and take a new snapshot"
            )));
        }
        ("dropDatabase" | "invalidate", _) => {
            let text = "the database was dropped at the source; remove the pipeline's state and take a new snapshot";
            return Err(Error::Gap(text.to_owned()));
        }
        // Indexes, options, shards: no row changes by them.
        _ => None,
    };
    let told = match (ours, parts.collection, parts.id) {
        (Some(ours), Some(collection), Some(id)) if Ours::is_own(collection) => {
            ours.told(collection, parts.operation, id, (parts.before, parts.full))?
        }
        _ => None,
    };
    Ok(Event { time, transaction, commit_time, change, told })
}

pub(super) fn image(document: Option<Document<'_>>) -> Cell<'_> {
    document.map_or(Cell::Unchanged, |document| Cell::Present(Value::Document(document.as_bytes())))
}

fn change(parts: &Parts<'_>, schema: &Arc<Schema>, rows: &mut Rows) -> Result<Change, Error> {
    let id = parts.id.ok_or(Damaged("an event without its document's key"))?;
    let schema = schema.clone();
    let before = parts.before.map(|before| rows.row(id, image(Some(before)))).transpose()?;
    Ok(match (parts.operation, parts.full, parts.update) {
        ("insert", Some(full), _) => {
            let after = Some(rows.row(id, image(Some(full)))?);
            Change { schema, op: Op::Create, before: None, after }
        }
        ("replace" | "update", Some(full), _) => {
            let after = Some(rows.row(id, image(Some(full)))?);
            Change { schema, op: Op::Update, before, after }
        }
        ("update", None, Some(update)) => {
            let patch = patch(update)?;
            let after = Some(rows.row(id, Cell::Present(Value::Patch(&patch)))?);
            Change { schema, op: Op::Update, before, after }
        }
        ("delete", _, _) => {
            let before = Some(rows.row(id, image(parts.before))?);
            Change { schema, op: Op::Delete, before, after: None }
        }
        _ => return Err(Damaged("an event without its document").into()),
    })
}

/// The event's own description of an update in the form of `core::document::patch`.
fn patch(update: Document<'_>) -> Result<Vec<u8>, Damaged> {
    let mut out = Writer::default();
    if let Some(cut) = update.document("truncatedArrays")? {
        out.begin(kind::DOCUMENT, "t")?;
        for array in cut.fields() {
            let array = array?.document()?;
            let name = array.get("field")?.ok_or(Damaged("a cut without its array"))?.text()?;
            let size = array.get("newSize")?.filter(|size| size.kind == kind::INT32);
            out.put(kind::INT32, name, size.ok_or(Damaged("a cut without its size"))?.bytes)?;
        }
        out.end()?;
    }
    if let Some(removed) = update.get("removedFields")?.filter(|removed| removed.kind == kind::ARRAY) {
        out.put(kind::ARRAY, "r", removed.bytes)?;
    }
    if let Some(set) = update.get("updatedFields")?.filter(|set| set.kind == kind::DOCUMENT) {
        out.put(kind::DOCUMENT, "u", set.bytes)?;
    }
    if let Some(told) = update.document("disambiguatedPaths")? {
        out.begin(kind::DOCUMENT, "d")?;
        for path in told.fields() {
            let path = path?;
            out.begin(kind::ARRAY, path.name)?;
            for part in path.document()?.fields() {
                let part = part?;
                match part.kind {
                    kind::INT32 => out.text(part.name, &i32::from_le_bytes(part.array()?).to_string())?,
                    _ => out.text(part.name, part.text()?)?,
                }
            }
            out.end()?;
        }
        out.end()?;
    }
    out.finish()
}

/// A transaction's name: its session's id and its number there.
fn name_of(session: Document<'_>, number: i64) -> Result<Arc<str>, Damaged> {
    use std::fmt::Write;
    let mut name = String::with_capacity(56);
    if let Some(id) = session.get("id")? {
        for byte in id.bytes.get(5..).unwrap_or_default() {
            // Writing into a string can't fail.
            write!(name, "{byte:02x}").unwrap_or_default();
        }
    }
    write!(name, ":{number}").unwrap_or_default();
    Ok(Arc::from(name))
}
