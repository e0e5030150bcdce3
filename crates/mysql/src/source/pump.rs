//! The task that owns the socket: drains it per wake and hands whole batches on.

use super::decoder::{Decoder, Step};
use super::lookahead::Lookahead;
use super::lookback::Lookback;
use super::payload::Payload;
use super::prepared::Held;
use crate::catalog::{self, QualifiedName, Table};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, ServerError};
use crate::wire::{Wire, server_error};
use std::io;
use std::time::Duration;
use sync_worker_core::source::SourceBatch;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// The server sends a heartbeat each second when it has nothing else; this long without a byte means that it is gone.
const SILENCE: Duration = Duration::from_secs(4);

pub struct Pump {
    pub wire: Wire,
    pub decoder: Decoder,
    pub lookup: Lookup,
    pub lookback: Lookback,
    pub batches: Sender<Result<SourceBatch, Error>>,
}

/// Asks the catalog about tables over a connection of its own.
pub struct Lookup {
    pub config: Config,
    pub client: Option<Client>,
    pub ahead: Lookahead,
}

/// The receiver is gone: nobody wants more.
struct Unwanted;

enum Stop {
    Unwanted,
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<Unwanted> for Stop {
    fn from(_: Unwanted) -> Self {
        Stop::Unwanted
    }
}

impl Pump {
    /// Runs until an error, which is the last thing that it hands on, or until nobody wants more.
    ///
    /// On a thread of its own: among the runtime's tasks whoever takes the batches would run on the thread that makes them,
    /// and only once it rests.
    pub fn start(self) {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let unwanted = self.batches.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = unwanted.closed() => {}
                    () = self.run() => {}
                }
            });
        });
    }

    async fn run(mut self) {
        match self.stream().await {
            Ok(()) | Err(Stop::Unwanted) => {}
            Err(Stop::Error(error)) => {
                // Nobody may be listening any more.
                let _delivered = self.batches.send(Err(error)).await;
            }
        }
    }

    async fn stream(&mut self) -> Result<(), Stop> {
        loop {
            self.drain().await?;
            if self.wire.fill_now()? {
                continue;
            }
            if !self.decoder.has_news() {
                self.wire.fill_within(SILENCE).await?;
                continue;
            }
            // Flush when idle; while the engine is busy, the batch grows.
            match self.batches.try_reserve() {
                Ok(permit) => permit.send(Ok(self.decoder.batch())),
                Err(TrySendError::Closed(())) => return Err(Stop::Unwanted),
                Err(TrySendError::Full(())) => {
                    tokio::select! {
                        permit = self.batches.reserve() => {
                            permit.map_err(|_| Unwanted)?.send(Ok(self.decoder.batch()));
                        }
                        filled = self.wire.fill_within(SILENCE) => filled?,
                    }
                }
            }
        }
    }

    /// Decodes every packet that is here whole.
    async fn drain(&mut self) -> Result<(), Stop> {
        let Self { wire, decoder, lookup, lookback, batches } = self;
        while let Some(packet) = wire.packet() {
            let Some((&kind, event)) = packet.split_first() else {
                return Err(Error::Protocol("an empty packet").into());
            };
            match kind {
                0 => {}
                0xFF => return Err(refused(server_error(packet)).into()),
                _ => {
                    let source = io::Error::other("the server ended the stream");
                    return Err(Error::Lost { doing: "a read of the log", source }.into());
                }
            }
            let mut asked = false;
            loop {
                let (step, body) = decoder.event(event)?;
                match step {
                    Step::Done => break,
                    Step::Catalog(name) => lookup.answer(decoder, name, &mut asked).await?,
                    Step::Defaults(name) => lookup.settle(decoder, &name).await?,
                    Step::Payload => {
                        let mut payload = Payload::open(body)?;
                        while let Some(event) = payload.next()? {
                            inner(decoder, lookup, event).await?;
                            flush(decoder, batches).await?;
                        }
                        break;
                    }
                    Step::Decided(held) => {
                        decided(decoder, lookup, batches, held).await?;
                        break;
                    }
                    Step::Undecided { name, decision } => {
                        let held = lookback.find(&name, decision, decoder.file()).await?.ok_or_else(|| {
                            let text = "an XA transaction is committed whose rows the log no longer holds: it was prepared before capture began; remove the pipeline's state and take a new snapshot";
                            Error::Gap(text.to_owned())
                        })?;
                        decided(decoder, lookup, batches, held).await?;
                        break;
                    }
                }
            }
            flush(decoder, batches).await?;
        }
        Ok(())
    }
}

