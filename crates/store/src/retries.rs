//! Deferred retries and dead letters.

use crate::SqliteStore;
use crate::checksum::Checksum;
use crate::error::Fault;
use crate::schemas::{self, Schemas};
use crate::writer::Session;
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Params, params};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::guard::Image;
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::store::{Deferred, Name, RetryQueue, TargetId};

/// What one look at the queue returns at most, unless a single version is larger (invariant 9).
const BYTES_AT_ONCE: usize = 16 * 1024 * 1024;

const TARGET: &str = "pipeline = ?1 AND database = ?2 AND bus_partition = ?3";

#[async_trait]
impl RetryQueue for SqliteStore {
    async fn defer(&self, deferred: Vec<Deferred>) -> Result<()> {
        if deferred.is_empty() {
            return Ok(());
        }
        let saved = self.writer.call("saving deferred changes", move |session| {
            deferred.iter().try_for_each(|deferred| save(session, deferred))
        });
        Ok(saved.await?)
    }

    async fn get(&self, target: &TargetId, names: &[Name]) -> Result<Vec<Deferred>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (target, names) = (target.clone(), names.to_vec());
        let found = self.writer.call("reading deferred changes", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let sql = format!("SELECT {COLUMNS} FROM deferred WHERE {TARGET} AND table_name = ?4 AND row_key = ?5");
            let mut found = Vec::new();
            for (table, key) in &names {
                let name = params![pipeline, database, partition, table.as_str(), &key.as_bytes()[..]];
                found.extend(read(&session.connection, &sql, name, BYTES_AT_ONCE)?);
            }
            Ok(found)
        });
        Ok(found.await?)
    }

    async fn due(&self, target: &TargetId, now: i64, limit: usize) -> Result<Vec<Deferred>> {
        let target = target.clone();
        let found = self.writer.call("reading deferred changes", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let sql = format!(
                "SELECT {COLUMNS} FROM deferred WHERE {TARGET} AND dead = 0 AND due <= ?4 ORDER BY due, bus_offset LIMIT ?5"
            );
            let asked = params![pipeline, database, partition, now, bounded(limit)];
            read(&session.connection, &sql, asked, BYTES_AT_ONCE)
        });
        Ok(found.await?)
    }

    async fn next_due(&self, target: &TargetId) -> Result<Option<i64>> {
        let target = target.clone();
        let found = self.writer.call("reading deferred changes", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let sql = format!("SELECT min(due) FROM deferred WHERE {TARGET} AND dead = 0");
            let mut statement = session.connection.prepare_cached(&sql)?;
            Ok(statement.query_row(params![pipeline, database, partition], |row| row.get(0))?)
        });
        Ok(found.await?)
    }

    async fn remove(&self, target: &TargetId, versions: &[(Name, Offset)]) -> Result<usize> {
        if versions.is_empty() {
            return Ok(0);
        }
        let (target, versions) = (target.clone(), versions.to_vec());
        let removed = self.writer.call("removing deferred changes", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let mut statement = session.connection.prepare_cached(&format!(
                "DELETE FROM deferred WHERE {TARGET} AND table_name = ?4 AND row_key = ?5 AND bus_offset = ?6"
            ))?;
            let mut removed = 0;
            for ((table, key), offset) in &versions {
                let (key, offset) = (&key.as_bytes()[..], offset.0.cast_signed());
                removed += statement.execute(params![pipeline, database, partition, table.as_str(), key, offset])?;
            }
            Ok(removed)
        });
        Ok(removed.await?)
    }

    async fn list(&self, target: &TargetId, dead: bool, limit: usize) -> Result<Vec<Deferred>> {
        let target = target.clone();
        let found = self.writer.call("reading deferred changes", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let sql =
                format!("SELECT {COLUMNS} FROM deferred WHERE {TARGET} AND dead = ?4 ORDER BY bus_offset LIMIT ?5");
            let asked = params![pipeline, database, partition, dead, bounded(limit)];
            read(&session.connection, &sql, asked, usize::MAX)
        });
        Ok(found.await?)
    }
}

pub(crate) fn columns(target: &TargetId) -> (&str, &str, u32) {
    (target.pipeline.as_str(), target.database.as_str(), target.partition.0)
}

pub(crate) fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

const COLUMNS: &str = "pipeline, database, bus_partition, table_name, row_key, schema, op, before, after, bus_offset, \
                       class, reason, attempts, due, dead, over, checksum";

/// A row of the table, borrowed from a version or from SQLite.
struct Stored<'a> {
    pipeline: &'a str,
    database: &'a str,
    partition: u32,
    table: &'a str,
    key: &'a [u8],
    schema: i64,
    op: &'a str,
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    offset: i64,
    class: &'a str,
    reason: &'a str,
    attempts: u32,
    due: i64,
    dead: bool,
    over: Option<&'a [u8]>,
}

impl<'a> Stored<'a> {
    fn checksum(&self) -> Checksum {
        let target = Checksum::of("deferred").text(self.pipeline).text(self.database).number(self.partition.into());
        let key = target.text(self.table).bytes(self.key);
        let change = key.number(self.schema).text(self.op).optional(self.before).optional(self.after);
        let refusal = change.number(self.offset).text(self.class).text(self.reason);
        let refusal = refusal.number(self.attempts.into()).number(self.due).number(self.dead.into());
        // Rows from before there was one stay valid.
        self.over.into_iter().fold(refusal, Checksum::bytes)
    }

