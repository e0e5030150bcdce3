//! The binlog as a change stream, resumed by a set of GTIDs.
//!
//! ```text
//! socket -> pump -> decoder (event, statement) -> tables (table_map, plan) -> rows -> SourceBatch
//! ```

#[cfg(test)]
mod arbitrary;
mod collations;
mod decoder;
mod event;
mod lookahead;
mod lookback;
mod own;
mod payload;
mod plan;
mod prepared;
mod pump;
mod reader;
mod rows;
mod statement;
mod table_map;
mod tables;

use crate::catalog::{self, QualifiedName, Table};
use crate::client::Client;
use crate::config::Config;
use crate::error::Error;
use crate::gtid::GtidSet;
use crate::wire::Wire;
use async_trait::async_trait;
use decoder::Decoder;
use lookahead::Lookahead;
use lookback::Lookback;
use own::Ours;
use prepared::{Keep, Prepared};
use pump::{Lookup, Pump};
use reader::{Dump, Reader};
use std::sync::{Arc, Mutex, PoisonError};
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::{Checkpoint, Epoch, Position};
use sync_worker_core::source::{Source, SourceBatch};
use tables::{Case, Tables};
use tokio::sync::mpsc::{self, Receiver};

pub(crate) use collations::{Collations, read as read_collations};
pub use decoder::boundary;
pub use event::file_number;

/// How long a server may take to commit what stands in its log already.
const EXECUTED_WITHIN_SECONDS: u32 = 3;

/// Batches between the pump and the engine.
const BATCHES: usize = 2;

/// What a pipeline's source has returned so far: a reader waits until the server shows all of it.
#[derive(Default)]
pub struct Returned(Mutex<Option<String>>);

impl Returned {
    /// As a set of GTIDs in text form; None where no source was opened, as at a target.
    pub fn set(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self, set: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
    }

    fn saw(&self, batch: &SourceBatch) {
        let open = batch.parts.last().filter(|part| !part.complete);
        match (&batch.checkpoint, open) {
            (Some(checkpoint), _) => self.store(checkpoint.resume.clone()),
            (None, open) => {
                let mut set = self.set().unwrap_or_default();
                let whole = batch.parts.iter().filter(|part| part.complete);
                for part in whole.chain(open) {
                    // A large transaction comes in many batches.
                    if !set.ends_with(&*part.id) {
                        set.push(',');
                        set.push_str(&part.id);
                    }
                }
                self.store(set);
            }
        }
    }
}

pub struct BinlogSource {
    batches: Receiver<std::result::Result<SourceBatch, Error>>,
    returned: Arc<Returned>,
}

