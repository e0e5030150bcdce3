//! Checkpoints of resolvers.

use crate::SqliteStore;
use crate::checksum::Checksum;
use crate::error::Fault;
use crate::retries::columns;
use crate::writer::Session;
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{ResolverCheckpoint, ResolverStore};
use sync_worker_core::record::Offset;
use sync_worker_core::store::TargetId;

const TARGET: &str = "pipeline = ?1 AND database = ?2 AND bus_partition = ?3";

#[async_trait]
impl ResolverStore for SqliteStore {
    async fn resolver_checkpoints(&self, target: &TargetId) -> Result<Vec<ResolverCheckpoint>> {
        let target = target.clone();
        let found = self.writer.call("reading checkpoints of a resolver", move |session| {
            let (pipeline, database, partition) = columns(&target);
            let mut statement = session
                .connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM resolver WHERE {TARGET} ORDER BY bus_offset"))?;
            let mut rows = statement.query(params![pipeline, database, partition])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(Stored::of(row)?.checkpoint());
            }
            Ok(found)
        });
        Ok(found.await?)
    }

    async fn save_resolver_checkpoint(
        &self,
        target: &TargetId,
        checkpoint: &ResolverCheckpoint,
        keep: &[Offset],
    ) -> Result<()> {
        let (target, checkpoint, keep) = (target.clone(), checkpoint.clone(), keep.to_vec());
        let saved = self
            .writer
            .call("saving a resolver's checkpoint", move |session| save(session, &target, &checkpoint, &keep));
        Ok(saved.await?)
    }
}

const COLUMNS: &str = "pipeline, database, bus_partition, bus_offset, rests_on, log, state, checksum";

struct Stored<'a> {
    pipeline: &'a str,
    database: &'a str,
    partition: u32,
    offset: i64,
    rests_on: Option<i64>,
    log: &'a str,
    state: &'a [u8],
}

impl<'a> Stored<'a> {
    fn checksum(&self) -> Checksum {
        let target = Checksum::of("resolver").text(self.pipeline).text(self.database).number(self.partition.into());
        target.number(self.offset).optional_number(self.rests_on).text(self.log).bytes(self.state)
    }

    fn of(row: &'a rusqlite::Row<'_>) -> Result<Self, Fault> {
        let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
        let stored = Self {
            pipeline: text(0)?,
            database: text(1)?,
            partition: row.get(2)?,
            offset: row.get(3)?,
            rests_on: row.get(4)?,
            log: text(5)?,
            state: row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?,
        };
        stored.checksum().verify("resolver", row.get(7)?)?;
        Ok(stored)
    }

    fn checkpoint(&self) -> ResolverCheckpoint {
        ResolverCheckpoint {
            offset: Offset(self.offset.cast_unsigned()),
            rests_on: self.rests_on.map(|offset| Offset(offset.cast_unsigned())),
            log: self.log.to_owned(),
            state: Bytes::copy_from_slice(self.state),
        }
    }
}

fn save(session: &Session, target: &TargetId, checkpoint: &ResolverCheckpoint, keep: &[Offset]) -> Result<(), Fault> {
    let (pipeline, database, partition) = columns(target);
    let stored = Stored {
        pipeline,
        database,
        partition,
        offset: checkpoint.offset.0.cast_signed(),
        rests_on: checkpoint.rests_on.map(|offset| offset.0.cast_signed()),
        log: &checkpoint.log,
        state: &checkpoint.state,
    };
    let mut known = session.connection.prepare_cached(&format!("SELECT bus_offset FROM resolver WHERE {TARGET}"))?;
    let known = known.query_map(params![pipeline, database, partition], |row| row.get(0))?;
    let known = known.collect::<Result<Vec<i64>, _>>()?;
    let mut insert = session.connection.prepare_cached(&format!(
        "INSERT OR REPLACE INTO resolver ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    ))?;
    insert.execute(params![
        stored.pipeline,
        stored.database,
        stored.partition,
        stored.offset,
        stored.rests_on,
        stored.log,
        stored.state,
        stored.checksum().finish(),
    ])?;
    let mut delete =
        session.connection.prepare_cached(&format!("DELETE FROM resolver WHERE {TARGET} AND bus_offset = ?4"))?;
    for offset in &known {
        if *offset != stored.offset && !keep.contains(&Offset(offset.cast_unsigned())) {
            delete.execute(params![pipeline, database, partition, offset])?;
        }
    }
    if known.is_empty() {
        session.fold_log();
    }
    Ok(())
}

/// Reads every row, for its checksum.
pub(crate) fn check(connection: &Connection) -> Result<(), Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM resolver"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        Stored::of(row)?;
    }
    Ok(())
}
