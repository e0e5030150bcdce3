//! Capture: one database's change stream onto the bus.
//!
//! Publish, wait until the bus has it durably, store the position, then confirm to the source: in this order, always
//! (invariant 1). Several publishes are under way at a time; their receipts resolve in order.

mod resume;

use crate::breaker::Breaker;
use crate::failure::{Action, EngineError, FAILED_RETRY, Halt, action, wait_failed};
use crate::metrics::CaptureMetrics;
use crate::pace::Pace;
use crate::preflight::Owed;
use crate::publish::{Durable, Publisher, Shown, Tail};
use crate::snapshot::{self, Copied, Request, SnapshotSettings};
use crate::status::{Entry, State};
use crate::window::{WindowId, Windows};
use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::bus::Bus;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::{Error, Result};
use sync_worker_core::name::TableName;
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::Key;
use sync_worker_core::source::{Source, SourceBatch};
use sync_worker_core::store::{CaptureId, Store, StoredCheckpoint};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Publishes whose receipts are awaited at a time. The bus bounds their bytes; this bounds their number.
const PUBLISHES_UNDER_WAY: usize = 64;

/// How far the stored position may lag behind what is durable. What lies between is read again from the bus and sent
/// again by the source after a crash, and dropped as duplicates.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The partition of every record: a pipeline has one.
pub const PARTITION: Partition = Partition(0);

/// What a person or another part of the worker asks of a capture.
pub enum Command {
    /// Read these keys and put them on the bus as they are: rows that exist as snapshot rows, the others as deletes.
    /// Replies with how many keys were put there once that is durable.
    Repair { table: TableName, keys: Vec<Key>, reply: oneshot::Sender<std::result::Result<u64, String>> },
}

pub struct Capture {
    pub id: CaptureId,
    pub scope: Scope,
    pub database: Arc<dyn Database>,
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn Store>,
    pub breaker: Arc<Breaker>,
    pub status: Entry,
    pub metrics: CaptureMetrics,
    pub snapshot: SnapshotSettings,
    /// Two-way: its rows are those that all members begin with.
    pub begun_with: bool,
    pub owed: Option<Owed>,
    pub shown: watch::Sender<Shown>,
    /// Two-way: how far the appliers are.
    pub pace: Option<Pace>,
    pub copied: watch::Sender<Copied>,
    pub commands: mpsc::Receiver<Command>,
    pub shutdown: CancellationToken,
}

impl Capture {
    /// Runs until shutdown or until an error that reconnecting does not mend.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.breaker.ready() => {}
            }
            let Err(error) = self.session().await else { break };
            self.status.error(error.class().as_str());
            let halted = match action(error.class()) {
                Action::Reconnect => {
                    let delay = self.breaker.failed();
                    tracing::warn!(pipeline = %self.id.pipeline, database = %self.id.database, %error, ?delay, "capture is interrupted");
                    self.status.set(State::Waiting, &error.to_string());
                    continue;
                }
                Action::Halt(Halt::Gap) => State::Gap,
                Action::Halt(Halt::Superseded) => State::Superseded,
                Action::Halt(Halt::Failed) => {
                    tracing::error!(pipeline = %self.id.pipeline, database = %self.id.database, %error, again_in = ?FAILED_RETRY, "capture has failed");
                    self.status.set(State::Failed, &error.to_string());
                    tokio::select! {
                        () = self.shutdown.cancelled() => break,
                        () = wait_failed(&mut self.commands) => continue,
                    }
                }
            };
            tracing::error!(pipeline = %self.id.pipeline, database = %self.id.database, %error, "capture has stopped");
            self.status.set(halted, &error.to_string());
            return;
        }
        self.status.set(State::Stopped, "");
    }

    /// From opening the source to its first error, or to shutdown.
    async fn session(&mut self) -> Result<()> {
        if let Some(owed) = &self.owed {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                seen = owed.look() => seen?,
            }
            self.owed = None;
        }
        let stored = self.stored_checkpoint().await?;
        // Before the source is opened: that may change what it sends.
        let tail = match &stored {
            Some(stored) => Some(self.tail(stored).await?),
            None => None,
        };
        self.forget_left_tables().await?;
        let open = async {
            let stored = match stored.zip(tail) {
                Some((stored, tail)) => Some(self.follow(stored, tail).await?),
                None => None,
            };
            let from = stored.as_ref().map(|(stored, _)| &stored.checkpoint);
            let (source, start) = self.database.source(&self.scope, from).await?;
            Ok::<_, Error>((stored, source, start))
        };
        let (stored, source, start) = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            opened = open => opened?,
        };
        let (resume, mut tail) = match stored {
            Some(stored) => stored,
            None => {
                self.refuse_forgotten().await?;
                let next = self.bus.bounds(PARTITION).await?.next;
                let stored = StoredCheckpoint { checkpoint: start.clone(), log: self.bus.identity().to_owned(), next };
                self.store.save_checkpoint(&self.id, &stored).await?;
                (stored, Tail { taken: start.position, previous: None, open: false })
            }
        };
        self.breaker.succeeded();
        tracing::info!(pipeline = %self.id.pipeline, database = %self.id.database, position = %tail.taken, "capture is streaming");

        let (requests, incoming) = mpsc::channel(64);
        // Events of MongoDB can share a time without being one transaction.
        if !tail.open && !matches!(tail.taken, Position::Mongodb(_)) {
            // A table that has joined since may have rows between those of the last transaction, which then have other numbers.
            tail.taken = tail.taken.end_of_transaction();
        }
        let mut session = Session {
            inside: tail.open,
            resent: tail.taken,
            held: Vec::new(),
            publisher: Publisher::new(
                self.id.database.clone(),
                self.bus.clone(),
                self.metrics.clone(),
                self.shown.clone(),
                tail,
            ),
            windows: Windows::new(self.begun_with),
            reached: resume.checkpoint.position,
            durable: resume.next,
            saved: resume,
            unsaved: None,
            saving: None,
            save_at: Instant::now(),
            source,
            incoming,
        };
        let mut readers = JoinSet::new();
        let snapshot = snapshot::Snapshot {
            id: self.id.clone(),
            scope: self.scope.clone(),
            database: self.database.clone(),
            store: self.store.clone(),
            settings: self.snapshot.clone(),
            status: self.status.clone(),
            requests: requests.clone(),
            copied: self.copied.clone(),
        };
        readers.spawn(snapshot.run());
        let outcome = session.stream(self, &requests, &mut readers).await;
        readers.shutdown().await;
        // Whatever was queued becomes durable or fails before the bus is looked at again.
        let drained = session.drain(self).await;
        outcome.and(drained)
    }
}