    fn of(row: &'a rusqlite::Row<'_>) -> Result<Self, Fault> {
        let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
        let blob = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_blob_or_null()?);
        let stored = Self {
            pipeline: text(0)?,
            database: text(1)?,
            partition: row.get(2)?,
            table: text(3)?,
            key: row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?,
            schema: row.get(5)?,
            op: text(6)?,
            before: blob(7)?,
            after: blob(8)?,
            offset: row.get(9)?,
            class: text(10)?,
            reason: text(11)?,
            attempts: row.get(12)?,
            due: row.get(13)?,
            dead: row.get(14)?,
            over: blob(15)?,
        };
        stored.checksum().verify("deferred", row.get(16)?)?;
        Ok(stored)
    }

    fn size(&self) -> usize {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        self.key.len() + length(self.before) + length(self.after) + length(self.over)
    }

    fn deferred(&self, connection: &Connection, schemas: &mut Schemas) -> Result<Deferred, Fault> {
        let unknown = |what: &str| Fault::Damaged(format!("a deferred change has an unknown {what}"));
        let image = |bytes: Option<&[u8]>| bytes.map(|bytes| Row::from_bytes(Bytes::copy_from_slice(bytes)));
        let op = self.op.chars().next().and_then(Op::from_code).ok_or_else(|| unknown("operation"))?;
        Ok(Deferred {
            target: TargetId {
                pipeline: PipelineName::new(self.pipeline),
                database: DatabaseName::new(self.database),
                partition: Partition(self.partition),
            },
            key: Key::from_bytes(Bytes::copy_from_slice(self.key)),
            change: Change {
                schema: schemas.read(connection, self.schema)?,
                op,
                before: image(self.before),
                after: image(self.after),
            },
            over: self.over.map(images).transpose()?,
            offset: Offset(self.offset.cast_unsigned()),
            class: class(self.class).ok_or_else(|| unknown("class"))?,
            reason: self.reason.to_owned(),
            attempts: self.attempts,
            due: self.due,
            dead: self.dead,
        })
    }
}

fn class(text: &str) -> Option<ErrorClass> {
    [
        ErrorClass::Transient,
        ErrorClass::Dependency,
        ErrorClass::Poison,
        ErrorClass::Gap,
        ErrorClass::Superseded,
        ErrorClass::Fatal,
    ]
    .into_iter()
    .find(|class| class.as_str() == text)
}

fn put_images(images: &[Image]) -> Vec<u8> {
    let mut out = Vec::with_capacity(images.len() * 17);
    for image in images {
        let bytes = image.to_bytes();
        // None or sixteen.
        out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        out.extend(bytes);
    }
    out
}

fn images(mut bytes: &[u8]) -> Result<Vec<Image>, Fault> {
    let damaged = || Fault::Damaged("what a deferred change may be written over can't be read".to_owned());
    let mut images = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (image, rest) = rest.split_at_checked(length.into()).ok_or_else(damaged)?;
        images.push(Image::from_bytes(image).map_err(|_| damaged())?);
        bytes = rest;
    }
    Ok(images)
}

fn save(session: &Session, deferred: &Deferred) -> Result<(), Fault> {
    let (pipeline, database, partition) = columns(&deferred.target);
    let change = &deferred.change;
    let image = |image: &Option<Row>| image.as_ref().map(|row| row.as_bytes().clone());
    let (before, after) = (image(&change.before), image(&change.after));
    let over = deferred.over.as_deref().map(put_images);
    let op = change.op.to_string();
    let stored = Stored {
        pipeline,
        database,
        partition,
        table: change.table().as_str(),
        key: deferred.key.as_bytes(),
        schema: schemas::keep(&session.connection, &change.schema)?,
        op: &op,
        before: before.as_deref(),
        after: after.as_deref(),
        offset: deferred.offset.0.cast_signed(),
        class: deferred.class.as_str(),
        reason: &deferred.reason,
        attempts: deferred.attempts,
        due: deferred.due,
        dead: deferred.dead,
        over: over.as_deref(),
    };
    let mut statement = session.connection.prepare_cached(&format!(
        "INSERT OR REPLACE INTO deferred ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    ))?;
    statement.execute(params![
        stored.pipeline,
        stored.database,
        stored.partition,
        stored.table,
        stored.key,
        stored.schema,
        stored.op,
        stored.before,
        stored.after,
        stored.offset,
        stored.class,
        stored.reason,
        stored.attempts,
        stored.due,
        stored.dead,
        stored.over,
        stored.checksum().finish(),
    ])?;
    Ok(())
}

/// Reads versions up to a bound in bytes, at least one where there is one.
fn read(connection: &Connection, sql: &str, asked: impl Params, bytes: usize) -> Result<Vec<Deferred>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(asked)?;
    let (mut found, mut schemas, mut size) = (Vec::new(), Schemas::default(), 0usize);
    while let Some(row) = rows.next()? {
        let stored = Stored::of(row)?;
        size = size.saturating_add(stored.size());
        if size > bytes && !found.is_empty() {
            break;
        }
        found.push(stored.deferred(connection, &mut schemas)?);
    }
    Ok(found)
}

/// Reads every row, for its checksum.
pub(crate) fn check(connection: &Connection) -> Result<(), Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM deferred"))?;
    let mut rows = statement.query([])?;
    let mut schemas = Schemas::default();
    while let Some(row) = rows.next()? {
        let stored = Stored::of(row)?;
        schemas.read(connection, stored.schema)?;
    }
    Ok(())
}
