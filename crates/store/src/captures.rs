//! Checkpoints of captures and the chunks of their snapshots.

use crate::SqliteStore;
use crate::checksum::Checksum;
use crate::error::Fault;
use crate::writer::Session;
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use sync_worker_core::error::Result;
use sync_worker_core::name::{InstallationId, TableName};
use sync_worker_core::position::{Checkpoint, Epoch};
use sync_worker_core::reader::KeyRange;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::store::{CaptureId, ChunkState, Store, StoredCheckpoint};

#[async_trait]
impl Store for SqliteStore {
    async fn installation(&self) -> Result<InstallationId> {
        Ok(self.installation.clone())
    }

    async fn checkpoint(&self, capture: &CaptureId) -> Result<Option<StoredCheckpoint>> {
        let capture = capture.clone();
        let found = self.writer.call("reading a checkpoint", move |session| {
            let mut statement = session.connection.prepare_cached(&format!(
                "SELECT {CHECKPOINT} FROM checkpoint WHERE pipeline = ?1 AND database = ?2"
            ))?;
            let mut rows = statement.query(params![capture.pipeline.as_str(), capture.database.as_str()])?;
            rows.next()?.map(stored_checkpoint).transpose()
        });
        Ok(found.await?)
    }

    async fn save_checkpoint(&self, capture: &CaptureId, checkpoint: &StoredCheckpoint) -> Result<()> {
        let (capture, stored) = (capture.clone(), checkpoint.clone());
        let saved = self.writer.call("saving a checkpoint", move |session| save(session, &capture, &stored));
        Ok(saved.await?)
    }

    async fn chunks(&self, capture: &CaptureId) -> Result<Vec<ChunkState>> {
        let capture = capture.clone();
        let found = self.writer.call("reading snapshot chunks", move |session| {
            let mut statement = session.connection.prepare_cached(&format!(
                "SELECT {CHUNK} FROM chunk WHERE pipeline = ?1 AND database = ?2 ORDER BY table_name, number"
            ))?;
            let mut rows = statement.query(params![capture.pipeline.as_str(), capture.database.as_str()])?;
            let mut chunks = Vec::new();
            while let Some(row) = rows.next()? {
                chunks.push(chunk(row)?);
            }
            Ok(chunks)
        });
        Ok(found.await?)
    }

    async fn save_chunks(&self, capture: &CaptureId, chunks: &[ChunkState]) -> Result<()> {
        let (capture, chunks) = (capture.clone(), chunks.to_vec());
        let saved = self.writer.call("saving snapshot chunks", move |session| {
            chunks.iter().try_for_each(|chunk| save_chunk(session, &capture, chunk))
        });
        Ok(saved.await?)
    }

    async fn forget_chunks(&self, capture: &CaptureId, tables: &[TableName]) -> Result<()> {
        let (capture, tables) = (capture.clone(), tables.to_vec());
        let forgotten = self.writer.call("forgetting the chunks of tables", move |session| {
            let mut delete = session
                .connection
                .prepare_cached("DELETE FROM chunk WHERE pipeline = ?1 AND database = ?2 AND table_name = ?3")?;
            for table in &tables {
                delete.execute(params![capture.pipeline.as_str(), capture.database.as_str(), table.as_str()])?;
            }
            Ok(())
        });
        Ok(forgotten.await?)
    }

    async fn forget_capture(&self, capture: &CaptureId) -> Result<()> {
        let capture = capture.clone();
        let forgotten = self.writer.call("forgetting a capture", move |session| {
            for table in ["checkpoint", "chunk"] {
                let sql = format!("DELETE FROM {table} WHERE pipeline = ?1 AND database = ?2");
                session.connection.execute(&sql, params![capture.pipeline.as_str(), capture.database.as_str()])?;
            }
            session.fold_log();
            Ok(())
        });
        Ok(forgotten.await?)
    }
}

const CHECKPOINT: &str = "pipeline, database, epoch, position, resume, log, next, checksum";

