//! What the server hears from us: standby status updates from a task of their own, so that a slow consumer does not look
//! like a dead one.

use crate::client::{self, Purpose};
use crate::config::Config;
use crate::source::transport::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_worker_core::position::Lsn;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// A third of the `wal_sender_timeout` that `client::options` asks for, and less.
const INTERVAL: Duration = Duration::from_secs(3);

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
    /// Ends with the stream.
    _tasks: JoinSet<()>,
}

impl Feedback {
    pub fn start(sender: Sender, start: Lsn, config: &Config) -> Self {
        let shared = Arc::new(Shared {
            received: AtomicU64::new(start.0),
            confirmed: AtomicU64::new(start.0),
            ask: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(report(sender, shared.clone()));
        if config.heartbeat_seconds > 0 {
            tasks.spawn(heartbeat(config.clone(), shared.clone()));
        }
        Self { shared, _tasks: tasks }
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

/// Writes a message into the log where the log has grown and the stream has nothing to say about it. Never a table write.
async fn heartbeat(config: Config, shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(Duration::from_secs(config.heartbeat_seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = 0;
    let mut client = None;
    loop {
        tick.tick().await;
        let received = shared.received.load(Ordering::Relaxed);
        if received != last {
            last = received;
            continue;
        }
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => client::connect(&config, Purpose::Control).await,
        };
        let sql = format!(
            "SELECT pg_logical_emit_message(false, 'sync-worker', 'heartbeat') WHERE pg_current_wal_lsn() > '{}'",
            Lsn(received)
        );
        let sent = match connected {
            Ok(connected) => connected.rows("a heartbeat", &sql).await.map(|_| connected),
            Err(error) => Err(error),
        };
        match sent {
            Ok(connected) => client = Some(connected),
            // A database that can't be reached is reported by the stream itself.
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
    }
}
