//! Reading collections as they stand, in ranges of the key in the order of its index.
//!
//! A read is one at a cluster time: the one up to which the source has returned everything, so that its window closes at
//! once, or, where nobody streams or that time is too old to be read, the newest.

use crate::catalog;
use crate::client::{Client, within};
use crate::clock;
use crate::codec::Rows;
use crate::error::Error;
use crate::index;
use crate::key::DocumentKey;
use crate::source::Returned;
use async_trait::async_trait;
use bson::raw::cstr;
use bson::{RawBson, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::database::{Scope, TableAt};
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
    tables: HashMap<TableName, Table>,
    returned: Arc<Returned>,
    rows: Rows,
}

#[derive(Clone)]
struct Table {
    collection: String,
    key: DocumentKey,
    schema: Arc<Schema>,
    /// The key's index as a hint, once it was looked for.
    index: Option<RawBson>,
}

impl Table {
    fn new(at: &TableAt) -> Self {
        let key = DocumentKey::new(&at.document);
        let schema = catalog::schema(&at.table, &key);
        // That of `_id` is always there.
        let index = key.is_id().then(|| rawdoc! { "_id": 1 }.into());
        Self { collection: at.name.clone(), key, schema, index }
    }

    /// A `find` in the order of the key, after one. Bounds of the index cross types, as comparisons in a filter do not.
    /// `plain`: without documents that stand at several places of the index.
    fn ordered(&self, after: Option<&Key>, plain: bool) -> std::result::Result<RawDocumentBuf, Error> {
        let mut command = rawdoc! { "find": self.collection.as_str(), "sort": self.key.pattern()? };
        if let Some(index) = &self.index {
            command.append(cstr!("hint"), index.clone());
        }
        if let Some(left_out) = self.key.left_out(after, plain)? {
            command.append(cstr!("filter"), left_out);
        }
        if let Some(after) = after {
            // `min` includes the bound itself.
            command.append(cstr!("min"), self.key.bound(after)?);
        }
        Ok(command)
    }
}

/// What a read found, and when.
struct Found {
    rows: Vec<Row>,
    time: Timestamp,
    /// In bytes.
    size: usize,
    /// The last row's key is a single place in the index.
    may_end: bool,
    /// The bound in bytes was met.
    cut: bool,
}

impl MongodbReader {
    pub fn new(client: Client, scope: &Scope, returned: Arc<Returned>) -> Self {
        let tables = scope.tables.iter().map(|at| (at.table.clone(), Table::new(at))).collect();
        Self { client, tables, returned, rows: Rows::default() }
    }

    fn table(&self, table: &TableName) -> std::result::Result<Table, Error> {
        let known = self.tables.get(table).cloned();
        known.ok_or_else(|| Error::Fatal(format!("table {table} is not one of this pipeline")))
    }

    /// A table with its index, which is looked for once.
    async fn indexed(&mut self, table: &TableName) -> std::result::Result<Table, Error> {
        let mut known = self.table(table)?;
        if known.index.is_none() {
            let found = index::name(&self.client, &known.collection, &known.key).await?;
            let name = found.ok_or_else(|| index::lacking(&[(&known.collection, known.key.fields())]))?;
            known.index = Some(name.into());
            self.tables.insert(table.clone(), known.clone());
        }
        Ok(known)
    }

    /// Runs a `find` at a time; at the newest one where none is given or the given one can't be read.
    async fn find(
        &mut self,
        table: &Table,
        command: &RawDocumentBuf,
        at: Option<Timestamp>,
        bytes: usize,
        rows: Vec<Row>,
    ) -> std::result::Result<Found, Error> {
        let (given, before) = (at.is_some(), rows.len());
        match self.find_at(table, command, at, bytes, rows).await {
            Err((error, mut rows)) if given && matches!(error.code(), Some(TOO_OLD | UNAVAILABLE)) => {
                // What came before it broke off comes again.
                rows.truncate(before);
                self.find_at(table, command, None, bytes, rows).await.map_err(|(error, _)| error)
            }
            outcome => outcome.map_err(|(error, _)| error),
        }
    }

