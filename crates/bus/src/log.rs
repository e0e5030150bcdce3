//! The embedded log of one pipeline: opens its folder, owns the writers, and is the [`Bus`].

use crate::config::Config;
use crate::consumers::Consumers;
use crate::disk::{self, Disk, RealDisk};
use crate::error::{Error, Result};
use crate::partition::{End, Shared};
use crate::publish;
use crate::recovery::{self, Recovered};
use crate::subscription::{LogDurability, LogSubscription};
use crate::writer::Writer;
use async_trait::async_trait;
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use sync_worker_core::bus::{Ahead, Bounds, Bus, Receipt, Subscription};
use sync_worker_core::record::{Offset, Partition, Record};
use tokio::sync::{oneshot, watch};

pub struct EmbeddedLog {
    folder: PathBuf,
    identity: String,
    config: Config,
    partitions: Vec<Part>,
    consumers: Arc<Consumers>,
    writers: Vec<JoinHandle<()>>,
    /// Keeps other processes out for as long as this lives.
    _lock: File,
}

struct Part {
    shared: Arc<Shared>,
    ahead: watch::Receiver<End>,
    durable: watch::Receiver<End>,
}

/// What a partition takes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    /// Bytes beyond [`Config::max_bytes`]: slow consumers still need them, or they are in the newest segments.
    pub pinned: u64,
}

impl EmbeddedLog {
    /// Opens the log in a folder, making a new one where there is none, and recovers it. Blocks on the disk for as long
    /// as reading one segment takes. Dropping the log waits for what is queued to be written.
    pub fn open(folder: &Path, config: Config) -> Result<Self> {
        Self::open_on(folder, config, Arc::new(RealDisk))
    }

    pub(crate) fn open_on(folder: &Path, config: Config, disk: Arc<dyn Disk>) -> Result<Self> {
        disk::make_folder(folder)?;
        let lock_path = folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).mode(disk::FILE_MODE).open(&lock_path);
        let file = file.map_err(Error::io("open", &lock_path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked(folder.to_owned()),
            TryLockError::Error(error) => Error::io("lock", &lock_path)(error),
        })?;
        let name = recovery::name(folder, config.partitions)?;
        let recovered = (0..config.partitions)
            .map(|number| recovery::partition(recovery::partition_folder(folder, number), name.identity, number))
            .collect::<Result<Vec<_>>>()?;
        let schemas = Arc::new(recovery::schemas(folder, name.identity, &recovered)?);
        let consumers = Arc::new(Consumers::open(folder)?);
        disk::sync_folder(folder)?;
        let mut log = Self {
            folder: folder.to_owned(),
            identity: name.identity.to_string(),
            partitions: Vec::new(),
            consumers,
            writers: Vec::new(),
            _lock: file,
            config,
        };
        for (number, recovered) in (0..).map(Partition).zip(recovered) {
            let Recovered { folder, segments, file, end, next, .. } = recovered;
            let segment = segments.back().cloned().ok_or_else(|| Error::Missing(folder.clone()))?;
            let (queue, cache) = (log.config.queue_bytes.max(1), log.config.cache_bytes);
            let shared = Arc::new(Shared::new(number, folder, schemas.clone(), segments, queue, cache));
            shared.written.store(end, Ordering::Relaxed);
            let known = End { next, ..End::default() };
            let ((ahead, written), (durable, reader)) = (watch::channel(known), watch::channel(known));
            let writer = Writer {
                shared: shared.clone(),
                consumers: log.consumers.clone(),
                disk: disk.clone(),
                config: log.config.clone(),
                identity: name.identity,
                segment,
                file,
                end,
                next,
                ahead,
                durable,
            };
            // Consumers may have moved on, and segments have aged, since the log was closed.
            shared.clean();
            log.partitions.push(Part { shared, ahead: written, durable: reader });
            let thread = std::thread::Builder::new().name(format!("log-{}", number.0)).spawn(move || writer.run());
            log.writers.push(thread.map_err(Error::io("start the writer of", &log.folder))?);
        }
        Ok(log)
    }

    /// Forgets a consumer for good, a target that was removed from the configuration: it no longer pins anything.
    /// Blocks on the disk.
    pub fn forget(&self, partition: Partition, consumer: &str) -> Result<()> {
        let part = self.part(partition)?;
        if self.consumers.forget(partition, consumer) {
            self.consumers.write()?;
            part.shared.clean();
        }
        Ok(())
    }

    pub fn usage(&self, partition: Partition) -> Result<Usage> {
        let bytes = self.part(partition)?.shared.bytes();
        Ok(Usage { bytes, pinned: bytes.saturating_sub(self.config.max_bytes) })
    }

    fn part(&self, partition: Partition) -> Result<&Part> {
        self.partitions.get(partition.0 as usize).ok_or(Error::NoPartition(partition.0))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|part| part.shared.close());
        for writer in self.writers.drain(..) {
            if writer.join().is_err() {
                tracing::error!(folder = %self.folder.display(), "a log writer has panicked");
            }
        }
    }
}

