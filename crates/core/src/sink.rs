//! Writing to a database: rows, parked rows and marker in one transaction (invariant 2).

use crate::bus::Flush;
use crate::change::Change;
use crate::error::{ErrorClass, Result};
use crate::guard::{Image, Seen};
use crate::name::TableName;
use crate::record::Offset;
use crate::row::Key;
use async_trait::async_trait;

/// How far a target has applied a partition: the row `sync_worker.progress` there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The last record applied; None before the first.
    pub offset: Option<Offset>,
    /// The identity of the log that the offset belongs to.
    pub log: String,
    /// The digest of the record at the offset; 0 before the first.
    pub digest: u64,
    /// Grows with every task that takes over the target; one with an older epoch is refused.
    pub epoch: u64,
    /// Grows by one with each transaction, so that the row always changes: MySQL does not log an update that changes
    /// nothing.
    pub writes: u64,
}

/// One change to write.
#[derive(Clone, Debug)]
pub struct Write {
    pub change: Change,
    /// The offset of its record.
    pub offset: Offset,
    /// The key has a parked row at the target: it goes when this is written, and is replaced when this is refused.
    pub parked: bool,
    /// Two-way: the images that the row there may have. The change is then a whole row of the logical table, or its
    /// delete, whichever its `op`, and its key occurs once in a batch; a whole row as its `before` is probably the one
    /// there, which saves a sink that can make use of it a look. None one-way: it is written over whatever is there.
    pub over: Option<Vec<Image>>,
}

/// What one transaction writes. The writes are in bus order; a key may occur several times.
#[derive(Debug)]
pub struct WriteBatch {
    /// What the sink must find; else it has been superseded.
    pub expected: Marker,
    pub marker: Marker,
    pub writes: Vec<Write>,
    /// Parked rows that go without a write: a dead letter that a person dropped.
    pub unpark: Vec<(TableName, Key)>,
    /// The writes are parked versions that are tried again, rather than new ones.
    pub retry: bool,
}

/// A write that the target refused. Its reason names the constraint or column, never a value.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its index in [`WriteBatch::writes`].
    pub write: usize,
    /// Dependency or Poison.
    pub class: ErrorClass,
    pub reason: String,
}

#[derive(Debug, Default)]
pub struct Applied {
    /// Rows written after collapsing changes of one key.
    pub rows: u64,
    /// Updates and deletes whose row was not there.
    pub missing: u64,
    /// What was parked, all of it handed to [`Parking`] before the commit.
    pub refused: Vec<Refused>,
    /// What was left alone because the row is none that may be written over, parked without a retry: the write's index in
    /// [`WriteBatch::writes`] and what was seen. A version that was tried again is refused instead, and tried again.
    pub differing: Vec<(usize, Seen)>,
    /// Guarded writes whose row was as wanted already, by their index.
    pub equal: Vec<usize>,
    /// The set-based statements were refused and the batch was written row by row.
    pub row_by_row: bool,
}

/// What must be durable elsewhere before a sink may commit.
#[async_trait]
pub trait Parking: Send + Sync {
    /// Whether the batch's records may still be lost on the bus: then to be awaited right before the commit is sent, and
    /// on an error nothing may be committed. Not before the writes: both take their time, at the same time.
    fn pending(&self, batch: &WriteBatch) -> Option<Flush>;

    /// Makes refused writes durable in the retry queue. Called inside the sink's transaction, before its commit
    /// (invariant 2). May be called again with the same writes when that commit fails.
    async fn park(&self, batch: &WriteBatch, refused: &[Refused]) -> Result<()>;
}

/// A key of which the target lacks the newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    pub table: TableName,
    pub key: Key,
    /// The offset of the version that waits.
    pub offset: Offset,
    pub reason: String,
    /// What was there instead of a row that the version may be written over; None where the version was refused.
    pub seen: Option<Image>,
}

#[derive(Debug)]
pub struct Progress {
    pub marker: Marker,
    pub parked: Vec<ParkedKey>,
}

#[async_trait]
pub trait Sink: Send {
    /// Takes the target over under a new epoch, creating `sync_worker.progress` and `sync_worker.parked` where they are
    /// missing: the marker as it stands from now on, and every parked key. `log` is written into a marker that is new.
    async fn take_over(&mut self, log: &str) -> Result<Progress>;

    /// Writes a batch in one transaction, or nothing. On Superseded and on any other error nothing of it is visible,
    /// except when the outcome of the commit is unknown: the caller then takes the target over again and looks. Not
    /// cancel safe: a dropped call leaves the connection unusable, and the outcome unknown.
    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied>;
}
