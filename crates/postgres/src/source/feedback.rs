//! What the server hears from us: standby status updates from a task of their own, so that a slow consumer does not look
//! like a dead one.

use crate::client::{self, Purpose};
use crate::config::Config;
use crate::error::Error;
use crate::source::slot::Membership;
use crate::source::transport::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_worker_core::position::Lsn;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// A third of the `wal_sender_timeout` that `client::options` asks for, and less.
const INTERVAL: Duration = Duration::from_secs(3);

/// How often the publication is looked at where no heartbeat is wanted.
const LOOK: Duration = Duration::from_secs(10);

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// Shared by the stream, which writes it, and the tasks, which send it.
#[derive(Debug)]
struct Shared {
    /// Everything up to here has been received.
    received: AtomicU64,
    /// Everything up to here is durable at our side and may be forgotten (invariant 1).
    confirmed: AtomicU64,
    /// Ask for a sign of life.
    ask: AtomicBool,
    wake: Notify,
}

pub struct Feedback {
    shared: Arc<Shared>,
    /// What somebody has done to the publication.
    altered: watch::Receiver<Option<String>>,
    /// Ends with the stream.
    _tasks: JoinSet<()>,
}

impl Feedback {
    pub fn start(sender: Sender, start: Lsn, config: &Config, membership: Membership) -> Self {
        let shared = Arc::new(Shared {
            received: AtomicU64::new(start.0),
            confirmed: AtomicU64::new(start.0),
            ask: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(report(sender, shared.clone()));
        let (alter, altered) = watch::channel(None);
        tasks.spawn(heartbeat(config.clone(), shared.clone(), membership, alter));
        Self { shared, altered, _tasks: tasks }
    }

    /// Waits until the publication lacks a table, however it came to that: changes are missing from then on
    /// (invariant 8). Cancel safe.
    pub async fn altered(&mut self) -> String {
        loop {
            if let Some(problem) = self.altered.borrow_and_update().clone() {
                return problem;
            }
            if self.altered.changed().await.is_err() {
                // The task has gone with the stream.
                std::future::pending::<()>().await;
            }
        }
    }

    pub fn received(&self, end: Lsn) {
        self.shared.received.fetch_max(end.0, Ordering::Relaxed);
    }

    /// invariant 1: only what the engine has confirmed, and never backwards
    pub fn confirm(&self, end: Lsn) {
        self.shared.received.fetch_max(end.0, Ordering::Relaxed);
        if self.shared.confirmed.fetch_max(end.0, Ordering::Relaxed) < end.0 {
            self.shared.wake.notify_one();
        }
    }

    /// Sends a status at once.
    pub fn reply(&self) {
        self.shared.wake.notify_one();
    }

    /// Asks the server for a sign of life.
    pub fn ask(&self) {
        self.shared.ask.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}

async fn report(mut sender: Sender, shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.wake.notified() => {}
            _ = tick.tick() => {}
        }
        let ask = shared.ask.swap(false, Ordering::Relaxed);
        let received = shared.received.load(Ordering::Relaxed);
        let confirmed = shared.confirmed.load(Ordering::Relaxed);
        if let Err(error) = sender.send(&status(received, confirmed, ask)).await {
            // The receiving half meets the same end and reports it.
            tracing::debug!(%error, "the status of a stream was not sent");
            return;
        }
    }
}

/// A standby status update: written, flushed, applied, the time, and whether an answer is wanted.
fn status(received: u64, confirmed: u64, ask: bool) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = i64::try_from(now).unwrap_or(EPOCH) - EPOCH;
    let mut message = Vec::with_capacity(34);
    message.push(b'r');
    message.extend_from_slice(&received.to_be_bytes());
    message.extend_from_slice(&confirmed.to_be_bytes());
    message.extend_from_slice(&confirmed.to_be_bytes());
    message.extend_from_slice(&now.to_be_bytes());
    message.push(u8::from(ask));
    message
}

/// Looks whether the publication still holds every table. Writes a message into the log where the log has grown and the
/// stream has nothing to say about it; never a table write.
async fn heartbeat(config: Config, shared: Arc<Shared>, membership: Membership, alter: watch::Sender<Option<String>>) {
    let wanted = config.heartbeat_seconds > 0;
    let mut tick = tokio::time::interval(if wanted { Duration::from_secs(config.heartbeat_seconds) } else { LOOK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = 0;
    let mut client = None;
    loop {
        tick.tick().await;
        let received = shared.received.load(Ordering::Relaxed);
        let idle = received == last;
        last = received;
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => client::connect(&config, Purpose::Control).await,
        };
        let sql = format!(
            "SELECT pg_logical_emit_message(false, 'sync-worker', 'heartbeat') WHERE pg_current_wal_lsn() > '{}'",
            Lsn(received)
        );
        let beat = async {
            let connected = connected?;
            if let Some(problem) = membership.lost(&connected).await? {
                alter.send_replace(Some(problem));
            }
            if idle && wanted {
                connected.rows("a heartbeat", &sql).await?;
            }
            Ok::<_, Error>(connected)
        };
        match beat.await {
            Ok(connected) => client = Some(connected),
            // A database that can't be reached is reported by the stream itself.
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
    }
}
