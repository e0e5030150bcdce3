//! Reading collections as they stand, in ranges of `_id` in the server's own order.
//!
//! A read is one at a cluster time: the one up to which the source has returned everything, so that its window closes at
//! once, or, where nobody streams or that time is too old to be read, the newest.

use crate::catalog;
use crate::client::{Client, within};
use crate::clock;
use crate::codec::{self, Rows};
use crate::error::Error;
use crate::source::Returned;
use async_trait::async_trait;
use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::database::Scope;
use sync_worker_core::document::Document;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::Damaged;

/// Snapshots that are gone, or that a collection did not have yet.
const TOO_OLD: i32 = 239;
const UNAVAILABLE: i32 = 246;

/// Keys of one command.
const KEYS: usize = 1000;

pub struct MongodbReader {
    client: Client,
    tables: HashMap<TableName, (String, Arc<Schema>)>,
    returned: Arc<Returned>,
    rows: Rows,
}

/// What a read found, and when.
struct Found {
    rows: Vec<Row>,
    time: Timestamp,
    /// The bound in bytes was met.
    cut: bool,
}

impl MongodbReader {
    pub fn new(client: Client, scope: &Scope, returned: Arc<Returned>) -> Self {
        let table = |name: &TableName, there: &str| (name.clone(), (there.to_owned(), catalog::schema(name)));
        let tables = scope.tables.iter().map(|at| table(&at.table, &at.name)).collect();
        Self { client, tables, returned, rows: Rows::default() }
    }

    fn table(&self, table: &TableName) -> std::result::Result<(String, Arc<Schema>), Error> {
        let known = self.tables.get(table).cloned();
        known.ok_or_else(|| Error::Fatal(format!("table {table} is not one of this pipeline")))
    }

    /// Runs a `find` at a time; at the newest one where none is given or the given one can't be read.
    async fn find(
        &mut self,
        command: &RawDocumentBuf,
        at: Option<Timestamp>,
        bytes: usize,
        rows: Vec<Row>,
    ) -> std::result::Result<Found, Error> {
        let (given, before) = (at.is_some(), rows.len());
        match self.find_at(command, at, bytes, rows).await {
            Err((error, mut rows)) if given && matches!(error.code(), Some(TOO_OLD | UNAVAILABLE)) => {
                // What came before it broke off comes again.
                rows.truncate(before);
                self.find_at(command, None, bytes, rows).await.map_err(|(error, _)| error)
            }
            outcome => outcome.map_err(|(error, _)| error),
        }
    }

