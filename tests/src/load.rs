//! A load of many kinds of transactions over the table `item`: inserts, updates, deletes, changed keys, several rows a
//! statement, rollbacks, savepoints and large values, from several connections at once.
//!
//! Every key but the few hot ones belongs to one writer, which gives it versions that only grow. A writer that meets an
//! error connects again, looks what is there, and goes on until it is told to stop.

use crate::connection::Connection;
use crate::kind::Kind;
use crate::mongodb;
use crate::transaction::{Mix, Rows, Transaction};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct LoadSettings {
    pub seed: u64,
    pub writers: u32,
    /// Row changes per second, all writers together; None: as fast as the server takes them.
    pub rate: Option<u32>,
    /// Rows that each writer keeps, about.
    pub rows: usize,
    pub mix: Mix,
}

impl LoadSettings {
    pub fn new(seed: u64) -> Self {
        Self { seed, writers: 4, rate: Some(2_000), rows: 300, mix: Mix::default() }
    }
}

#[derive(Debug, Default)]
struct Counters {
    changes: AtomicU64,
    transactions: AtomicU64,
    rolled_back: AtomicU64,
    interrupted: AtomicU64,
}

/// What a load has done. Only what was committed for certain counts as changes.
#[derive(Clone, Copy, Debug)]
pub struct LoadReport {
    pub changes: u64,
    pub transactions: u64,
    pub rolled_back: u64,
    pub interrupted: u64,
}

/// A running load; dropping it ends it.
pub struct Load {
    stop: watch::Sender<bool>,
    counters: Arc<Counters>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts the writers. The table must be there, the hot rows with it.
    pub fn start(url: &str, settings: &LoadSettings) -> anyhow::Result<Self> {
        let kind = Kind::of_url(url)?;
        let (stop, stopped) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let mut writers = JoinSet::new();
        for number in 0..settings.writers {
            let writer = Writer {
                url: url.to_owned(),
                kind,
                rng: StdRng::seed_from_u64(settings.seed.wrapping_mul(1_000).wrapping_add(u64::from(number))),
                rows: Rows::new(number, settings.writers),
                rate: settings.rate.map(|rate| f64::from(rate) / f64::from(settings.writers)),
                settings: settings.clone(),
                counters: counters.clone(),
                stopped: stopped.clone(),
            };
            writers.spawn(writer.run());
        }
        Ok(Self { stop, counters, writers })
    }

    pub fn report(&self) -> LoadReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadReport {
            changes: get(&self.counters.changes),
            transactions: get(&self.counters.transactions),
            rolled_back: get(&self.counters.rolled_back),
            interrupted: get(&self.counters.interrupted),
        }
    }

    /// Ends after the transactions that are under way.
    pub async fn stop(mut self) -> anyhow::Result<LoadReport> {
        self.stop.send_replace(true);
        let all = async { while self.writers.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(30), all).await.is_err() {
            anyhow::bail!("the load did not end within 30 s: its server does not answer");
        }
        Ok(self.report())
    }
}

struct Writer {
    url: String,
    kind: Kind,
    rng: StdRng,
    rows: Rows,
    /// Of this writer alone.
    rate: Option<f64>,
    settings: LoadSettings,
    counters: Arc<Counters>,
    stopped: watch::Receiver<bool>,
}

/// A server that is paused or gone does not answer: a writer gives up on it and connects again.
const PATIENCE: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_millis(50);

impl Writer {
    async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        while !*self.stopped.borrow() {
            let Err(error) = self.session().await else { return };
            // Writers of the same rows deadlock now and then: the server rolls one of them back, as users know it.
            let text = format!("{error:#}").to_lowercase();
            let deadlock = text.contains("deadlock") || text.contains("write conflict");
            let counter = if deadlock { &self.counters.rolled_back } else { &self.counters.interrupted };
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                _ = stopped.changed() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    /// Until it is stopped, or to the first error.
    async fn session(&mut self) -> anyhow::Result<()> {
        let mut stopped = self.stopped.clone();
        let mut connection = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            opened = tokio::time::timeout(PATIENCE, Connection::open(&self.url)) => opened??,
        };
        let found = match &mut connection {
            Connection::Mongodb(database) => {
                let own = mongodb::versions(database, |key| self.rows.owns(key));
                tokio::time::timeout(PATIENCE, own).await??
            }
            connection => tokio::time::timeout(PATIENCE, connection.rows(&self.rows.query())).await??,
        };
        self.rows.found(&found)?;
        let (begun, mut done) = (Instant::now(), 0u32);
        while !*self.stopped.borrow() {
            let transaction =
                Transaction::plan(self.kind, &mut self.rng, &mut self.rows, &self.settings.mix, self.settings.rows);
            match &mut connection {
                Connection::Mongodb(database) => {
                    let run = mongodb::run(database, &transaction.writes, transaction.rolled_back);
                    tokio::time::timeout(PATIENCE, run).await??;
                }
                connection => tokio::time::timeout(PATIENCE, connection.execute(&transaction.sql)).await??,
            }
            self.counters.transactions.fetch_add(1, Ordering::Relaxed);
            match transaction.rolled_back {
                true => self.counters.rolled_back.fetch_add(1, Ordering::Relaxed),
                false => self.counters.changes.fetch_add(u64::from(transaction.changes), Ordering::Relaxed),
            };
            done += transaction.changes;
            if let Some(rate) = self.rate {
                let due = begun + Duration::from_secs_f64(f64::from(done) / rate);
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                    () = tokio::time::sleep_until(due) => {}
                }
            }
        }
        Ok(())
    }
}
