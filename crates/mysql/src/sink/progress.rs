//! The marker and the parked rows at the target: `sync_worker.progress` and `sync_worker.parked`.

use crate::client::Client;
use crate::error::Error;
use crate::own_tables::PARTITION;
use crate::sink::encode::{binary, quoted};
use mysql_async::Row as DriverRow;
use mysql_async::prelude::Queryable;
use sync_worker_core::database::Scope;
use sync_worker_core::echo::WRITTEN;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Marker, ParkedKey, Progress};

/// The rows of one applier, as conditions and values of statements.
pub struct ProgressRows {
    /// `installation='..' AND pipeline='..' AND ...`
    mine: String,
    /// The same columns' values, with commas between them.
    values: String,
    /// What the session that writes for the applier holds with `GET_LOCK`, as an expression: so it can be found.
    lock: String,
}

/// How long a session that is ended may take to let go.
const LET_GO_SECONDS: u32 = 4;

/// A row is locked and somebody does not want to wait for it: `ER_LOCK_NOWAIT`.
const LOCKED: u16 = 3572;

impl ProgressRows {
    pub fn new(scope: &Scope, database: &DatabaseName) -> Self {
        let parts = [scope.installation.as_str(), scope.pipeline.as_str(), database.as_str()].map(literal);
        let [installation, pipeline, name] = &parts;
        Self {
            mine: format!(
                "installation={installation} AND pipeline={pipeline} AND `database`={name} AND `partition`={PARTITION}"
            ),
            values: format!("{installation},{pipeline},{name},{PARTITION}"),
            // A name has at most 64 characters.
            lock: format!("CONCAT('sync_worker ',LEFT(SHA2(CONCAT_WS('/',{installation},{pipeline},{name}),256),40))"),
        }
    }