struct Session {
    source: Box<dyn Source>,
    publisher: Publisher,
    windows: Windows,
    /// How far the source has come.
    reached: Position,
    /// Up to here the source sends again what the log has already. A table that has just joined has no record of it there:
    /// no read begins before it has been sent, or it could miss a change that goes as a duplicate.
    resent: Position,
    /// Reads that wait for that.
    held: Vec<(TableName, oneshot::Sender<WindowId>)>,
    /// What was published last is a transaction whose end is still to come.
    inside: bool,
    /// The offset after the last record of ours that is durable.
    durable: Offset,
    saved: StoredCheckpoint,
    /// The newest durable checkpoint that is not stored yet, with the offset after the last record that it covers.
    unsaved: Option<(Checkpoint, Offset)>,
    /// A checkpoint that is being stored.
    saving: Option<BoxFuture<'static, Result<StoredCheckpoint>>>,
    save_at: Instant,
    incoming: mpsc::Receiver<Request>,
}

impl Session {
    async fn stream(
        &mut self,
        capture: &mut Capture,
        requests: &mpsc::Sender<Request>,
        readers: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        capture.status.set(State::Snapshot, "");
        loop {
            let room = self.publisher.under_way.len() < PUBLISHES_UNDER_WAY;
            let published = self.durable.0 + self.publisher.records_under_way;
            let rests = capture.pace.as_mut().is_some_and(|pace| pace.rests(published));
            tokio::select! {
                biased;
                () = capture.shutdown.cancelled() => return Ok(()),
                Some(durable) = self.publisher.under_way.next(), if !self.publisher.under_way.is_empty() => {
                    self.is_durable(capture, durable?).await?;
                    if self.saving.is_none() && Instant::now() >= self.save_at {
                        self.begin_save(capture);
                    }
                }
                () = tokio::time::sleep_until(self.save_at), if self.unsaved.is_some() && self.saving.is_none() => {
                    self.begin_save(capture);
                }
                Some(stored) = OptionFuture::from(self.saving.as_mut()) => {
                    self.saving = None;
                    self.stored(capture, stored?).await?;
                }
                // Few, and before the source: one that always has more would starve a snapshot.
                Some(request) = self.incoming.recv() => self.answer(request).await?,
                Some(command) = capture.commands.recv() => {
                    let Command::Repair { table, keys, reply } = command;
                    let repair = snapshot::repair(capture.database.clone(), capture.scope.clone(), requests.clone(), table, keys);
                    readers.spawn(async move {
                        let outcome = repair.await.map_err(|error| error.to_string());
                        reply.send(outcome).map_err(|_| EngineError::Stopped("nobody waits for the repair").into()).or_else(|_: Error| Ok(()))
                    });
                }
                Some(ended) = readers.join_next(), if !readers.is_empty() => match ended {
                    Ok(outcome) => outcome?,
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => return Err(EngineError::Stopped("the snapshot ended unexpectedly").into()),
                },
                Some(()) = OptionFuture::from(capture.pace.as_mut().filter(|_| rests).map(Pace::rest)) => {}
                batch = self.source.next(), if room && !rests => self.take(capture, batch?).await?,
            }
        }
    }

