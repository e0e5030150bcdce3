//! Whether what the catalog says of a table now was so where the stream stands.
//!
//! A minimal row image leaves out of an insert what has its default, and the log never says what that was. The catalog
//! does, as of now: its word is good where no statement between the stream and the end of the log alters the table. The
//! log is read for that over another connection, once for each table and each time that one is altered.

use super::event::{self, Header};
use super::reader::{Dump, Reader};
use super::statement::Statement;
use super::tables::Tables;
use crate::catalog::QualifiedName;
use crate::codec::Invalid;
use crate::error::Error;
use crate::gtid::GtidSet;
use crate::wire::{Wire, server_error};
use std::time::Duration;

/// How long the server may look for the next event that it has to send.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Lookahead {
    pub reader: Reader,
    /// Whether events carry a checksum, until a file says so itself.
    pub checksum: bool,
}

impl Lookahead {
    /// Whether a statement after `taken` alters the table.
    pub async fn alters(&self, tables: &Tables, name: &QualifiedName, taken: &GtidSet) -> Result<bool, Error> {
        let cut = |invalid: Invalid| Error::Protocol(invalid.0);
        tracing::info!(table = %name, "looking ahead in the log for changes of a definition");
        let mut wire = Wire::connect(&self.reader.config).await?;
        self.reader.request(&mut wire, taken, Dump::UpToNow).await?;
        let mut checksum = self.checksum;
        loop {
            let Some(packet) = wire.packet() else {
                wire.fill_within(PATIENCE).await?;
                continue;
            };
            let mut rest = match packet.split_first() {
                Some((0, event)) => event,
                Some((0xFF, _)) => {
                    return Err(Error::Server { doing: "a look ahead in the log", source: server_error(packet) });
                }
                Some(_) | None => return Ok(false),
            };
            let header = Header::read(&mut rest).map_err(cut)?;
            match header.kind {
                event::FORMAT_DESCRIPTION => checksum = event::checksum(rest).map_err(cut)?,
                event::QUERY => {
                    let body = &rest[..rest.len().saturating_sub(if checksum { 4 } else { 0 })];
                    let query = event::query(body).map_err(cut)?;
                    if let Statement::Alter(altered) = Statement::parse(query.statement)
                        && tables.find(&altered, query.database).is_some_and(|(found, _)| found == name)
                    {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
    }
}
