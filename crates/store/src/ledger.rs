//! The conflict ledger.

use crate::SqliteStore;
use crate::checksum::Checksum;
use crate::error::Fault;
use crate::retries::bounded;
use crate::schemas::{self, Schemas};
use crate::writer::Session;
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Params, params};
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{Conflict, Contender, FLIP_FLOP, Ledger, Recorded, Settled, UNFIT, Wanted};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::{Key, Row};

#[async_trait]
impl Ledger for SqliteStore {
    async fn record(&self, conflicts: Vec<Conflict>) -> Result<Vec<Conflict>> {
        if conflicts.is_empty() {
            return Ok(Vec::new());
        }
        let recorded = self.writer.call("recording conflicts", move |session| {
            let last = "SELECT coalesce(max(id), 0) FROM conflict";
            let mut id: i64 = session.connection.prepare_cached(last)?.query_row([], |row| row.get(0))?;
            let mut new = Vec::new();
            for conflict in conflicts {
                if record(session, id + 1, &conflict)? {
                    id += 1;
                    new.push(conflict);
                }
            }
            Ok(new)
        });
        Ok(recorded.await?)
    }

    async fn conflicts(&self, pipeline: &PipelineName, wanted: &Wanted) -> Result<Vec<Recorded>> {
        let (pipeline, wanted) = (pipeline.clone(), wanted.clone());
        let found = self.writer.call("reading conflicts", move |session| {
            let open = if wanted.open_only { "AND open = 1" } else { "" };
            let sql = format!(
                "SELECT {COLUMNS} FROM conflict
                 WHERE pipeline = ?1 AND id < ?2 AND (?3 IS NULL OR table_name = ?3) {open} ORDER BY id DESC LIMIT ?4"
            );
            let (before, table) = (wanted.before.unwrap_or(i64::MAX), wanted.table.as_ref().map(TableName::as_str));
            read(&session.connection, &sql, params![pipeline.as_str(), before, table, bounded(wanted.limit)])
        });
        Ok(found.await?)
    }

    async fn conflict(&self, pipeline: &PipelineName, id: i64) -> Result<Option<Recorded>> {
        let pipeline = pipeline.clone();
        let found = self.writer.call("reading a conflict", move |session| {
            let sql = format!("SELECT {COLUMNS} FROM conflict WHERE pipeline = ?1 AND id = ?2");
            Ok(read(&session.connection, &sql, params![pipeline.as_str(), id])?.pop())
        });
        Ok(found.await?)
    }

    async fn close(
        &self,
        pipeline: &PipelineName,
        table: &TableName,
        settled: &Settled,
        by: &str,
        time: i64,
    ) -> Result<usize> {
        let (pipeline, table, settled, by) = (pipeline.clone(), table.clone(), settled.clone(), by.to_owned());
        let closed = self.writer.call("closing conflicts", move |session| {
            let (of_pipeline, of_table) = (pipeline.as_str(), table.as_str());
            match &settled {
                Settled::Key(key) => {
                    let of = params![of_pipeline, of_table, &key.as_bytes()[..], UNFIT];
                    close(session, "open = 1 AND row_key = ?3 AND kind <> ?4", of, None, &by, time)
                }
                Settled::Columns { key, columns, before, stands } => {
                    let of = params![of_pipeline, of_table, &key.as_bytes()[..], UNFIT];
                    // Those about the whole row.
                    let condition = "open = 1 AND row_key = ?3 AND kind <> ?4 AND stands IS NULL";
                    let whole = close(session, condition, of, None, &by, time)?;
                    let of = params![of_pipeline, of_table, &key.as_bytes()[..], &before.as_bytes()[..]];
                    let condition = "stands IS NOT NULL AND row_key = ?3 AND (open = 1 OR stands = ?4)";
                    Ok(whole + close(session, condition, of, Some((columns, before, stands)), &by, time)?)
                }
                Settled::Unfit(key) => {
                    let condition = "open = 1 AND row_key = ?3 AND kind = ?4 AND column_name <> ''";
                    close(
                        session,
                        condition,
                        params![of_pipeline, of_table, &key.as_bytes()[..], UNFIT],
                        None,
                        &by,
                        time,
                    )
                }
                Settled::Refused { keys, at } => {
                    let condition = "open = 1 AND row_key = ?3 AND kind = ?4 AND column_name = '' AND member = ?5";
                    let closed = keys.iter().map(|key| {
                        let of = params![of_pipeline, of_table, &key.as_bytes()[..], UNFIT, at.as_str()];
                        close(session, condition, of, None, &by, time)
                    });
                    closed.sum()
                }
                Settled::Entry(id) => {
                    close(session, "open = 1 AND id = ?3", params![of_pipeline, of_table, id], None, &by, time)
                }
                Settled::FlipFlops => {
                    let of = params![of_pipeline, of_table, FLIP_FLOP];
                    close(session, "open = 1 AND kind = ?3", of, None, &by, time)
                }
            }
        });
        Ok(closed.await?)
    }
}