#[async_trait]
impl Bus for EmbeddedLog {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn bounds(&self, partition: Partition) -> sync_worker_core::error::Result<Bounds> {
        let part = self.part(partition)?;
        Ok(part.shared.bounds(&part.durable))
    }

    async fn publish(&self, partition: Partition, records: Vec<Record>) -> sync_worker_core::error::Result<Receipt> {
        let shared = &self.part(partition)?.shared;
        if records.is_empty() {
            return Err(Error::Empty.into());
        }
        let mut parts = publish::encode(&records, &shared.schemas)?;
        drop(records);
        let bytes = parts.iter().map(|part| part.frame.len()).sum::<usize>();
        // One that is larger than the whole queue waits until it is empty.
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.config.queue_bytes.max(1));
        let room = shared.room.clone().acquire_many_owned(wanted).await;
        let closed = Error::Closed(self.folder.clone());
        let (answer, receipt) = oneshot::channel();
        if let Some(last) = parts.last_mut() {
            last.answer = Some(answer);
            last.room = room.ok();
        }
        shared.push(parts)?;
        Ok(Box::pin(async move {
            match receipt.await {
                Ok(Ok(offset)) => Ok(offset),
                Ok(Err(failure)) => Err(failure.error().into()),
                Err(_) => Err(closed.into()),
            }
        }))
    }

    async fn subscribe(
        &self,
        partition: Partition,
        from: Offset,
    ) -> sync_worker_core::error::Result<Box<dyn Subscription>> {
        let part = self.part(partition)?;
        let bounds = part.shared.bounds(&part.durable);
        if from < bounds.first || from > bounds.next {
            return Err(part.shared.outside(from, bounds).into());
        }
        Ok(Box::new(LogSubscription::new(part.shared.clone(), part.durable.clone(), from)))
    }

    async fn subscribe_ahead(&self, partition: Partition, from: Offset) -> sync_worker_core::error::Result<Ahead> {
        let Part { shared, ahead, durable } = self.part(partition)?;
        let end = *durable.borrow();
        let bounds = Bounds { first: shared.first(), next: end.next };
        if from < bounds.first || from > bounds.next {
            return Err(shared.outside(from, bounds).into());
        }
        let (shared, durable, taken_back) = (shared.clone(), durable.clone(), end.taken_back);
        let subscription = LogSubscription::new(shared.clone(), durable.clone(), from);
        let subscription = Box::new(subscription.ahead(ahead.clone(), taken_back));
        Ok(Ahead { subscription, durability: Arc::new(LogDurability { shared, durable, taken_back }) })
    }

    async fn retain(&self, partition: Partition, consumer: &str, from: Offset) -> sync_worker_core::error::Result<()> {
        let shared = &self.part(partition)?.shared;
        if self.consumers.declare(partition, consumer, from, |offset| shared.base_of(offset))? {
            let consumers = self.consumers.clone();
            let written = tokio::task::spawn_blocking(move || consumers.write()).await;
            written.map_err(|error| Error::io("write the consumers of", &self.folder)(error.into()))??;
        }
        shared.clean();
        Ok(())
    }
}
