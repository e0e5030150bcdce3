//! The journal's records: what must come back after a restart.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{Binary, RawBson, RawDocument, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use super::clock::Time;
use super::namespace::Namespace;
use super::oplog::{Change, Entry, TransactionId};
use crate::failure::Failure;
use crate::value::Shared;
use crate::value::order::Key;
use crate::value::read::Read;

pub enum Record {
    Entry(Entry),
    /// A retryable write's reply, kept for the retry.
    Written {
        session: Vec<u8>,
        number: i64,
        reply: RawDocumentBuf,
    },
    Truncated {
        keep: usize,
    },
    Identity {
        identity: ObjectId,
    },
    /// A row written behind the oplog's back (a test-only command).
    Behind {
        time: Time,
        namespace: Namespace,
        key: Key,
        row: Option<Shared>,
    },
}

impl Record {
    pub fn encode(&self) -> RawDocumentBuf {
        match self {
            Self::Entry(entry) => encode_entry(entry),
            Self::Written { session, number, reply } => rawdoc! {
                "session": Binary { subtype: BinarySubtype::Uuid, bytes: session.clone() },
                "number": *number,
                "reply": reply.clone(),
            },
            Self::Identity { identity } => rawdoc! { "replicaSetId": *identity },
            Self::Truncated { keep } => rawdoc! { "truncated": *keep as i64 },
            Self::Behind { time, namespace, key, row } => {
                let mut record =
                    rawdoc! { "behind": namespace.as_str(), "time": time.timestamp(), "key": key.0.clone() };
                if let Some(row) = row {
                    record.append(cstr!("row"), row.as_ref());
                }
                record
            }
        }
    }

    pub fn decode(record: &RawDocument) -> Result<Self, Failure> {
        if record.value("op").is_some() {
            return decode_entry(record).map(Self::Entry);
        }
        if let Some(keep) = record.number("truncated") {
            return Ok(Self::Truncated { keep: keep as usize });
        }
        if let Ok(identity) = record.get_object_id("replicaSetId") {
            return Ok(Self::Identity { identity });
        }
        if let Some(reply) = record.document("reply") {
            let session = record.get_binary("session").map_err(Failure::from)?.bytes.to_vec();
            let number = record.number("number").unwrap_or_default();
            return Ok(Self::Written { session, number, reply: reply.to_owned() });
        }
        Ok(Self::Behind {
            time: time(record)?,
            namespace: Namespace::parse(record.needed_text("behind")?)?,
            key: Key::of(record.value("key").ok_or_else(|| damaged("key"))?),
            row: record.document("row").map(|row| Arc::new(row.to_owned())),
        })
    }
}

/// Pre-images are not written: the rows give them again when the journal is replayed.
pub fn encode_entry(entry: &Entry) -> RawDocumentBuf {
    let mut record = RawDocumentBuf::new();
    record.append(cstr!("time"), entry.time.timestamp());
    record.append(cstr!("ordinal"), i64::from(entry.ordinal));
    record.append(cstr!("wall"), entry.wall);
    record.append(cstr!("op"), entry.change.operation());
    record.append(cstr!("ns"), entry.namespace.as_str());
    if let Some(collection) = &entry.collection {
        record.append(cstr!("ui"), collection);
    }
    if entry.images {
        record.append(cstr!("images"), true);
    }
    if let Some(transaction) = &entry.transaction {
        record.append(cstr!("lsid"), &transaction.session);
        record.append(cstr!("txnNumber"), transaction.number);
    }
    match &entry.change {
        Change::Insert { after, .. } | Change::Replace { after, .. } => record.append(cstr!("row"), after.as_ref()),
        Change::Update { after, description, .. } => {
            record.append(cstr!("row"), after.as_ref());
            record.append(cstr!("description"), description.as_ref());
        }
        Change::Delete { key, .. } => record.append(cstr!("key"), key.value()),
        Change::Create { options } | Change::Modify { options } => record.append(cstr!("options"), options),
        Change::Rename { to } => record.append(cstr!("to"), to.as_str()),
        Change::CreateIndex { specification } => record.append(cstr!("options"), specification),
        Change::DropIndex { name, specification } => {
            record.append(cstr!("options"), specification);
            record.append(cstr!("name"), name.as_str());
        }
        Change::Note { data } => record.append(cstr!("options"), data),
        Change::Drop | Change::DropDatabase => {}
    }
    record
}

fn decode_entry(record: &RawDocument) -> Result<Entry, Failure> {
    let row = || record.document("row").map(|row| Arc::new(row.to_owned())).ok_or_else(|| damaged("row"));
    let options = || record.document("options").map(ToOwned::to_owned).ok_or_else(|| damaged("options"));
    let key_of = |row: &Shared| row.value("_id").map(Key::of).ok_or_else(|| damaged("_id"));
    let change = match record.needed_text("op")? {
        "insert" => row().and_then(|after| Ok(Change::Insert { key: key_of(&after)?, after }))?,
        "replace" => row().and_then(|after| Ok(Change::Replace { key: key_of(&after)?, before: None, after }))?,
        "update" => {
            let after = row()?;
            let description = record.document("description").ok_or_else(|| damaged("description"))?.to_owned();
            Change::Update { key: key_of(&after)?, before: None, after, description: Arc::new(description) }
        }
        "delete" => Change::Delete { key: Key::of(record.value("key").ok_or_else(|| damaged("key"))?), before: None },
        "create" => Change::Create { options: options()? },
        "drop" => Change::Drop,
        "rename" => Change::Rename { to: Namespace::parse(record.needed_text("to")?)? },
        "dropDatabase" => Change::DropDatabase,
        "modify" => Change::Modify { options: options()? },
        "createIndexes" => Change::CreateIndex { specification: options()? },
        "dropIndexes" => Change::DropIndex { name: record.needed_text("name")?.to_owned(), specification: options()? },
        "noop" => Change::Note { data: options()? },
        _ => return Err(damaged("op")),
    };
    let transaction = record.document("lsid").map(|session| {
        Arc::new(TransactionId { session: session.to_owned(), number: record.number("txnNumber").unwrap_or_default() })
    });
    Ok(Entry {
        time: time(record)?,
        ordinal: record.number("ordinal").unwrap_or_default() as u32,
        wall: record.get_datetime("wall").map_err(Failure::from)?,
        namespace: Namespace::parse(record.needed_text("ns")?)?,
        collection: record.value("ui").and_then(|uuid| match RawBson::from(uuid) {
            RawBson::Binary(uuid) => Some(uuid),
            _ => None,
        }),
        transaction,
        images: record.is_set("images"),
        change,
    })
}

fn time(record: &RawDocument) -> Result<Time, Failure> {
    record.timestamp("time").map(Time::from).ok_or_else(|| damaged("time"))
}

fn damaged(field: &str) -> Failure {
    Failure::unparsable(format!("a journal record without a sound '{field}'"))
}