    async fn find_at(
        &mut self,
        command: &RawDocumentBuf,
        at: Option<Timestamp>,
        bytes: usize,
        rows: Vec<Row>,
    ) -> std::result::Result<Found, (Error, Vec<Row>)> {
        let mut concern = rawdoc! { "level": "snapshot" };
        if let Some(time) = at {
            concern.append(cstr!("atClusterTime"), time);
        }
        let mut command = command.clone();
        command.append(cstr!("readConcern"), concern);
        let doing = "a read of a collection";
        let mut cursor = match within(doing, self.client.database.run_raw_cursor_command(command).batch()).await {
            Ok(cursor) => cursor,
            Err(error) => return Err((error, rows)),
        };
        let mut found = Found { rows, time: at.unwrap_or(Timestamp { time: 0, increment: 0 }), cut: false };
        let mut size = 0;
        loop {
            let next = async { cursor.next().await.transpose() };
            let reply = match within(doing, next).await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(found),
                Err(error) => return Err((error, found.rows)),
            };
            match self.take(reply.as_raw_document(), bytes, &mut size, &mut found) {
                Ok(true) => {}
                Ok(false) => return Ok(found),
                Err(error) => return Err((error, found.rows)),
            }
        }
    }

    /// Takes the rows of a reply; false when there are enough.
    fn take(
        &mut self,
        reply: &RawDocument,
        bytes: usize,
        size: &mut usize,
        found: &mut Found,
    ) -> std::result::Result<bool, Error> {
        let cursor = reply.get_document("cursor").map_err(|_| Error::Protocol("no cursor"))?;
        if let Ok(time) = cursor.get_timestamp("atClusterTime").or_else(|_| reply.get_timestamp("atClusterTime")) {
            found.time = time;
        }
        let batch = cursor.get_array("firstBatch").or_else(|_| cursor.get_array("nextBatch"));
        for document in batch.map_err(|_| Error::Protocol("an answer without its batch"))? {
            let Ok(bson::RawBsonRef::Document(document)) = document else {
                return Err(Damaged("a row that is no document").into());
            };
            if *size >= bytes && !found.rows.is_empty() {
                found.cut = true;
                return Ok(false);
            }
            let row = self.rows.whole(Document::new(document.as_bytes())?)?;
            *size += row.as_bytes().len();
            found.rows.push(row);
        }
        Ok(true)
    }

    async fn range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> std::result::Result<Chunk, Error> {
        let (name, schema) = self.table(table)?;
        let mut command = ordered(&name, range.after.as_ref())?;
        if let Some(up_to) = &range.up_to {
            command.append(cstr!("max"), codec::key_document("_id", up_to)?);
        }
        let mut at = self.returned.time();
        loop {
            let mut found = self.find(&command, at, bytes, Vec::new()).await?;
            // `max` leaves out the bound itself, which belongs to the range.
            if let (Some(up_to), false) = (&range.up_to, found.cut) {
                let last = rawdoc! { "find": name.as_str(), "filter": codec::key_document("_id", up_to)? };
                let (time, rows) = (found.time, std::mem::take(&mut found.rows));
                found = match self.find_at(&last, Some(time), usize::MAX, rows).await {
                    Ok(found) => found,
                    // The snapshot went in between: both reads once more, at a newer time.
                    Err((error, _)) if at.is_some() && matches!(error.code(), Some(TOO_OLD | UNAVAILABLE)) => {
                        at = None;
                        continue;
                    }
                    Err((error, _)) => return Err(error),
                };
            }
            let cut_at = match found.rows.last() {
                Some(last) if found.cut => Some(schema.key_of(last)?),
                Some(_) | None => None,
            };
            return Ok(Chunk { schema, rows: found.rows, high: clock::end(found.time), cut_at });
        }
    }

    async fn keys(&mut self, table: &TableName, keys: &[Key]) -> std::result::Result<Chunk, Error> {
        let (name, schema) = self.table(table)?;
        let (mut rows, mut high, mut at) = (Vec::new(), None, self.returned.time());
        for part in keys.chunks(KEYS) {
            let mut values = RawArrayBuf::new();
            for key in part {
                values.push(codec::key_value(key)?);
            }
            let command = rawdoc! { "find": name.as_str(), "filter": { "_id": { "$in": values } } };
            let found = self.find(&command, at, usize::MAX, rows).await?;
            rows = found.rows;
            high = high.max(Some(found.time));
            at = at.max(Some(found.time));
        }
        let high = match high {
            Some(time) => time,
            None => self.client.now().await?,
        };
        Ok(Chunk { schema, rows, high: clock::end(high), cut_at: None })
    }

    async fn boundary_key(
        &mut self,
        table: &TableName,
        after: Option<&Key>,
        rows: u64,
    ) -> std::result::Result<Option<Key>, Error> {
        let (name, schema) = self.table(table)?;
        let mut command = ordered(&name, after)?;
        command.append(cstr!("projection"), rawdoc! { "_id": 1 });
        command.append(cstr!("skip"), i64::try_from(rows.saturating_sub(1)).unwrap_or(i64::MAX));
        command.append(cstr!("limit"), 1);
        let found = self.find(&command, self.returned.time(), usize::MAX, Vec::new()).await?;
        Ok(found.rows.first().map(|row| schema.key_of(row)).transpose()?)
    }
}

/// A `find` in the order of `_id`, after a key. Bounds of the index cross types, as comparisons in a filter do not.
fn ordered(name: &str, after: Option<&Key>) -> std::result::Result<RawDocumentBuf, Error> {
    let mut command = rawdoc! { "find": name, "hint": { "_id": 1 }, "sort": { "_id": 1 } };
    if let Some(after) = after {
        // `min` includes the bound itself.
        let other = rawdoc! { "$ne": codec::key_value(after)? };
        command.append(cstr!("filter"), rawdoc! { "_id": other });
        command.append(cstr!("min"), codec::key_document("_id", after)?);
    }
    Ok(command)
}

#[async_trait]
impl TableReader for MongodbReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(self.table(table)?.1)
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        let (name, _) = self.table(table)?;
        let reply = self.client.run("a count of a collection", rawdoc! { "count": name.as_str() }).await?;
        let count = reply.get_i32("n").map(i64::from).or_else(|_| reply.get_i64("n")).unwrap_or(0);
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        Ok(self.boundary_key(table, after, rows).await?)
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        Ok(self.range(table, range, bytes).await?)
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        Ok(self.keys(table, keys).await?)
    }
}