    /// Ends a session that keeps the marker locked: one whose worker is gone and whose connection has not noticed would do so
    /// for as long as the server believes in it. One that does not is left alone: it may live, and finds out by its next
    /// batch that the target is ours.
    pub async fn end_others(&self, client: &mut Client) -> Result<(), Error> {
        let doing = "a look for another session of the applier";
        let lock = &self.lock;
        let probe = format!("SELECT epoch FROM sync_worker.progress WHERE {} FOR UPDATE NOWAIT", self.mine);
        let is_locked = match client.run(doing, &probe).await {
            Err(error) if error.code() == Some(LOCKED) => true,
            outcome => {
                outcome?;
                false
            }
        };
        let Client { conn, liveness, .. } = &mut *client;
        let query = format!("SELECT IF(GET_LOCK({lock},0),NULL,IS_USED_LOCK({lock}))");
        let other: Option<Option<u64>> = match liveness.watch(doing, conn.query_first(query)).await {
            // Some clusters have no such locks.
            Err(Error::Server { .. }) => None,
            other => other?,
        };
        let Some(other) = other.flatten().filter(|_| is_locked) else { return Ok(()) };
        match client.run(doing, &format!("KILL {other}")).await {
            Ok(()) => client.run(doing, &format!("DO GET_LOCK({lock},{LET_GO_SECONDS})")).await,
            // It has gone by itself; or it is somebody else's, and the marker's lock tells how long it is in the way.
            Err(Error::Server { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves the epoch on under the row's lock and reads what stands there.
    pub async fn take_over(&self, client: &mut Client, log: &str) -> Result<Progress, Error> {
        client.run("the begin of a take-over", "START TRANSACTION").await?;
        let claim = format!(
            "INSERT INTO sync_worker.progress VALUES ({},NULL,{},0,1,1) \
             ON DUPLICATE KEY UPDATE epoch=epoch+1, writes=writes+1",
            self.values,
            literal(log)
        );
        client.run("a take-over", &claim).await?;
        let query = format!("SELECT `offset`,log,digest,epoch,writes FROM sync_worker.progress WHERE {}", self.mine);
        let Client { conn, liveness, .. } = client;
        let row: Option<(Option<u64>, String, u64, u64, u64)> =
            liveness.watch("a look at the marker", conn.query_first(query)).await?;
        let (offset, log, digest, epoch, writes) = row.ok_or(Error::Protocol("the marker is not there"))?;
        let query = format!(
            "SELECT table_name,`key`,`offset`,reason,LEFT(seen,16) FROM sync_worker.parked WHERE {} ORDER BY `offset`",
            self.mine
        );
        let rows: Vec<DriverRow> = liveness.watch("a look at the parked rows", conn.query(query)).await?;
        let parked = rows.into_iter().map(parked_key).collect::<Result<_, _>>()?;
        commit(client).await?;
        Ok(Progress { marker: Marker { offset: offset.map(Offset), log, digest, epoch, writes }, parked })
    }

    /// Invariant 2: from exactly what was read, or no row.
    pub fn move_marker(&self, from: &Marker, to: &Marker) -> String {
        let offset = |marker: &Marker| marker.offset.map_or_else(|| "NULL".to_owned(), |offset| offset.to_string());
        format!(
            "UPDATE sync_worker.progress SET `offset`={},log={},digest={},epoch={},writes={} \
             WHERE {} AND `offset`<=>{} AND log={} AND epoch={} AND writes={}",
            offset(to),
            literal(&to.log),
            to.digest,
            to.epoch,
            to.writes,
            self.mine,
            offset(from),
            literal(&from.log),
            from.epoch,
            from.writes
        )
    }

    pub fn unpark_all(&self, table: &TableName) -> String {
        format!("DELETE FROM sync_worker.parked WHERE {} AND table_name={}", self.mine, literal(table.as_str()))
    }

    /// Whether rows of these tables wait.
    pub fn waiting(&self, tables: &[TableName]) -> String {
        let names: Vec<String> = tables.iter().map(|table| literal(table.as_str())).collect();
        let mine = &self.mine;
        format!("SELECT EXISTS (SELECT 1 FROM sync_worker.parked WHERE {mine} AND table_name IN ({}))", names.join(","))
    }

    pub fn unpark(&self, table: &TableName, key: &Key) -> Vec<u8> {
        let mut sql = format!("{} AND key_digest=", self.unpark_all(table)).into_bytes();
        binary(&mut sql, &key.digest());
        sql
    }

    /// What goes into a parked row right before it is deleted, where a retry has written its version.
    pub fn mark_written(&self, table: &TableName, key: &Key) -> Vec<u8> {
        let (reason, table, mine) = (literal(WRITTEN), literal(table.as_str()), &self.mine);
        let head = format!("UPDATE sync_worker.parked SET reason={reason} WHERE {mine} AND table_name={table}");
        let mut sql = head.into_bytes();
        sql.extend_from_slice(b" AND key_digest=");
        binary(&mut sql, &key.digest());
        sql
    }

    /// `seen`: what was there instead of a row that the version may be written over; None where it was refused.
    pub fn park(&self, table: &TableName, key: &Key, offset: Offset, reason: &str, seen: Option<&Seen>) -> Vec<u8> {
        let head = format!("REPLACE INTO sync_worker.parked VALUES ({},{},", self.values, literal(table.as_str()));
        let mut sql = head.into_bytes();
        binary(&mut sql, &key.digest());
        sql.push(b',');
        binary(&mut sql, key.as_bytes());
        sql.extend_from_slice(format!(",{offset},{},", literal(reason)).as_bytes());
        match seen {
            Some(seen) => binary(&mut sql, &seen.to_bytes()),
            None => sql.extend_from_slice(b"NULL"),
        }
        sql.push(b')');
        sql
    }
}

/// A commit whose answer does not come may have happened.
pub async fn commit(client: &mut Client) -> Result<(), Error> {
    client.run("a commit", "COMMIT").await.map_err(|error| match error {
        Error::Server { .. } => error,
        lost => Error::CommitUnknown(Box::new(lost)),
    })
}

pub fn literal(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    quoted(&mut out, text.as_bytes());
    String::from_utf8(out).unwrap_or_default()
}

fn parked_key(row: DriverRow) -> Result<ParkedKey, Error> {
    let (table, key, offset, reason, seen): (String, Vec<u8>, u64, String, Option<Vec<u8>>) =
        mysql_async::from_row_opt(row).map_err(|_| Error::Protocol("a parked row has unexpected columns"))?;
    Ok(ParkedKey {
        table: TableName::new(&table),
        key: Key::from_bytes(key.into()),
        offset: Offset(offset),
        reason,
        seen: seen.map(|bytes| Image::from_bytes(&bytes).unwrap_or(Image::UNKNOWN)),
    })
}