#[async_trait]
impl Source for BinlogSource {
    async fn next(&mut self) -> Result<SourceBatch> {
        match self.batches.recv().await {
            Some(Ok(batch)) => {
                self.returned.saw(&batch);
                Ok(batch)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(Error::Protocol("the stream has ended").into()),
        }
    }

    /// A MySQL server keeps its log by its own rules: there is nothing to tell it.
    async fn confirm(&mut self, _checkpoint: &Checkpoint) -> Result<()> {
        Ok(())
    }
}

/// What a server says about itself and its log.
pub(crate) struct LogStatus {
    pub file: u64,
    pub position: u64,
    pub executed: String,
}

/// Where the log ends, and what was executed a moment before.
pub(crate) async fn log_status(wire: &mut Wire) -> std::result::Result<LogStatus, Error> {
    // The old words were removed in 8.4, the new ones came with 8.2.
    let new = wire.query("SHOW BINARY LOG STATUS").await;
    let rows = match new {
        Err(Error::Server { source, .. }) if source.code == 1064 => wire.query("SHOW MASTER STATUS").await?,
        outcome => outcome?,
    };
    let missing = || Error::Fatal("the server writes no binary log; start it with log_bin".to_owned());
    let row = rows.into_iter().next().ok_or_else(missing)?;
    let text = |at: usize| row.get(at).cloned().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
    let file = text(0).and_then(|name| file_number(name.as_bytes()));
    let position = text(1).and_then(|digits| digits.parse().ok());
    let unreadable = || Error::Protocol("the state of the log can't be read");
    Ok(LogStatus {
        file: file.ok_or_else(unreadable)?,
        position: position.ok_or_else(unreadable)?,
        executed: text(4).unwrap_or_default().replace(['\n', ' '], ""),
    })
}

/// Opens the stream after the checkpoint or from now on. Returns where it starts.
pub async fn open(
    config: &Config,
    name: &DatabaseName,
    scope: &Scope,
    tables: Vec<(QualifiedName, TableName)>,
    from: Option<&Checkpoint>,
    returned: Arc<Returned>,
) -> std::result::Result<(BinlogSource, Checkpoint), Error> {
    let mut wire = Wire::connect(config).await?;
    if wire.version.contains("MariaDB") {
        return Err(Error::Fatal(format!("{} is MariaDB, which is not supported as a source yet", wire.host)));
    }
    let epoch = Epoch(wire.query_value("SELECT @@global.server_uuid").await?);
    if wire.query_value("SELECT @@global.gtid_mode").await? != "ON" {
        return Err(Error::Fatal(
            "gtid_mode is not ON; SET GLOBAL enforce_gtid_consistency = ON, then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON".to_owned(),
        ));
    }
    if wire.query_value("SELECT @@global.server_id").await? == "0" {
        let text = "server_id is 0, and such a server gives its log to nobody; SET PERSIST server_id = N; with a number that no other server has";
        return Err(Error::Fatal(text.to_owned()));
    }
    if scope.two_way && wire.query_value("SELECT @@global.binlog_row_image").await? != "FULL" {
        let text = "binlog_row_image is not FULL, and a two-way pipeline must see whole rows; SET GLOBAL binlog_row_image = 'FULL'; then reconnect every client";
        return Err(Error::Fatal(text.to_owned()));
    }
    let checksum = wire.query_value("SELECT @@global.binlog_checksum").await? != "NONE";
    let start = match from {
        Some(checkpoint) => resume(&mut wire, &epoch, checkpoint).await?,
        None => {
            // A transaction stands in the log a moment before it counts as executed, and the server tells both one
            // after the other. So the set alone decides where the stream starts, and the position is below all that
            // the set may lack: a file is left only when everything in it is executed.
            let file = log_status(&mut wire).await?.file;
            let executed = log_status(&mut wire).await?.executed;
            let position = Position::Mysql(boundary(file.saturating_sub(1), 0));
            Checkpoint { epoch: epoch.clone(), position, resume: executed }
        }
    };
    let taken = start.resume.parse::<GtidSet>().map_err(|_| unreadable(&start))?;
    let Position::Mysql(position) = start.position else { return Err(unreadable(&start)) };
    returned.store(start.resume.clone());

    let case = Case::of_setting(&wire.query_value("SELECT @@global.lower_case_table_names").await?);
    let collations = collations::read(&mut wire).await?;
    let reader = Reader::new(config, scope, name);
    reader.request(&mut wire, &taken, Dump::AndFollow).await?;
    let lookback = Lookback::new(reader.clone(), &scope.spill, &epoch, checksum, &taken)?;
    let tables = Tables::new(tables, case, collations);
    let mut decoder = Decoder::new(tables, epoch, position, taken, Prepared::new(&scope.spill, Keep::Ours)?);
    decoder.set_checksum(checksum);
    if scope.two_way {
        decoder.set_two_way(Ours::new(scope, name));
    }
    let (sender, batches) = mpsc::channel(BATCHES);
    let ahead = Lookahead { reader, checksum };
    let lookup = Lookup { config: config.clone(), client: None, ahead };
    Pump { wire, decoder, lookup, lookback, batches: sender }.start();
    Ok((BinlogSource { batches, returned }, start))
}

fn unreadable(checkpoint: &Checkpoint) -> Error {
    Error::Gap(format!(
        "the stored position {} is not one of MySQL; remove the pipeline's state and take a new snapshot",
        checkpoint.position
    ))
}

/// Makes sure that the server can go on after the checkpoint (invariant 8).
async fn resume(wire: &mut Wire, epoch: &Epoch, from: &Checkpoint) -> std::result::Result<Checkpoint, Error> {
    const CURE: &str = "remove the pipeline's state and take a new snapshot";
    let host = wire.host.clone();
    if from.epoch != *epoch {
        let stored = &from.epoch;
        return Err(Error::Gap(format!(
            "the stored position belongs to server {stored}, but {host} is server {epoch}; point the url at the old server, or {CURE}"
        )));
    }
    let taken = from.resume.parse::<GtidSet>().map_err(|_| unreadable(from))?;
    let mut set = async |name: &str| -> std::result::Result<GtidSet, Error> {
        let text = wire.query_value(&format!("SELECT @@global.{name}")).await?;
        text.parse().map_err(|_| Error::Protocol("a set of GTIDs can't be read"))
    };
    let (purged, executed) = (set("gtid_purged").await?, set("gtid_executed").await?);
    // The log gives transactions away a moment before the server counts them as executed.
    let wait = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{taken}', {EXECUTED_WITHIN_SECONDS})");
    if !executed.includes(&taken) && wire.query_value(&wait).await? != "0" {
        return Err(Error::Gap(format!(
            "{host} lacks transactions that were captured from it: its log was reset, or lost in a crash; {CURE}"
        )));
    }
    if !is_there(wire, from).await? {
        return Err(Error::Gap(format!(
            "the log of {host} is not the one that the stored position {} stands in: it was reset; {CURE}",
            from.position
        )));
    }
    if !taken.includes(&purged) {
        return Err(Error::Gap(format!(
            "{host} has purged transactions that come after the stored position; keep logs longer (binlog_expire_logs_seconds), {CURE}"
        )));
    }
    Ok(from.clone())
}

/// Whether an event begins, or the log ends, where the position is. A file that has been purged is no reason for doubt:
/// the set of GTIDs decides then.
async fn is_there(wire: &mut Wire, from: &Checkpoint) -> std::result::Result<bool, Error> {
    let Position::Mysql(position) = from.position else { return Ok(false) };
    let text = |value: &Option<Vec<u8>>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
    let files = wire.query("SHOW BINARY LOGS").await?;
    let files = files.iter().filter_map(|row| Some((text(row.first()?), text(row.get(1)?).parse::<u64>().ok()?)));
    let files: Vec<_> = files.filter_map(|(name, size)| Some((file_number(name.as_bytes())?, name, size))).collect();
    let Some((_, name, size)) = files.iter().find(|(number, _, _)| *number == position.file) else {
        return Ok(files.iter().all(|(number, _, _)| *number > position.file) || position.file == 0);
    };
    let end = position.offset + 1;
    if end >= *size || end <= 4 {
        return Ok(end <= *size);
    }
    match wire.query(&format!("SHOW BINLOG EVENTS IN '{name}' FROM {end} LIMIT 1")).await {
        Ok(_) => Ok(true),
        // "Wrong offset or I/O error"
        Err(Error::Server { source, .. }) if source.code == 1220 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The tables of a scope as the server spells their names, with what the catalog says about each.
pub(crate) async fn resolve(
    client: &mut Client,
    scope: &Scope,
    default_database: Option<&str>,
) -> std::result::Result<Vec<(TableName, Table)>, Error> {
    let mut found = Vec::with_capacity(scope.tables.len());
    for at in &scope.tables {
        let name = QualifiedName::parse(&at.name, default_database)?;
        let table = catalog::table(client, &name).await?.ok_or_else(|| {
            Error::Fatal(format!(
                "table {name} is not there or can't be seen; create it, or GRANT SELECT ON {} TO ...",
                name.quoted()
            ))
        })?;
        found.push((at.table.clone(), table));
    }
    Ok(found)
}
