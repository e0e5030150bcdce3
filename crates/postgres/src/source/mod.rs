//! The change stream of a PostgreSQL database: a logical replication slot, read with `pgoutput`.
//!
//! ```text
//! socket -> transport::Receiver -> pgoutput::Message -> relation::Table -> TransactionPart
//!                                        |  in progress: spill until its commit  ^
//!                                        +---------------------------------------+
//! ```
//!
//! The engine's task reads and decodes; `feedback` alone writes to the socket, from a task of its own.

mod assembly;
mod echo;
mod feedback;
mod open;
pub mod pgoutput;
mod relation;
pub mod slot;
mod socket;
mod spill;
pub mod timeline;
pub mod transport;

pub use assembly::before;
pub use open::open;

use crate::config::Server;
use crate::error::Error;
use crate::recent::Recent;
use assembly::Assembly;
use async_trait::async_trait;
use feedback::Feedback;
use pgoutput::{Frame, Message};
use relation::{Relations, malformed};
use spill::Spill;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::error::Result;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::{Checkpoint, Epoch, Lsn};
use sync_worker_core::source::{Source, SourceBatch};
use tokio::time::{Instant, Sleep};
use transport::Receiver;

/// A server that says nothing for so long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(3);

/// It has so long to answer.
const ANSWER: Duration = Duration::from_secs(4);

pub struct PostgresSource {
    database: DatabaseName,
    receiver: Receiver,
    feedback: Feedback,
    relations: Relations,
    spill: Spill,
    assembly: Assembly,
    server: Server,
    silence: Silence,
    pace: Pace,
}

/// Under load the server sends a packet per change, and a reader that is faster than it wakes up for each. Such a reader
/// lets them gather and is woken up by none: wake-ups and system calls are most of what reading costs, at both ends.
struct Pace {
    since: Instant,
    fills: u32,
    busy: bool,
    /// The stream is far behind the commits that it shows.
    behind: bool,
    /// No read before.
    until: Option<Instant>,
}

/// Reads at this rate, one every 60 microseconds, are a backlog: single commits come more slowly, and none of them waits.
const BUSY_FILLS: u32 = 16;
const BUSY_TIME: Duration = Duration::from_millis(1);

/// What a busy reader waits: hardly anything while changes are fresh, and while they are old as long as it takes to fill
/// the socket, after which the server no longer hands over every packet by itself.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_BEHIND: Duration = Duration::from_millis(10);

/// Microseconds from commit to sending, by the server's clock, that make a change an old one.
const BEHIND: i64 = 500_000;

/// Bytes that a pause has to bring for another one: about as many packets as make a reader busy.
const STILL_BUSY: usize = 2 << 10;

/// After so many there is no pause: there is more where that came from. Less than a full socket has, a Unix socket with small
/// packets included, or the server would wait for the reader.
const PLENTY: usize = 12 << 10;

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), fills: 0, busy: false, behind: false, until: None }
    }

    fn filled(&mut self, read: usize, now: Instant) {
        if self.busy {
            self.busy = read >= STILL_BUSY;
            (self.fills, self.since) = (0, now);
        } else {
            self.fills += 1;
            if self.fills == BUSY_FILLS {
                self.busy = now.duration_since(self.since) < BUSY_TIME;
                (self.fills, self.since) = (0, now);
            }
        }
        // Only a transaction that comes tells, and none comes while it is quiet.
        self.behind &= self.busy;
        let pause = if self.behind { PAUSE_BEHIND } else { PAUSE };
        self.until = (self.busy && read < PLENTY).then(|| now + pause);
    }
}

/// Notices a connection that swallows everything.
struct Silence {
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    asked: Option<Instant>,
}

impl PostgresSource {
    fn new(
        database: DatabaseName,
        receiver: Receiver,
        feedback: Feedback,
        relations: Relations,
        spill: Spill,
        server: Server,
        stream: (Epoch, Lsn, Arc<Recent>),
    ) -> Self {
        let silence = Silence { timer: Box::pin(tokio::time::sleep(QUIET)), heard: Instant::now(), asked: None };
        let (epoch, start, recent) = stream;
        let assembly = Assembly::new(epoch, start, recent);
        Self { database, receiver, feedback, relations, spill, assembly, server, silence, pace: Pace::new() }
    }

    async fn batch(&mut self) -> Result<SourceBatch, Error> {
        loop {
            if self.assembly.is_full() {
                return Ok(self.assembly.part());
            }
            if self.assembly.is_replaying() {
                self.assembly.replay(&mut self.relations).await?;
                continue;
            }
            match self.receiver.frame()? {
                Some(frame) => {
                    let payload = &self.receiver.bytes()[frame.clone()];
                    match Frame::parse(payload).map_err(malformed)? {
                        Frame::Keepalive { end, reply } => {
                            self.assembly.keepalive(end, reply);
                            if reply {
                                self.feedback.received(self.assembly.reached());
                                self.feedback.reply();
                            }
                        }
                        Frame::Data { sent, message } => {
                            let known = self.assembly.take(message, &mut self.relations, &mut self.spill)?;
                            let commit = self.assembly.last_commit();
                            self.pace.behind = commit.map_or(self.pace.behind, |commit| sent - commit > BEHIND);
                            if let Some(Message::Relation(relation)) = known {
                                self.relations.describe(&relation).await?;
                            }
                        }
                    }
                    self.receiver.taken(&frame);
                }
                None => {
                    self.feedback.received(self.assembly.reached());
                    match self.assembly.whole() {
                        Some(batch) => return Ok(batch),
                        None => self.fill().await?,
                    }
                }
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        // A reader for whom there is always more has to let others have a turn.
        tokio::task::coop::consume_budget().await;
        if let Some(until) = self.pace.until {
            tokio::time::sleep_until(until).await;
            self.pace.until = None;
        }
        let silence = &mut self.silence;
        loop {
            tokio::select! {
                biased;
                problem = self.feedback.altered() => return Err(open::gap(&self.database, &problem)),
                read = self.receiver.fill() => {
                    silence.heard = Instant::now();
                    silence.asked = None;
                    self.pace.filled(read?, silence.heard);
                    self.receiver.rest(self.pace.busy);
                    return Ok(());
                }
                () = silence.timer.as_mut() => {}
            }
            let now = Instant::now();
            let next = match silence.asked {
                Some(asked) if now.duration_since(asked) >= ANSWER => {
                    let seconds = now.duration_since(silence.heard).as_secs();
                    return Err(Error::Silent { server: self.server.to_string(), seconds });
                }
                Some(asked) => asked + ANSWER,
                None if now.duration_since(silence.heard) >= QUIET => {
                    silence.asked = Some(now);
                    self.feedback.ask();
                    now + ANSWER
                }
                None => silence.heard + QUIET,
            };
            silence.timer.as_mut().reset(next);
        }
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn next(&mut self) -> Result<SourceBatch> {
        Ok(self.batch().await?)
    }

    async fn confirm(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        // invariant 1: the server forgets only what the engine has made durable
        self.feedback.confirm(open::resume(checkpoint)?);
        Ok(())
    }
}