const COLUMNS: &str = "id, pipeline, bus_partition, bus_offset, table_name, row_key, column_name, kind, strategy, \
                       winner_by, winner_merged, winner_time, winner_row, loser_by, loser_merged, loser_time, loser_row, \
                       member, schema, time, open, decided_by, decided_at, incumbent_won, stands, checksum";

/// A row of the table, borrowed from a conflict or from SQLite.
struct Stored<'a> {
    id: i64,
    pipeline: &'a str,
    partition: u32,
    offset: i64,
    table: &'a str,
    key: &'a [u8],
    column: &'a str,
    kind: &'a str,
    strategy: &'a str,
    winner: Side<'a>,
    loser: Option<Side<'a>>,
    member: Option<&'a str>,
    schema: i64,
    time: i64,
    open: bool,
    decided: Option<(&'a str, i64)>,
    incumbent_won: Option<bool>,
    stands: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
struct Side<'a> {
    by: Option<&'a str>,
    merged: bool,
    time: i64,
    row: Option<&'a [u8]>,
}

impl<'a> Side<'a> {
    fn of(contender: &'a Contender) -> Self {
        Self {
            by: contender.by.as_ref().map(DatabaseName::as_str),
            merged: contender.merged,
            time: contender.commit_time,
            row: contender.row.as_ref().map(|row| &row.as_bytes()[..]),
        }
    }

    /// From the four columns at `first`.
    fn read(row: &'a rusqlite::Row<'_>, first: usize) -> Result<Option<Self>, rusqlite::Error> {
        let Some(time) = row.get(first + 2)? else { return Ok(None) };
        let (by, image) = (row.get_ref(first)?.as_str_or_null()?, row.get_ref(first + 3)?.as_blob_or_null()?);
        Ok(Some(Self { by, merged: row.get(first + 1)?, time, row: image }))
    }

    fn checksum(&self, checksum: Checksum) -> Checksum {
        let by = checksum.optional(self.by.map(str::as_bytes)).number(self.merged.into());
        by.number(self.time).optional(self.row)
    }

    fn contender(&self) -> Contender {
        Contender {
            by: self.by.map(DatabaseName::new),
            merged: self.merged,
            commit_time: self.time,
            row: self.row.map(row_of),
        }
    }
}

fn row_of(bytes: &[u8]) -> Row {
    Row::from_bytes(Bytes::copy_from_slice(bytes))
}

impl<'a> Stored<'a> {
    fn checksum(&self) -> Checksum {
        let place = Checksum::of("conflict").number(self.id).text(self.pipeline).number(self.partition.into());
        let name = place.number(self.offset).text(self.table).bytes(self.key).text(self.column).text(self.kind);
        let winner = self.winner.checksum(name.text(self.strategy)).number(self.loser.is_some().into());
        let loser = self.loser.iter().fold(winner, |checksum, loser| loser.checksum(checksum));
        let rest = loser.optional(self.member.map(str::as_bytes)).number(self.schema).number(self.time);
        let rest = rest.number(self.open.into()).optional(self.decided.map(|(by, _)| by.as_bytes()));
        let rest = rest.optional_number(self.decided.map(|(_, at)| at));
        // Rows from before there was one stay valid.
        let rest = self.incumbent_won.into_iter().fold(rest, |checksum, won| checksum.number(won.into()));
        self.stands.into_iter().fold(rest, Checksum::bytes)
    }

    fn of(row: &'a rusqlite::Row<'_>) -> Result<Self, Fault> {
        let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
        let text_or_null = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str_or_null()?);
        let stored = Self {
            id: row.get(0)?,
            pipeline: text(1)?,
            partition: row.get(2)?,
            offset: row.get(3)?,
            table: text(4)?,
            key: row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?,
            column: text(6)?,
            kind: text(7)?,
            strategy: text(8)?,
            winner: Side::read(row, 9)?.ok_or_else(|| Fault::Damaged("a conflict has no winner".to_owned()))?,
            loser: Side::read(row, 13)?,
            member: text_or_null(17)?,
            schema: row.get(18)?,
            time: row.get(19)?,
            open: row.get(20)?,
            decided: text_or_null(21)?.zip(row.get(22)?),
            incumbent_won: row.get(23)?,
            stands: row.get_ref(24)?.as_blob_or_null().map_err(rusqlite::Error::from)?,
        };
        stored.checksum().verify("conflict", row.get(25)?)?;
        Ok(stored)
    }

    fn recorded(&self, connection: &Connection, schemas: &mut Schemas) -> Result<Recorded, Fault> {
        let conflict = Conflict {
            pipeline: PipelineName::new(self.pipeline),
            partition: Partition(self.partition),
            offset: Offset(self.offset.cast_unsigned()),
            table: TableName::new(self.table),
            key: Key::from_bytes(Bytes::copy_from_slice(self.key)),
            column: (!self.column.is_empty()).then(|| self.column.to_owned()),
            kind: self.kind.to_owned(),
            strategy: self.strategy.to_owned(),
            winner: self.winner.contender(),
            loser: self.loser.map(|loser| loser.contender()),
            incumbent_won: self.incumbent_won,
            stands: self.stands.map(row_of),
            at: self.member.map(DatabaseName::new),
            schema: schemas.read(connection, self.schema)?,
            time: self.time,
            open: self.open,
        };
        Ok(Recorded { id: self.id, conflict, decided: self.decided.map(|(by, at)| (by.to_owned(), at)) })
    }
}

