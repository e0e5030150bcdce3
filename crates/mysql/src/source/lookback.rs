//! What an XA transaction wrote that was prepared before the stream began.
//!
//! The stream shows its `XA COMMIT` alone, since its rows stand in the log where it was prepared. They are read from there,
//! over another connection. That is work only for the few transactions that were under way when capture began.

use super::collations::Collations;
use super::decoder::{Decoder, Step};
use super::payload::Payload;
use super::prepared::{Held, Keep, Prepared};
use super::reader::{Dump, Reader};
use super::tables::{Case, Tables};
use crate::error::Error;
use crate::gtid::{Gtid, GtidSet};
use crate::wire::{Wire, server_error};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_worker_core::position::Epoch;

/// How long the server may look for the next event that it has to send.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to look.
pub struct Lookback {
    reader: Reader,
    folder: PathBuf,
    epoch: Epoch,
    checksum: bool,
}

impl Lookback {
    pub fn new(reader: Reader, spill: &Path, epoch: &Epoch, checksum: bool) -> Self {
        Self { reader, folder: spill.join("lookback"), epoch: epoch.clone(), checksum }
    }

    /// The events of the transaction that was prepared last under `name` before `decision`; None where the log does not
    /// reach back so far.
    pub async fn find(&self, name: &str, decision: Gtid) -> Result<Option<Held>, Error> {
        tracing::info!(pipeline = %self.reader.pipeline, "looking in the log for a transaction that was prepared before capture began");
        let mut wire = Wire::connect(&self.reader.config).await?;
        let purged = wire.query_value("SELECT @@global.gtid_purged").await?;
        let purged = purged.parse::<GtidSet>().map_err(|_| Error::Protocol("a set of GTIDs can't be read"))?;
        self.reader.request(&mut wire, &purged, Dump::UpToNow).await?;
        // Without tables: what it decodes is where transactions begin and end.
        let tables = Tables::new(Vec::new(), Case::Kept, Collations::new());
        let start = super::boundary(0, 0);
        let prepared = Prepared::new(&self.folder, Keep::All)?;
        let mut decoder = Decoder::new(tables, self.epoch.clone(), start, purged, prepared);
        decoder.set_checksum(self.checksum);
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
                Some(_) | None => return Ok(None),
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
                // Prepared before the log begins.
                (Step::Undecided { decision, .. }, _) => decoder.decided(decision)?,
            }
            if decoder.is_inside(decision) {
                return Ok(decoder.take_prepared(name));
            }
        }
    }
}