    async fn take(&mut self, capture: &Capture, mut batch: SourceBatch) -> Result<()> {
        let records = self.publisher.records(&mut batch, &mut self.windows).map_err(EngineError::Damaged)?;
        let last = batch.parts.last();
        self.inside = self.publisher.tail.open || last.is_some_and(|part| !part.complete);
        self.reached = batch.reached;
        let commit_time = last.map(|part| part.commit_time);
        let moved = !records.is_empty() || batch.checkpoint.is_some();
        if moved {
            self.publisher.publish(records, batch.checkpoint, Vec::new()).await?;
        }
        self.close_windows(commit_time).await?;
        if self.reached >= self.resent {
            std::mem::take(&mut self.held).into_iter().for_each(|(table, reply)| self.open(table, reply));
        }
        if moved {
            let (position, captured) = (self.publisher.tail.taken, capture.metrics.captured.get());
            capture.status.update(|status| {
                status.position = position.to_string();
                status.changes = captured;
            });
        }
        Ok(())
    }

    /// Publishes the chunks whose high position the stream has reached. Never inside a transaction.
    async fn close_windows(&mut self, commit_time: Option<i64>) -> Result<()> {
        if self.inside || self.windows.is_empty() {
            return Ok(());
        }
        for closed in self.windows.close(self.reached).map_err(EngineError::Damaged)? {
            if closed.again {
                // The reader's task is gone only when the session is ending.
                closed.read.done.send(false).unwrap_or_default();
                continue;
            }
            let commit_time = commit_time.unwrap_or_else(crate::clock::now_micros);
            let records = self.publisher.snapshot_records(&closed, commit_time).map_err(EngineError::Damaged)?;
            self.publisher.publish(records, None, vec![closed.read.done]).await?;
        }
        Ok(())
    }

    async fn is_durable(&mut self, capture: &Capture, durable: Durable) -> Result<()> {
        self.publisher.records_under_way -= durable.records;
        if let Some(next) = durable.next {
            self.durable = next;
        }
        if let Some(checkpoint) = durable.checkpoint {
            if self.unsaved.is_none() {
                self.save_at = self.save_at.max(Instant::now());
            }
            self.unsaved = Some((checkpoint, self.durable));
        }
        if durable.reads.is_empty() {
            return Ok(());
        }
        self.end_save(capture).await?;
        // invariant 1: a chunk counts as copied once the stored offset covers its rows, or a log that has lost them would
        // not be missed. They stand between transactions, so the newest position covers all changes before them.
        match &mut self.unsaved {
            Some((_, next)) => *next = self.durable,
            None => self.unsaved = Some((self.saved.checkpoint.clone(), self.durable)),
        }
        self.save(capture).await?;
        for read in durable.reads {
            read.send(true).unwrap_or_default();
        }
        Ok(())
    }

    /// Stores the newest durable checkpoint, then confirms it (invariant 1).
    async fn save(&mut self, capture: &Capture) -> Result<()> {
        self.end_save(capture).await?;
        self.begin_save(capture);
        self.end_save(capture).await
    }

    /// Waits for the save that is under way: one after the other, or an older position would be stored over a newer one.
    async fn end_save(&mut self, capture: &Capture) -> Result<()> {
        match self.saving.take() {
            Some(saving) => self.stored(capture, saving.await?).await,
            None => Ok(()),
        }
    }

    /// Begins to store the newest durable checkpoint; the stream goes on meanwhile.
    fn begin_save(&mut self, capture: &Capture) {
        let Some((checkpoint, next)) = self.unsaved.take() else { return };
        let stored = StoredCheckpoint { checkpoint, log: capture.bus.identity().to_owned(), next };
        let (store, bus, id) = (capture.store.clone(), capture.bus.clone(), capture.id.clone());
        self.saving = Some(Box::pin(async move {
            store.save_checkpoint(&id, &stored).await?;
            // The last record covered stays, too: the next one must name its position.
            let needed = Offset(stored.next.0.saturating_sub(1));
            bus.retain(PARTITION, &format!("capture:{}", id.database), needed).await?;
            Ok(stored)
        }));
    }

    /// Confirms what has been stored (invariant 1).
    async fn stored(&mut self, capture: &Capture, stored: StoredCheckpoint) -> Result<()> {
        if stored.checkpoint != self.saved.checkpoint {
            self.source.confirm(&stored.checkpoint).await?;
        }
        self.save_at = Instant::now() + SAVE_EVERY;
        capture.status.update(|status| status.offset = Some(stored.next.0));
        self.saved = stored;
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Open { table, reply } if self.reached < self.resent => self.held.push((table, reply)),
            Request::Open { table, reply } => self.open(table, reply),
            Request::Read { id, read } => {
                self.windows.read(id, read);
                // The stream of an idle source is there already.
                self.close_windows(None).await?;
            }
            Request::Abandon { id } => self.windows.abandon(id),
        }
        Ok(())
    }

    fn open(&mut self, table: TableName, reply: oneshot::Sender<WindowId>) {
        let id = self.windows.open(table);
        if reply.send(id).is_err() {
            self.windows.abandon(id);
        }
    }

    /// Waits for what is under way and stores how far it came.
    async fn drain(&mut self, capture: &Capture) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(durable) = self.publisher.under_way.next().await {
            match durable {
                Ok(durable) => self.is_durable(capture, durable).await?,
                Err(error) => outcome = Err(error),
            }
        }
        match outcome {
            Ok(()) => self.save(capture).await,
            Err(error) => Err(error),
        }
    }
}