/// Whether it was new.
fn record(session: &Session, id: i64, conflict: &Conflict) -> Result<bool, Fault> {
    let stored = Stored {
        id,
        pipeline: conflict.pipeline.as_str(),
        partition: conflict.partition.0,
        offset: conflict.offset.0.cast_signed(),
        table: conflict.table.as_str(),
        key: conflict.key.as_bytes(),
        column: conflict.column.as_deref().unwrap_or_default(),
        kind: &conflict.kind,
        strategy: &conflict.strategy,
        winner: Side::of(&conflict.winner),
        loser: conflict.loser.as_ref().map(Side::of),
        member: conflict.at.as_ref().map(DatabaseName::as_str),
        schema: schemas::keep(&session.connection, &conflict.schema)?,
        time: conflict.time,
        open: conflict.open,
        decided: None,
        incumbent_won: conflict.incumbent_won,
        stands: conflict.stands.as_ref().map(|row| &row.as_bytes()[..]),
    };
    let mut statement = session.connection.prepare_cached(&format!(
        "INSERT INTO conflict ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, NULL,
                 NULL, ?22, ?23, ?24)
         ON CONFLICT (pipeline, bus_partition, bus_offset, table_name, row_key, column_name, kind, ifnull(member, ''))
         DO NOTHING"
    ))?;
    let inserted = statement.execute(params![
        stored.id,
        stored.pipeline,
        stored.partition,
        stored.offset,
        stored.table,
        stored.key,
        stored.column,
        stored.kind,
        stored.strategy,
        stored.winner.by,
        stored.winner.merged,
        stored.winner.time,
        stored.winner.row,
        stored.loser.and_then(|loser| loser.by),
        stored.loser.map(|loser| loser.merged),
        stored.loser.map(|loser| loser.time),
        stored.loser.and_then(|loser| loser.row),
        stored.member,
        stored.schema,
        stored.time,
        stored.open,
        stored.incumbent_won,
        stored.stands,
        stored.checksum().finish(),
    ])?;
    Ok(inserted > 0)
}

/// Closes the open entries for which the condition holds; the first two parameters are pipeline and table. With `columns`
/// those about them only: others that stand with the first row do so with the second now. How many were closed.
fn close(
    session: &Session,
    condition: &str,
    of: impl Params,
    columns: Option<(&[String], &Row, &Row)>,
    by: &str,
    at: i64,
) -> Result<usize, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM conflict WHERE pipeline = ?1 AND table_name = ?2 AND {condition}");
    let mut found = session.connection.prepare_cached(&sql)?;
    let mut rows = found.query(of)?;
    let (mut closed, mut standing) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let stored = Stored::of(row)?;
        let others = columns.filter(|(columns, ..)| columns.iter().all(|column| column != stored.column));
        if let Some((_, before, stands)) = others {
            if stored.stands == Some(&before.as_bytes()[..]) {
                let stored = Stored { stands: Some(stands.as_bytes()), ..stored };
                standing.push((stored.id, stands, stored.checksum().finish()));
            }
        } else if stored.open {
            let stored = Stored { open: false, decided: Some((by, at)), ..stored };
            closed.push((stored.id, stored.checksum().finish()));
        }
    }
    let mut update = session.connection.prepare_cached(
        "UPDATE conflict SET open = 0, decided_by = ?2, decided_at = ?3, checksum = ?4 WHERE id = ?1",
    )?;
    for (id, checksum) in &closed {
        update.execute(params![id, by, at, checksum])?;
    }
    let mut update =
        session.connection.prepare_cached("UPDATE conflict SET stands = ?2, checksum = ?3 WHERE id = ?1")?;
    for (id, stands, checksum) in standing {
        update.execute(params![id, &stands.as_bytes()[..], checksum])?;
    }
    Ok(closed.len())
}

fn read(connection: &Connection, sql: &str, asked: impl Params) -> Result<Vec<Recorded>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(asked)?;
    let (mut found, mut schemas) = (Vec::new(), Schemas::default());
    while let Some(row) = rows.next()? {
        found.push(Stored::of(row)?.recorded(connection, &mut schemas)?);
    }
    Ok(found)
}

/// Reads every row, for its checksum.
pub(crate) fn check(connection: &Connection) -> Result<(), Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM conflict"))?;
    let mut rows = statement.query([])?;
    let mut schemas = Schemas::default();
    while let Some(row) = rows.next()? {
        let stored = Stored::of(row)?;
        schemas.read(connection, stored.schema)?;
    }
    Ok(())
}
