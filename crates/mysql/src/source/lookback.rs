//! What an XA transaction wrote that was prepared before the stream began.
//!
//! The stream shows its `XA COMMIT` alone, since its rows stand in the log where it was prepared. They are read from there,
//! over another connection: file by file, from the one with the decision back, for a transaction stands in one file as a whole.
//! What else was prepared there and not decided is kept, so no file is read twice. That is work only for the transactions that
//! were under way when capture began and, where they wrote to no table of the pipeline, when the stream was opened again.

use super::collations::Collations;
use super::decoder::{Decoder, Step};
use super::event::file_number;
use super::payload::Payload;
use super::prepared::{Held, Keep, Prepared};
use super::reader::Reader;
use super::tables::{Case, Tables};
use crate::error::Error;
use crate::gtid::{Gtid, GtidSet};
use crate::wire::{Wire, server_error};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;
use sync_worker_core::position::Epoch;

/// How long the server may look for the next event that it has to send.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to look, and what has been found there.
pub struct Lookback {
    reader: Reader,
    epoch: Epoch,
    checksum: bool,
    /// Where the stream began: what is not in it the stream itself shows.
    taken: GtidSet,
    /// Lent to who reads; gone after an error, which ends the stream.
    prepared: Option<Prepared>,
    /// By name, as it was prepared last.
    found: HashMap<String, Held>,
    /// Decided in the files that have been read, and prepared in none of them before that.
    decided: HashSet<String>,
    /// The oldest file that has been read.
    oldest: Option<u64>,
}

impl Lookback {
    pub fn new(reader: Reader, spill: &Path, epoch: &Epoch, checksum: bool, taken: &GtidSet) -> Result<Self, Error> {
        Ok(Self {
            reader,
            epoch: epoch.clone(),
            checksum,
            taken: taken.clone(),
            prepared: Some(Prepared::new(&spill.join("lookback"), Keep::All)?),
            found: HashMap::new(),
            decided: HashSet::new(),
            oldest: None,
        })
    }

    /// The events of the transaction that was prepared last under `name` before `decision`, which stands in `file`; None where
    /// the log does not reach back so far.
    pub async fn find(&mut self, name: &str, decision: Gtid, file: u64) -> Result<Option<Held>, Error> {
        if let Some(held) = self.found.remove(name) {
            return Ok(Some(held));
        }
        for (number, file) in self.files(self.oldest.unwrap_or(file + 1)).await? {
            tracing::info!(
                pipeline = %self.reader.pipeline,
                file,
                "looking in the log for a transaction that was prepared before the stream began"
            );
            self.read(number, &file, decision).await?;
            self.oldest = Some(number);
            if let Some(held) = self.found.remove(name) {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// The files of the log before one, the newest first.
    async fn files(&self, before: u64) -> Result<Vec<(u64, String)>, Error> {
        let mut wire = Wire::connect(&self.reader.config).await?;
        let rows = wire.query("SHOW BINARY LOGS").await?;
        let names = rows.into_iter().filter_map(|row| String::from_utf8(row.into_iter().next()??).ok());
        let files = names.filter_map(|name| Some((file_number(name.as_bytes())?, name)));
        let mut files: Vec<(u64, String)> = files.filter(|(number, _)| *number < before).collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        Ok(files)
    }

    /// Keeps what is prepared at the end of a file, or where `decision` stands in it.
    async fn read(&mut self, number: u64, file: &str, decision: Gtid) -> Result<(), Error> {
        let mut wire = Wire::connect(&self.reader.config).await?;
        self.reader.request_file(&mut wire, file).await?;
        // Without tables: what it decodes is where transactions begin and end.
        let tables = Tables::new(Vec::new(), Case::Kept, Collations::new());
        let prepared = self.prepared.take().ok_or(Error::Protocol("a look back after one that has failed"))?;
        let start = super::boundary(number, 0);
        let mut decoder = Decoder::new(tables, self.epoch.clone(), start, GtidSet::default(), prepared);
        decoder.set_checksum(self.checksum);
        let mut decided = HashSet::new();
        loop {
            let Some(packet) = wire.packet() else {
                wire.fill_within(PATIENCE).await?;
                continue;
            };
            let event = match packet.split_first() {
                Some((0, event)) => event,
                Some((0xFF, _)) => {
                    return Err(Error::Server { doing: "a look back in the log", source: server_error(packet) });
                }
                Some(_) | None => break,
            };
            match decoder.event(event)? {
                (Step::Done | Step::Catalog(_) | Step::Defaults(_), _) => {}
                (Step::Payload, body) => {
                    let mut payload = Payload::open(body)?;
                    while let Some(event) = payload.next()? {
                        decoder.inner(event)?;
                    }
                }
                (Step::Decided(held), _) => decoder.decided(held.gtid)?,
                // Prepared in a file before this one.
                (Step::Undecided { name, decision }, _) => {
                    decoder.decided(decision)?;
                    decided.insert(name);
                }
            }
            if decoder.file() != number || decoder.is_inside(decision) {
                break;
            }
        }
        let mut prepared = decoder.into_prepared();
        for (name, held) in prepared.take_all() {
            if self.taken.contains(held.gtid) && !self.decided.contains(&name) {
                self.found.entry(name).or_insert(held);
            }
        }
        self.decided.extend(decided);
        self.prepared = Some(prepared);
        Ok(())
    }
}
