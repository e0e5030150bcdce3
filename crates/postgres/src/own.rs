//! The schema `sync_worker`, which a sink writes and, in a two-way pipeline, a source reads back: marker and parked rows.

use crate::client::{Client, identifier};
use crate::error::Error;
use sync_worker_core::database::Scope;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::record::Partition;

pub const SCHEMA: &str = "sync_worker";
pub const PROGRESS: &str = "progress";
pub const PARKED: &str = "parked";

/// Any number that nobody else takes an advisory lock on; ASCII for `syncwork`.
const ADVISORY_LOCK: i64 = 0x7379_6e63_776f_726b;

/// A fill factor this low lets the marker be updated in place for the life of the table. The log holds a parked row in
/// full when it goes: a source has to know its key.
const CREATE: &str = r#"
CREATE TABLE IF NOT EXISTS sync_worker.progress (
    installation text NOT NULL, pipeline text NOT NULL, database text NOT NULL, partition int4 NOT NULL,
    "offset" int8, log text NOT NULL, digest int8 NOT NULL, epoch int8 NOT NULL, writes int8 NOT NULL,
    PRIMARY KEY (installation, pipeline, database, partition)
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS sync_worker.parked (
    installation text NOT NULL, pipeline text NOT NULL, database text NOT NULL, partition int4 NOT NULL,
    table_name text NOT NULL, key_digest bytea NOT NULL, key bytea NOT NULL, "offset" int8 NOT NULL,
    reason text NOT NULL, seen bytea,
    PRIMARY KEY (installation, pipeline, database, partition, table_name, key_digest)
);
ALTER TABLE sync_worker.parked REPLICA IDENTITY FULL"#;

/// Whose marker and parked rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub installation: String,
    pub pipeline: String,
    pub database: String,
    pub partition: Partition,
}

impl Owner {
    pub fn of(scope: &Scope, database: &DatabaseName) -> Self {
        Self {
            installation: scope.installation.as_str().to_owned(),
            pipeline: scope.pipeline.as_str().to_owned(),
            database: database.as_str().to_owned(),
            partition: Partition::default(),
        }
    }
}

/// Makes the schema and its tables where they are missing. Safe against others who do the same.
pub async fn create(client: &Client) -> Result<(), Error> {
    let doing = "a look at sync_worker.progress";
    let there =
        "SELECT to_regclass('sync_worker.progress') IS NOT NULL AND to_regclass('sync_worker.parked') IS NOT NULL";
    if client.value(doing, there).await?.as_deref() == Some("t") {
        return Ok(());
    }
    // An administrator may have made the schema for a user that may not: asking for it again would fail.
    let schema = client.value(doing, "SELECT to_regnamespace('sync_worker') IS NULL").await?;
    let schema = if schema.as_deref() == Some("t") { "CREATE SCHEMA IF NOT EXISTS sync_worker;" } else { "" };
    // IF NOT EXISTS alone fails when two sessions pass it at the same time.
    let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({ADVISORY_LOCK}); {schema} {CREATE}; COMMIT");
    let Err(error) = client.batch_execute(&sql).await else { return Ok(()) };
    let error = Error::driver("the creation of the schema sync_worker", &error);
    if error.code() != Some("42501") {
        return Err(error);
    }
    client.rows("a rollback", "ROLLBACK").await?;
    let whose = client.rows("a look at the session", "SELECT current_user, current_database()").await?;
    let name = |at| whose.first().and_then(|row| row.get(at)).map(identifier).unwrap_or_default();
    Err(Error::Fatal(format!(
        "the user may not create the schema sync_worker; GRANT CREATE ON DATABASE {} TO {}, or as an administrator: \
         CREATE SCHEMA sync_worker AUTHORIZATION {}",
        name(1),
        name(0),
        name(0)
    )))
}