/// A prepared transaction that is committed now.
async fn decided(
    decoder: &mut Decoder,
    lookup: &mut Lookup,
    batches: &Sender<Result<SourceBatch, Error>>,
    mut held: Held,
) -> Result<(), Stop> {
    let mut events = held.replay()?;
    while let Some(event) = events.next()? {
        inner(decoder, lookup, event).await?;
        flush(decoder, batches).await?;
    }
    Ok(decoder.decided(held.gtid)?)
}

/// An event inside another or out of a spill file.
async fn inner(decoder: &mut Decoder, lookup: &mut Lookup, event: &[u8]) -> Result<(), Error> {
    let mut asked = false;
    loop {
        match decoder.inner(event)? {
            Step::Done => return Ok(()),
            Step::Catalog(name) => lookup.answer(decoder, name, &mut asked).await?,
            Step::Defaults(name) => lookup.settle(decoder, &name).await?,
            Step::Payload | Step::Decided(_) | Step::Undecided { .. } => {
                return Err(Error::Protocol("a transaction inside a transaction"));
            }
        }
    }
}

/// Hands on what would grow too large, waiting for room (invariant 9).
async fn flush(decoder: &mut Decoder, batches: &Sender<Result<SourceBatch, Error>>) -> Result<(), Unwanted> {
    if !decoder.is_full() {
        return Ok(());
    }
    let permit = batches.reserve().await.map_err(|_| Unwanted)?;
    permit.send(Ok(decoder.batch()));
    Ok(())
}

impl Lookup {
    async fn answer(&mut self, decoder: &mut Decoder, name: QualifiedName, asked: &mut bool) -> Result<(), Error> {
        if std::mem::replace(asked, true) {
            return Err(Error::Fatal(format!("table {name} is not there or can't be seen; GRANT SELECT on it")));
        }
        let table = self.table(&name).await?;
        decoder.tables.learn(name, table);
        Ok(())
    }

    /// Makes sure that the catalog's defaults are those of where the stream stands.
    async fn settle(&mut self, decoder: &mut Decoder, name: &QualifiedName) -> Result<(), Error> {
        let table = self.table(name).await?;
        match table.filter(|table| table.name == *name) {
            Some(table) if !self.ahead.alters(&decoder.tables, name, decoder.taken()).await? => {
                decoder.tables.settle(name, table)
            }
            _ => Err(Error::Gap(format!(
                "an insert into table {name} leaves columns out (binlog_row_image is not FULL), and their defaults are no longer known, for the table was altered since; SET GLOBAL binlog_row_image = FULL, remove the pipeline's state and take a new snapshot"
            ))),
        }
    }

    async fn table(&mut self, name: &QualifiedName) -> Result<Option<Table>, Error> {
        let table = match &mut self.client {
            Some(client) => catalog::table(client, name).await,
            None => Err(Error::Protocol("no connection")),
        };
        match table {
            Ok(table) => Ok(table),
            // An idle connection may have been closed meanwhile; a new one has one try.
            Err(_) => {
                self.client = None;
                let client = self.client.insert(Client::connect(&self.config).await?);
                catalog::table(client, name).await
            }
        }
    }
}

/// The server's last word on a stream.
fn refused(source: ServerError) -> Error {
    const FATAL_ERROR_READING_BINLOG: u16 = 1236;
    let text = source.raw_message();
    if source.code != FATAL_ERROR_READING_BINLOG {
        return Error::Server { doing: "a read of the log", source };
    }
    if text.contains("has connected to the") {
        let source = io::Error::other("another reader with the same identity took the stream over");
        return Error::Lost { doing: "a read of the log", source };
    }
    Error::Gap(format!(
        "the server no longer has what comes after the stored position ({source}); keep logs longer (binlog_expire_logs_seconds), remove the pipeline's state and take a new snapshot"
    ))
}
