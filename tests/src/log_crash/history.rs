//! A log with its store as a capture and an applier fill them, up to and including one last group.

use super::files::Files;
use anyhow::{Error, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use std::path::Path;
use sync_worker_bus::{Config, EmbeddedLog};
use sync_worker_core::bus::Bus;
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_core::position::{Checkpoint, Epoch};
use sync_worker_core::record::{Offset, Partition, Record};
use sync_worker_core::store::{CaptureId, Store, StoredCheckpoint};
use sync_worker_core::types::Engine;
use sync_worker_store::SqliteStore;
use sync_worker_testkit::records::Records;

pub const PARTITION: Partition = Partition(0);
const CONSUMER: &str = "apply:shop";

pub struct History {
    pub config: Config,
    pub identity: String,
    /// Everything that was ever published, by offset.
    pub truth: Vec<Record>,
    pub capture: CaptureId,
    /// Every position that was ever stored, in order.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// What the target's marker says: the last record applied there, and its digest.
    pub marker: Option<(Offset, u64)>,
    /// Before the last group, with all before it acknowledged.
    pub before: State,
    /// With the last group acknowledged.
    pub published: State,
    /// With the position that covers the last group stored, too.
    pub stored: State,
}

pub struct State {
    pub files: Files,
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// How many of the checkpoints had been stored.
    pub checkpoints: usize,
}

/// Below the folder of an image.
pub const LOG: &str = "log";
pub const STORE: &str = "state";

impl History {
    pub async fn make(random: &mut StdRng, folder: &Path) -> Result<Self> {
        let config = Config {
            segment_bytes: random.random_range(2_000..40_000),
            max_bytes: if random.random_ratio(1, 3) { random.random_range(5_000..50_000) } else { 1 << 30 },
            cache_bytes: 1,
            ..Config::default()
        };
        let store = SqliteStore::open(&folder.join(STORE))?;
        let log = EmbeddedLog::open(&folder.join(LOG), config.clone())?;
        let capture = CaptureId { pipeline: PipelineName::new("customers"), database: DatabaseName::new("crm") };
        let engine = if random.random() { Engine::Postgres } else { Engine::Mysql };
        let mut records = Records::new("crm", engine, random.random());
        records.alter_every = random.random_range(2..60);
        records.longest = *pick(random, &[20, 120, 800]);
        let mut making =
            Making { log, store, capture, records, truth: Vec::new(), checkpoints: Vec::new(), marker: None };

        // Not every position is stored at once: the source keeps what is behind the last one.
        let store_every = *pick(random, &[1, 1, 1, 3]);
        making.save().await?;
        making.log.retain(PARTITION, CONSUMER, Offset(0)).await.map_err(Error::msg)?;
        for group in 0..random.random_range(3..60) {
            making.publish(random.random_range(1..4)).await?;
            if group % store_every == 0 {
                making.save().await?;
            }
            if random.random_ratio(1, 3) {
                making.apply(random).await?;
            }
        }
        let before = making.state(folder)?;
        if random.random_ratio(1, 3) {
            making.records.alter_every = 1;
        }
        making.publish(random.random_range(1..8)).await?;
        let published = making.state(folder)?;
        making.save().await?;
        let stored = making.state(folder)?;
        let Making { log, capture, truth, checkpoints, marker, .. } = making;
        let identity = log.identity().to_owned();
        Ok(Self { config, identity, truth, capture, checkpoints, marker, before, published, stored })
    }

    /// What one more start of the capture would publish.
    pub fn more(&self, random: &mut StdRng) -> Vec<Record> {
        Records::new("crm", Engine::Postgres, random.random()).transaction()
    }
}

struct Making {
    log: EmbeddedLog,
    store: SqliteStore,
    capture: CaptureId,
    records: Records,
    truth: Vec<Record>,
    checkpoints: Vec<StoredCheckpoint>,
    marker: Option<(Offset, u64)>,
}

impl Making {
    /// Publishes some transactions at once and waits until they are durable.
    async fn publish(&mut self, transactions: usize) -> Result<()> {
        let records: Vec<_> = (0..transactions).flat_map(|_| self.records.transaction()).collect();
        self.truth.extend(records.iter().cloned());
        let last = self.log.publish(PARTITION, records).await.map_err(Error::msg)?.await.map_err(Error::msg)?;
        ensure!(last.next() == self.next(), "the log acknowledged {last} for the record before {}", self.next());
        Ok(())
    }

    fn next(&self) -> Offset {
        Offset(self.truth.len() as u64)
    }

    async fn save(&mut self) -> Result<()> {
        let position = match self.truth.last() {
            Some(record) => record.position.end_of_transaction(),
            None => "0/1".parse()?,
        };
        let resume = format!("after {}", self.truth.len());
        let checkpoint = Checkpoint { epoch: Epoch("7301/1".to_owned()), position, resume };
        let stored = StoredCheckpoint { checkpoint, log: self.log.identity().to_owned(), next: self.next() };
        self.store.save_checkpoint(&self.capture, &stored).await.map_err(Error::msg)?;
        self.checkpoints.push(stored);
        Ok(())
    }

    /// Moves the target's marker to a later record, and tells the log.
    async fn apply(&mut self, random: &mut StdRng) -> Result<()> {
        let from = self.marker.map_or(0, |(offset, _)| offset.0);
        let to = Offset(random.random_range(from..self.next().0));
        let mut subscription = self.log.subscribe(PARTITION, to).await.map_err(Error::msg)?;
        let delivered = subscription.next(1).await.map_err(Error::msg)?;
        self.marker = delivered.first().map(|delivered| (delivered.offset, delivered.digest()));
        self.log.retain(PARTITION, CONSUMER, to).await.map_err(Error::msg)?;
        Ok(())
    }

    fn state(&self, folder: &Path) -> Result<State> {
        let files = Files::settled(folder)?;
        Ok(State { files, acknowledged: self.truth.len(), checkpoints: self.checkpoints.len() })
    }
}

pub fn pick<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}