    async fn find_at(
        &mut self,
        table: &Table,
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
        let time = at.unwrap_or(Timestamp { time: 0, increment: 0 });
        let mut found = Found { rows, time, size: 0, may_end: false, cut: false };
        loop {
            let next = async { cursor.next().await.transpose() };
            let reply = match within(doing, next).await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(found),
                Err(error) => return Err((error, found.rows)),
            };
            match self.take(table, reply.as_raw_document(), bytes, &mut found) {
                Ok(true) => {}
                Ok(false) => return Ok(found),
                Err(error) => return Err((error, found.rows)),
            }
        }
    }

    /// Takes the rows of a reply; false when there are enough.
    fn take(
        &mut self,
        table: &Table,
        reply: &RawDocument,
        bytes: usize,
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
            if found.size >= bytes && found.may_end {
                found.cut = true;
                return Ok(false);
            }
            let row = self.rows.whole(&table.key, Document::new(document.as_bytes())?)?;
            found.size += row.as_bytes().len();
            found.may_end = table.key.is_id() || !table.key.is_spread(&table.schema.key_of(&row)?)?;
            found.rows.push(row);
        }
        Ok(true)
    }

    async fn range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> std::result::Result<Chunk, Error> {
        let table = self.indexed(table).await?;
        let mut command = table.ordered(range.after.as_ref(), false)?;
        if let Some(up_to) = &range.up_to {
            command.append(cstr!("max"), table.key.bound(up_to)?);
        }
        let mut at = self.returned.time();
        loop {
            let mut found = self.find(&table, &command, at, bytes, Vec::new()).await?;
            // `max` leaves out the bound itself, which belongs to the range.
            if let (Some(up_to), false) = (&range.up_to, found.cut) {
                let last = rawdoc! { "find": table.collection.as_str(), "filter": table.key.equal(up_to)? };
                let (time, rows) = (found.time, std::mem::take(&mut found.rows));
                found = match self.find_at(&table, &last, Some(time), usize::MAX, rows).await {
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
                Some(last) if found.cut => Some(table.schema.key_of(last)?),
                Some(_) | None => None,
            };
            return Ok(Chunk { schema: table.schema, rows: found.rows, high: clock::end(found.time), cut_at });
        }
    }

    async fn keys(&mut self, table: &TableName, keys: &[Key]) -> std::result::Result<Chunk, Error> {
        let table = self.table(table)?;
        let (mut rows, mut high, mut at) = (Vec::new(), None, self.returned.time());
        for part in keys.chunks(KEYS) {
            let before = rows.len();
            let command = rawdoc! { "find": table.collection.as_str(), "filter": table.key.any_of(part)? };
            let found = self.find(&table, &command, at, usize::MAX, rows).await?;
            rows = found.rows;
            if !table.key.is_id() {
                self.drop_strangers(&table, part, &mut rows, before)?;
            }
            high = high.max(Some(found.time));
            at = at.max(Some(found.time));
        }
        let high = match high {
            Some(time) => time,
            None => self.client.now().await?,
        };
        Ok(Chunk { schema: table.schema, rows, high: clock::end(high), cut_at: None })
    }

    /// Takes away documents that have one of the keys in an array: they are others.
    fn drop_strangers(
        &self,
        table: &Table,
        asked: &[Key],
        rows: &mut Vec<Row>,
        from: usize,
    ) -> std::result::Result<(), Error> {
        let mut kept = Vec::new();
        for row in rows.drain(from..) {
            let key = table.schema.key_of(&row)?;
            if !table.key.is_spread(&key)? || asked.contains(&key) {
                kept.push(row);
            }
        }
        rows.extend(kept);
        Ok(())
    }

    async fn boundary_key(
        &mut self,
        table: &TableName,
        after: Option<&Key>,
        rows: u64,
    ) -> std::result::Result<Option<Key>, Error> {
        let table = self.indexed(table).await?;
        let mut command = table.ordered(after, true)?;
        command.append(cstr!("projection"), table.key.projection()?);
        command.append(cstr!("skip"), i64::try_from(rows.saturating_sub(1)).unwrap_or(i64::MAX));
        command.append(cstr!("limit"), 1);
        let found = self.find(&table, &command, self.returned.time(), usize::MAX, Vec::new()).await?;
        Ok(found.rows.first().map(|row| table.schema.key_of(row)).transpose()?)
    }
}

#[async_trait]
impl TableReader for MongodbReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(self.table(table)?.schema)
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        let name = self.table(table)?.collection;
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
