//! The marker and the parked rows as one applier writes them.

use crate::client::{Client, first_of, within};
use crate::error::Error;
use crate::own::{self, PARKED, PROGRESS};
use bson::raw::cstr;
use bson::{Binary, Bson, Document, RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, rawdoc};
use std::collections::BTreeMap;
use sync_worker_core::database::Scope;
use sync_worker_core::echo::WRITTEN;
use sync_worker_core::guard::Seen;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Marker, ParkedKey, Progress};

/// How long another one's transaction may hold the marker.
const TAKE_OVER_MILLIS: i32 = 8_000;

/// The key columns that the documents of each table have been found by so far: a collection has no key of its own that would
/// tell.
pub type Keys = BTreeMap<TableName, Vec<String>>;

/// The documents of one applier.
pub struct Bookkeeping {
    /// `{installation, pipeline, database, partition}`.
    mine: RawDocumentBuf,
}

/// A parked row to write.
pub struct Park<'a> {
    pub table: &'a TableName,
    pub key: Key,
    pub offset: Offset,
    pub reason: &'a str,
    /// None where the version was refused.
    pub seen: Option<&'a Seen>,
}

impl Bookkeeping {
    pub fn new(scope: &Scope, database: &DatabaseName) -> Self {
        Self { mine: own::owner(scope, database) }
    }

