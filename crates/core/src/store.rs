//! Control data: checkpoints of captures, progress of snapshots, deferred retries and dead letters.

use crate::change::Change;
use crate::error::{ErrorClass, Result};
use crate::guard::Image;
use crate::name::{DatabaseName, InstallationId, PipelineName, TableName};
use crate::position::Checkpoint;
use crate::reader::KeyRange;
use crate::record::{Offset, Partition};
use crate::row::Key;
use async_trait::async_trait;

/// A capture task: one database of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CaptureId {
    pub pipeline: PipelineName,
    pub database: DatabaseName,
}

/// An applier: one target of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetId {
    pub pipeline: PipelineName,
    pub database: DatabaseName,
    pub partition: Partition,
}

/// A source position with the bus offset that it rests on: a log that ends before that offset is a GAP (invariant 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    pub checkpoint: Checkpoint,
    /// The identity of the log.
    pub log: String,
    /// The offset after the last record of this origin that the checkpoint covers.
    pub next: Offset,
}

/// One key-range chunk of a snapshot. The chunks of a table are contiguous and numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkState {
    pub table: TableName,
    pub number: u64,
    pub range: KeyRange,
    /// Its rows are durable on the bus.
    pub done: bool,
    pub rows: u64,
}

#[async_trait]
pub trait Store: Send + Sync {
    /// The identity of this store, made on first use.
    async fn installation(&self) -> Result<InstallationId>;

    async fn checkpoint(&self, capture: &CaptureId) -> Result<Option<StoredCheckpoint>>;

    /// Durable when it returns.
    async fn save_checkpoint(&self, capture: &CaptureId, checkpoint: &StoredCheckpoint) -> Result<()>;

    /// The chunks of a capture's snapshot that have been planned so far, by table and number.
    async fn chunks(&self, capture: &CaptureId) -> Result<Vec<ChunkState>>;

    /// Inserts or replaces chunks by (table, number), all or none. Durable when it returns.
    async fn save_chunks(&self, capture: &CaptureId, chunks: &[ChunkState]) -> Result<()>;

    /// Forgets the chunks of these tables, all or none: they are copied anew when the capture has them again. Durable when it
    /// returns.
    async fn forget_chunks(&self, capture: &CaptureId, tables: &[TableName]) -> Result<()>;

    /// Forgets checkpoint and chunks: the next start is a fresh one.
    async fn forget_capture(&self, capture: &CaptureId) -> Result<()>;
}

/// A parked version that waits for its next attempt, or, `dead`, for a person.
#[derive(Clone, Debug)]
pub struct Deferred {
    pub target: TargetId,
    pub key: Key,
    /// The version, merged with those that it replaced.
    pub change: Change,
    /// Two-way: what it may be written over.
    pub over: Option<Vec<Image>>,
    pub offset: Offset,
    pub class: ErrorClass,
    pub reason: String,
    /// How often it has been tried.
    pub attempts: u32,
    /// When it is tried next: microseconds since 1970-01-01 UTC by this machine's clock.
    pub due: i64,
    pub dead: bool,
}

/// A row at a target.
pub type Name = (TableName, Key);

/// Deferred retries and dead letters: one version per (target, table, key), the newest.
#[async_trait]
pub trait RetryQueue: Send + Sync {
    /// Inserts or replaces by (target, table, key). Durable when it returns.
    async fn defer(&self, deferred: Vec<Deferred>) -> Result<()>;

    /// The versions that wait for these keys, dead or not; nothing for a key without one.
    async fn get(&self, target: &TargetId, names: &[Name]) -> Result<Vec<Deferred>>;

    /// The living ones that are due, the earliest first.
    async fn due(&self, target: &TargetId, now: i64, limit: usize) -> Result<Vec<Deferred>>;

    /// When the next living one is due.
    async fn next_due(&self, target: &TargetId) -> Result<Option<i64>>;

    /// Removes the versions of keys, but only those at these offsets: a newer one stays. All or none; durable when it
    /// returns. How many were there.
    async fn remove(&self, target: &TargetId, versions: &[(Name, Offset)]) -> Result<usize>;

    /// All of a target, `dead` ones or living ones, the oldest offset first.
    async fn list(&self, target: &TargetId, dead: bool, limit: usize) -> Result<Vec<Deferred>>;
}