fn save(session: &Session, capture: &CaptureId, stored: &StoredCheckpoint) -> Result<(), Fault> {
    let (pipeline, database) = (capture.pipeline.as_str(), capture.database.as_str());
    let StoredCheckpoint { checkpoint, log, next } = stored;
    let (position, next) = (checkpoint.position.to_string(), next.0.cast_signed());
    let texts = [pipeline, database, &checkpoint.epoch.0, &position, &checkpoint.resume, log];
    let checksum = checkpoint_checksum(texts, next).finish();
    let mut update = session.connection.prepare_cached(
        "UPDATE checkpoint SET epoch = ?3, position = ?4, resume = ?5, log = ?6, next = ?7, checksum = ?8
         WHERE pipeline = ?1 AND database = ?2",
    )?;
    let [_, _, epoch, position, resume, log] = texts;
    if update.execute(params![pipeline, database, epoch, position, resume, log, next, checksum])? == 0 {
        let insert = format!("INSERT INTO checkpoint ({CHECKPOINT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        let row = params![pipeline, database, epoch, position, resume, log, next, checksum];
        session.connection.execute(&insert, row)?;
        session.fold_log();
    }
    Ok(())
}

fn checkpoint_checksum(texts: [&str; 6], next: i64) -> Checksum {
    texts.into_iter().fold(Checksum::of("checkpoint"), Checksum::text).number(next)
}

fn stored_checkpoint(row: &Row<'_>) -> Result<StoredCheckpoint, Fault> {
    let mut texts = [""; 6];
    for (index, text) in texts.iter_mut().enumerate() {
        *text = row.get_ref(index)?.as_str().map_err(rusqlite::Error::from)?;
    }
    let next: i64 = row.get(6)?;
    checkpoint_checksum(texts, next).verify("checkpoint", row.get(7)?)?;
    let [_, _, epoch, position, resume, log] = texts;
    let position = position.parse().map_err(|error| Fault::Damaged(format!("a checkpoint is {error}")))?;
    let checkpoint = Checkpoint { epoch: Epoch(epoch.to_owned()), position, resume: resume.to_owned() };
    Ok(StoredCheckpoint { checkpoint, log: log.to_owned(), next: Offset(next.cast_unsigned()) })
}

const CHUNK: &str = "pipeline, database, table_name, number, after, up_to, done, row_count, checksum";

fn save_chunk(session: &Session, capture: &CaptureId, chunk: &ChunkState) -> Result<(), Fault> {
    let bytes = |key: &Option<Key>| key.as_ref().map(|key| key.as_bytes().clone());
    let (after, up_to) = (bytes(&chunk.range.after), bytes(&chunk.range.up_to));
    let row = ChunkRow {
        names: [capture.pipeline.as_str(), capture.database.as_str(), chunk.table.as_str()],
        number: chunk.number.cast_signed(),
        after: after.as_deref(),
        up_to: up_to.as_deref(),
        done: i64::from(chunk.done),
        rows: chunk.rows.cast_signed(),
    };
    let mut insert = session.connection.prepare_cached(&format!(
        "INSERT OR REPLACE INTO chunk ({CHUNK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    ))?;
    let [pipeline, database, table] = row.names;
    let checksum = row.checksum().finish();
    insert
        .execute(params![pipeline, database, table, row.number, row.after, row.up_to, row.done, row.rows, checksum])?;
    Ok(())
}

struct ChunkRow<'a> {
    names: [&'a str; 3],
    number: i64,
    after: Option<&'a [u8]>,
    up_to: Option<&'a [u8]>,
    done: i64,
    rows: i64,
}

impl ChunkRow<'_> {
    fn checksum(&self) -> Checksum {
        let names = self.names.into_iter().fold(Checksum::of("chunk"), Checksum::text);
        names.number(self.number).optional(self.after).optional(self.up_to).number(self.done).number(self.rows)
    }
}

fn chunk(row: &Row<'_>) -> Result<ChunkState, Fault> {
    let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
    let blob = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_blob_or_null()?);
    let read = ChunkRow {
        names: [text(0)?, text(1)?, text(2)?],
        number: row.get(3)?,
        after: blob(4)?,
        up_to: blob(5)?,
        done: row.get(6)?,
        rows: row.get(7)?,
    };
    read.checksum().verify("chunk", row.get(8)?)?;
    let key = |bytes: Option<&[u8]>| bytes.map(|bytes| Key::from_bytes(Bytes::copy_from_slice(bytes)));
    Ok(ChunkState {
        table: TableName::new(read.names[2]),
        number: read.number.cast_unsigned(),
        range: KeyRange { after: key(read.after), up_to: key(read.up_to) },
        done: read.done != 0,
        rows: read.rows.cast_unsigned(),
    })
}

/// Reads every row, for its checksum.
pub(crate) fn check(connection: &Connection) -> Result<(), Fault> {
    let mut checkpoints = connection.prepare(&format!("SELECT {CHECKPOINT} FROM checkpoint"))?;
    let mut rows = checkpoints.query([])?;
    while let Some(row) = rows.next()? {
        stored_checkpoint(row)?;
    }
    let mut chunks = connection.prepare(&format!("SELECT {CHUNK} FROM chunk"))?;
    let mut rows = chunks.query([])?;
    while let Some(row) = rows.next()? {
        chunk(row)?;
    }
    Ok(())
}
