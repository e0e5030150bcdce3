//! The marker and the parked rows at the target: `sync_worker.progress` and `sync_worker.parked`.

use crate::client::Client;
use crate::error::Error;
use crate::sink::encode::{binary, quoted};
use mysql_async::Row as DriverRow;
use mysql_async::prelude::Queryable;
use sync_worker_core::database::Scope;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Marker, ParkedKey, Progress};

/// One partition per pipeline and target.
const PARTITION: u32 = 0;

const CREATE_DATABASE: &str = "CREATE DATABASE IF NOT EXISTS sync_worker CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const CREATE_PROGRESS: &str = "CREATE TABLE IF NOT EXISTS sync_worker.progress (\
    installation VARCHAR(64) NOT NULL, pipeline VARCHAR(128) NOT NULL, `database` VARCHAR(128) NOT NULL, \
    `partition` INT UNSIGNED NOT NULL, `offset` BIGINT UNSIGNED, log VARCHAR(255) NOT NULL, \
    digest BIGINT UNSIGNED NOT NULL, epoch BIGINT UNSIGNED NOT NULL, writes BIGINT UNSIGNED NOT NULL, \
    PRIMARY KEY (installation, pipeline, `database`, `partition`)) \
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const CREATE_PARKED: &str = "CREATE TABLE IF NOT EXISTS sync_worker.parked (\
    installation VARCHAR(64) NOT NULL, pipeline VARCHAR(128) NOT NULL, `database` VARCHAR(128) NOT NULL, \
    `partition` INT UNSIGNED NOT NULL, table_name VARCHAR(255) NOT NULL, key_digest VARBINARY(16) NOT NULL, \
    `key` LONGBLOB NOT NULL, `offset` BIGINT UNSIGNED NOT NULL, reason TEXT NOT NULL, seen LONGBLOB, \
    PRIMARY KEY (installation, pipeline, `database`, `partition`, table_name, key_digest)) \
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// The rows of one applier, as conditions and values of statements.
pub struct ProgressRows {
    /// `installation='..' AND pipeline='..' AND ...`
    mine: String,
    /// The same columns' values, with commas between them.
    values: String,
}

impl ProgressRows {
    pub fn new(scope: &Scope, database: &DatabaseName) -> Self {
        let parts = [scope.installation.as_str(), scope.pipeline.as_str(), database.as_str()].map(literal);
        let [installation, pipeline, name] = &parts;
        Self {
            mine: format!(
                "installation={installation} AND pipeline={pipeline} AND `database`={name} AND `partition`={PARTITION}"
            ),
            values: format!("{installation},{pipeline},{name},{PARTITION}"),
        }
    }

    /// Makes what is missing. A user who may not make anything finds it made by somebody else, or learns what to do.
    pub async fn create(client: &mut Client) -> Result<(), Error> {
        let doing = "a look for its own tables";
        let query = "SELECT COUNT(*) FROM information_schema.TABLES \
                     WHERE TABLE_SCHEMA = 'sync_worker' AND TABLE_NAME IN ('progress', 'parked')";
        let Client { conn, liveness, .. } = client;
        let found: Option<u64> = liveness.watch(doing, conn.query_first(query)).await?;
        if found == Some(2) {
            return Ok(());
        }
        for statement in [CREATE_DATABASE, CREATE_PROGRESS, CREATE_PARKED] {
            if let Err(error) = client.run("making its own tables", statement).await {
                return Err(match error.code() {
                    Some(1044 | 1142 | 1227) => Error::Fatal(format!(
                        "the user may not make the database sync_worker at {}; run there: CREATE DATABASE sync_worker; \
                         GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON sync_worker.* TO the user",
                        client.host
                    )),
                    _ => error,
                });
            }
        }
        Ok(())
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
            "SELECT table_name,`key`,`offset`,reason FROM sync_worker.parked WHERE {} ORDER BY `offset`",
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

    pub fn unpark(&self, table: &TableName, key: &Key) -> Vec<u8> {
        let mut sql = format!("{} AND key_digest=", self.unpark_all(table)).into_bytes();
        binary(&mut sql, &key.digest());
        sql
    }

    pub fn park(&self, table: &TableName, key: &Key, offset: Offset, reason: &str) -> Vec<u8> {
        let head = format!("REPLACE INTO sync_worker.parked VALUES ({},{},", self.values, literal(table.as_str()));
        let mut sql = head.into_bytes();
        binary(&mut sql, &key.digest());
        sql.push(b',');
        binary(&mut sql, key.as_bytes());
        sql.extend_from_slice(format!(",{offset},{},NULL)", literal(reason)).as_bytes());
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

fn literal(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    quoted(&mut out, text.as_bytes());
    String::from_utf8(out).unwrap_or_default()
}

fn parked_key(row: DriverRow) -> Result<ParkedKey, Error> {
    let (table, key, offset, reason): (String, Vec<u8>, u64, String) =
        mysql_async::from_row_opt(row).map_err(|_| Error::Protocol("a parked row has unexpected columns"))?;
    Ok(ParkedKey { table: TableName::new(&table), key: Key::from_bytes(key.into()), offset: Offset(offset), reason })
}