    /// Ends what the last holder of the marker has left open: a worker that was killed leaves a transaction that would
    /// hold the marker until the server's patience ends, a minute by default.
    async fn evict(&self, client: &Client) -> Result<(), Error> {
        let find =
            rawdoc! { "find": PROGRESS, "filter": { "_id": self.mine.clone() }, "limit": 1, "singleBatch": true };
        let reply = client.run("a look at the marker", find).await?;
        let Some(session) = first_of(&reply).and_then(|row| row.get_document("session").ok().cloned()) else {
            return Ok(());
        };
        let session =
            RawDocumentBuf::try_from(&session).map_err(|_| Error::Protocol("a session that can't be read"))?;
        let mut sessions = RawArrayBuf::new();
        sessions.push(session);
        match client.admin("ending an abandoned transaction", rawdoc! { "killSessions": sessions }).await {
            Ok(_) => Ok(()),
            // Another user's: it ends by itself.
            Err(error) if error.code() == Some(13) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves the epoch on, in one step, and reads what stands there. All transactions of this holder are to be those of
    /// `session`.
    pub async fn take_over(&self, client: &Client, log: &str, session: &Document) -> Result<(Progress, Keys), Error> {
        self.evict(client).await?;
        let session = RawDocumentBuf::try_from(session).map_err(|_| Error::Protocol("a session that can't be read"))?;
        let command = rawdoc! {
            "findAndModify": PROGRESS,
            "query": { "_id": self.mine.clone() },
            "update": {
                "$inc": { "epoch": 1i64, "writes": 1i64 },
                "$set": { "session": session },
                "$setOnInsert": { "offset": RawBson::Null, "log": log, "digest": 0i64 },
            },
            "upsert": true,
            "new": true,
            // Given up by the engine, it must not come to pass later.
            "maxTimeMS": TAKE_OVER_MILLIS,
            "writeConcern": { "w": "majority", "j": true },
        };
        let reply = client.run("a take-over", command).await?;
        let row = reply.get_document("value").map_err(|_| Error::Protocol("the marker is not there"))?;
        let marker = marker(row)?;
        let find = rawdoc! {
            "find": PARKED,
            "filter": { "_id.of": self.mine.clone() },
            "sort": { "offset": 1 },
            "readConcern": { "level": "majority", "afterClusterTime": time_of(&reply)? },
        };
        let doing = "a look at the parked rows";
        let mut cursor = within(doing, client.database.run_raw_cursor_command(find).into_future()).await?;
        let mut parked = Vec::new();
        while within(doing, cursor.advance()).await? {
            let row = cursor.current().to_owned();
            parked.push(parked_key(&row)?);
        }
        Ok((Progress { marker, parked }, keys(row)?))
    }

    /// Invariant 2: from exactly what was read, or no document. `keys`: what they are from this transaction on.
    pub fn move_marker(&self, from: &Marker, to: &Marker, keys: Option<&Keys>) -> RawDocumentBuf {
        let query = rawdoc! {
            "_id": self.mine.clone(),
            "offset": offset(from),
            "log": from.log.as_str(),
            "epoch": from.epoch.cast_signed(),
            "writes": from.writes.cast_signed(),
        };
        let mut set = rawdoc! {
            "offset": offset(to),
            "log": to.log.as_str(),
            "digest": to.digest.cast_signed(),
            "epoch": to.epoch.cast_signed(),
            "writes": to.writes.cast_signed(),
        };
        if let Some(keys) = keys {
            let mut rows = RawArrayBuf::new();
            for (table, columns) in keys {
                let columns: RawArrayBuf = columns.iter().map(String::as_str).collect();
                rows.push(rawdoc! { "table": table.as_str(), "columns": columns });
            }
            set.append(cstr!("keys"), rows);
        }
        let mut updates = RawArrayBuf::new();
        updates.push(rawdoc! { "q": query, "u": { "$set": set } });
        rawdoc! { "update": PROGRESS, "updates": updates }
    }

    /// Takes away parked rows: all of a table, or those of keys.
    pub fn unpark(&self, emptied: &[TableName], keys: &[(TableName, Key)]) -> Option<RawDocumentBuf> {
        let mut deletes = RawArrayBuf::new();
        for table in emptied {
            deletes.push(rawdoc! {
                "q": { "_id.of": self.mine.clone(), "_id.table": table.as_str() }, "limit": 0,
            });
        }
        for (table, key) in keys {
            deletes.push(rawdoc! { "q": { "_id": self.parked_id(table, key) }, "limit": 1 });
        }
        (!deletes.is_empty()).then(|| rawdoc! { "delete": PARKED, "deletes": deletes })
    }

    /// What goes into parked rows right before they are deleted, where a retry has written their versions.
    pub fn mark_written(&self, keys: &[(TableName, Key)]) -> Option<RawDocumentBuf> {
        let mut updates = RawArrayBuf::new();
        for (table, key) in keys {
            let set = rawdoc! { "$set": { "reason": WRITTEN } };
            updates.push(rawdoc! { "q": { "_id": self.parked_id(table, key) }, "u": set });
        }
        (!updates.is_empty()).then(|| rawdoc! { "update": PARKED, "updates": updates })
    }

    pub fn park(&self, rows: &[Park<'_>]) -> Option<RawDocumentBuf> {
        let mut updates = RawArrayBuf::new();
        for Park { table, key, offset, reason, seen } in rows {
            let id = self.parked_id(table, key);
            let seen = seen.map_or(RawBson::Null, |seen| RawBson::Binary(binary(seen.to_bytes())));
            let row = rawdoc! {
                "_id": id.clone(),
                "key": binary(key.as_bytes().to_vec()),
                "offset": offset.0.cast_signed(),
                "reason": *reason,
                "seen": seen,
            };
            updates.push(rawdoc! { "q": { "_id": id }, "u": row, "upsert": true });
        }
        (!updates.is_empty()).then(|| rawdoc! { "update": PARKED, "updates": updates })
    }

    fn parked_id(&self, table: &TableName, key: &Key) -> RawDocumentBuf {
        let mut id = RawDocumentBuf::new();
        id.append(cstr!("of"), self.mine.clone());
        id.append(cstr!("table"), table.as_str());
        id.append(cstr!("key"), binary(key.digest().to_vec()));
        id
    }
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: bson::spec::BinarySubtype::Generic, bytes }
}

fn offset(marker: &Marker) -> RawBson {
    marker.offset.map_or(RawBson::Null, |offset| RawBson::Int64(offset.0.cast_signed()))
}

fn time_of(reply: &Document) -> Result<bson::Timestamp, Error> {
    reply.get_timestamp("operationTime").map_err(|_| Error::Protocol("an answer without its time"))
}

fn marker(row: &Document) -> Result<Marker, Error> {
    let unreadable = |_| Error::Protocol("the marker has unexpected fields");
    let number = |name| row.get_i64(name).map(i64::cast_unsigned).map_err(unreadable);
    Ok(Marker {
        offset: row.get_i64("offset").ok().map(|offset| Offset(offset.cast_unsigned())),
        log: row.get_str("log").map_err(unreadable)?.to_owned(),
        digest: number("digest")?,
        epoch: number("epoch")?,
        writes: number("writes")?,
    })
}

/// None where nothing has been written yet, or by a build that did not write them down.
fn keys(row: &Document) -> Result<Keys, Error> {
    const UNREADABLE: Error = Error::Protocol("the marker has keys that can't be read");
    let Ok(rows) = row.get_array("keys") else { return Ok(Keys::new()) };
    let read = |row: &Bson| {
        let row = row.as_document()?;
        let columns = row.get_array("columns").ok()?.iter().map(|name| name.as_str().map(str::to_owned));
        Some((TableName::new(row.get_str("table").ok()?), columns.collect::<Option<_>>()?))
    };
    rows.iter().map(read).collect::<Option<_>>().ok_or(UNREADABLE)
}

fn parked_key(row: &RawDocumentBuf) -> Result<ParkedKey, Error> {
    const UNREADABLE: Error = Error::Protocol("a parked row has unexpected fields");
    let id = row.get_document("_id").map_err(|_| UNREADABLE)?;
    let key = row.get_binary("key").map_err(|_| UNREADABLE)?;
    Ok(ParkedKey {
        table: TableName::new(id.get_str("table").map_err(|_| UNREADABLE)?),
        key: Key::from_bytes(key.bytes.to_vec().into()),
        offset: Offset(row.get_i64("offset").map_err(|_| UNREADABLE)?.cast_unsigned()),
        reason: row.get_str("reason").map_err(|_| UNREADABLE)?.to_owned(),
        seen: match row.get("seen").map_err(|_| UNREADABLE)? {
            Some(RawBsonRef::Binary(seen)) => Some(Seen::from_bytes(seen.bytes).unwrap_or(Seen::UNKNOWN).image),
            _ => None,
        },
    })
}
