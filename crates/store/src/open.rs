//! Opening the store's file: settings, format, and whether all of it is sound.

use crate::checksum::Checksum;
use crate::error::{Error, Fault};
use crate::folder::{Folder, new_installation};
use crate::{captures, ledger, resolvers, retries, wal};
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;
use sync_worker_core::name::InstallationId;

/// Format `n` is reached by the first `n` of these.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../../migrations/store/0001.sql"),
    include_str!("../../../migrations/store/0002.sql"),
    include_str!("../../../migrations/store/0003.sql"),
    include_str!("../../../migrations/store/0004.sql"),
    include_str!("../../../migrations/store/0005.sql"),
];

/// No row is in a schema of these.
const UNUSED: &str =
    "DELETE FROM schema WHERE id NOT IN (SELECT schema FROM deferred UNION ALL SELECT schema FROM conflict)";

/// Opens the store of a folder, making or bringing it up to date, after checking every page and every row of it.
pub(crate) fn open(folder: &Folder) -> Result<(std::path::PathBuf, Connection, InstallationId), Error> {
    let path = folder.store()?;
    let fault = |action| {
        let path = path.clone();
        move |fault: Fault| fault.at(&path, action)
    };
    // Before SQLite sees it: opening folds in what it takes for the whole log.
    let log = path.with_extension("sqlite-wal");
    if wal::is_damaged(&log).map_err(|error| Error::io(&log, "reading", error))? {
        return Err(Error::damaged(&log, "a commit in its middle is not sound"));
    }
    let mut connection = Connection::open(&path).map_err(Fault::from).map_err(fault("opening"))?;
    configure(&connection).map_err(fault("opening"))?;
    let known = folder.installation()?;
    if let Some(installation) = &known
        && is_empty(&connection).map_err(fault("reading"))?
    {
        let detail = format!("it is empty, but the folder belongs to installation {installation}");
        return Err(Error::damaged(&path, detail));
    }
    check_pages(&connection).map_err(fault("checking"))?;
    migrate(&mut connection, &path)?;
    check_rows(&connection).map_err(fault("checking"))?;
    let installation = installation(&connection).map_err(fault("reading"))?;
    match known {
        Some(known) if known != installation => {
            let detail = format!("it belongs to installation {installation}, the folder to {known}");
            return Err(Error::damaged(&path, detail));
        }
        Some(_) => {}
        None => folder.note(&installation)?,
    }
    Ok((path, connection, installation))
}

fn configure(connection: &Connection) -> Result<(), Fault> {
    // The lock of the folder keeps other workers out; a person with a SQLite shell is waited for.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // Ok means durable: the log is flushed with every commit.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // A log that one large burst has grown does not stay that large.
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn is_empty(connection: &Connection) -> Result<bool, Fault> {
    Ok(connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

fn check_pages(connection: &Connection) -> Result<(), Fault> {
    // Not quick_check: it would miss an index that lacks a row, and so a version that waits.
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict.replace('\n', " "))) }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let fault = |error: rusqlite::Error| Fault::from(error).at(path, "bringing the format up to date");
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fault)?;
    let (known, made) = (MIGRATIONS.len() as i64, usize::try_from(found).unwrap_or(usize::MAX));
    if made > MIGRATIONS.len() {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    let transaction = connection.transaction().map_err(fault)?;
    for migration in &MIGRATIONS[made..] {
        transaction.execute_batch(migration).map_err(fault)?;
    }
    if made < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", known).map_err(fault)?;
    }
    if made == 0 {
        let installation = new_installation();
        let checksum = checksum(installation.as_str()).finish();
        let row = (installation.as_str(), checksum);
        transaction.execute("INSERT INTO installation (id, checksum) VALUES (?1, ?2)", row).map_err(fault)?;
    }
    transaction.execute(UNUSED, []).map_err(fault)?;
    transaction.commit().map_err(fault)
}

fn check_rows(connection: &Connection) -> Result<(), Fault> {
    captures::check(connection)?;
    retries::check(connection)?;
    ledger::check(connection)?;
    resolvers::check(connection)
}

fn checksum(installation: &str) -> Checksum {
    Checksum::of("installation").text(installation)
}

fn installation(connection: &Connection) -> Result<InstallationId, Fault> {
    let mut statement = connection.prepare("SELECT id, checksum FROM installation")?;
    let row = statement.query_row([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    let (id, stored) = row.ok_or_else(|| Fault::Damaged("it names no installation".to_owned()))?;
    checksum(&id).verify("installation", stored)?;
    Ok(InstallationId::new(&id))
}
