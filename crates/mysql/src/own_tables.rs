//! The tables that the worker keeps in a member: `sync_worker.progress` with the markers, `sync_worker.parked` with the
//! keys whose version was not taken.

use crate::client::Client;
use crate::error::Error;
use mysql_async::prelude::Queryable;

pub const DATABASE: &str = "sync_worker";
pub const PROGRESS: &str = "progress";
pub const PARKED: &str = "parked";

/// One partition per pipeline and target.
pub const PARTITION: u32 = 0;

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
