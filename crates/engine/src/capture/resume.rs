//! Where a session goes on: the stored position held against the log.

use super::{Capture, PARTITION};
use crate::failure::EngineError;
use crate::publish::Tail;
use std::collections::BTreeSet;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::record::{Body, Offset};
use sync_worker_core::store::{ChunkState, StoredCheckpoint};

impl Capture {
    pub(super) async fn stored_checkpoint(&self) -> Result<Option<StoredCheckpoint>> {
        let Some(stored) = self.store.checkpoint(&self.id).await? else { return Ok(None) };
        let bounds = self.bus.bounds(PARTITION).await?;
        let (pipeline, database) = (&self.id.pipeline, &self.id.database);
        // invariants 1 and 8: a log that is not the one the position rests on, or that ends before it, is no fresh start
        if stored.log != self.bus.identity() {
            let now = self.bus.identity();
            let text = format!(
                "the position of {database} in pipeline {pipeline} rests on log {}, but the log here is {now}; put that log back, or remove the pipeline's state and take a new snapshot",
                stored.log
            );
            return Err(EngineError::Gap(text).into());
        }
        if stored.next > bounds.next {
            let text = format!(
                "the position of {database} in pipeline {pipeline} rests on the log up to offset {}, but the log ends at {}: acknowledged changes are missing; put the log back, or remove the pipeline's state and take a new snapshot",
                stored.next, bounds.next
            );
            return Err(EngineError::Gap(text).into());
        }
        Ok(Some(stored))
    }

    /// A log that holds records of this database while the store has no position of it: the store was lost, and a fresh
    /// start would leave a hole (invariant 8).
    pub(super) async fn refuse_forgotten(&self) -> Result<()> {
        let bounds = self.bus.bounds(PARTITION).await?;
        if bounds.first == bounds.next {
            return Ok(());
        }
        let mut subscription = self.bus.subscribe(PARTITION, bounds.first).await?;
        loop {
            for delivered in subscription.next(4 << 20).await? {
                if delivered.record.origin == self.id.database {
                    let (pipeline, database) = (&self.id.pipeline, &self.id.database);
                    let text = format!(
                        "the log of pipeline {pipeline} holds changes of {database}, but the position that goes with them is lost; put the store back, or remove the pipeline's state and take a new snapshot"
                    );
                    return Err(EngineError::Gap(text).into());
                }
                if delivered.offset.next() >= bounds.next {
                    return Ok(());
                }
            }
        }
    }

    /// The source sends the rest of a transaction that was cut, and its changes are told from those that are there by
    /// their number in it: without the changes of a table they would have other numbers, and some would be taken for
    /// duplicates.
    fn still_wanted(&self, begun: &BTreeSet<TableName>) -> Result<()> {
        let known = |table: &TableName| self.scope.tables.iter().any(|at| at.table == *table);
        let Some(gone) = begun.iter().find(|table| !known(table)) else { return Ok(()) };
        let pipeline = &self.id.pipeline;
        let text = format!(
            "table {gone} was taken out of pipeline {pipeline} while a transaction that changes it is on the log in part; put it back, wait until status shows no lag, and take it out then"
        );
        Err(EngineError::Configuration(text).into())
    }

    /// Changes of a table that has left the pipeline are missing from here on, so it is to be copied anew if it comes back.
    pub(super) async fn forget_left_tables(&self) -> Result<()> {
        let known = |chunk: &ChunkState| self.scope.tables.iter().any(|at| at.table == chunk.table);
        let chunks = self.store.chunks(&self.id).await?;
        let left: BTreeSet<TableName> =
            chunks.into_iter().filter(|chunk| !known(chunk)).map(|chunk| chunk.table).collect();
        if left.is_empty() {
            return Ok(());
        }
        for table in &left {
            tracing::warn!(pipeline = %self.id.pipeline, database = %self.id.database, %table, "the table has left the pipeline: if it comes back it is copied anew, and rows that are deleted until then stay at the targets, which verify --repair mends");
        }
        self.store.forget_chunks(&self.id, &left.into_iter().collect::<Vec<_>>()).await
    }

    /// The stored position at the server as it is now. One that has taken over goes on with what was published last: the
    /// position that the server before it had come to says nothing of its log.
    pub(super) async fn follow(&self, stored: StoredCheckpoint, tail: Tail) -> Result<(StoredCheckpoint, Tail)> {
        let published = tail.previous.unwrap_or(tail.taken);
        let checkpoint = self.database.follow(&stored.checkpoint, published).await?;
        if checkpoint.epoch == stored.checkpoint.epoch {
            return Ok((stored, tail));
        }
        let stored = StoredCheckpoint { checkpoint, ..stored };
        // Before anything is published from the new log: it would be taken for something that this one lacks.
        self.store.save_checkpoint(&self.id, &stored).await?;
        Ok((stored, Tail { taken: published, ..tail }))
    }

    /// Where publishing stands: the record published last, which the next one names, and how far the log goes beyond the
    /// stored position.
    pub(super) async fn tail(&self, stored: &StoredCheckpoint) -> Result<Tail> {
        let bounds = self.bus.bounds(PARTITION).await?;
        let mut tail = Tail { taken: stored.checkpoint.position, previous: None, open: false };
        let mut begun = BTreeSet::new();
        // The record before the stored offset is the last one that the stored position covers.
        let from = Offset(stored.next.0.saturating_sub(1)).max(bounds.first);
        if from == bounds.next {
            return Ok(tail);
        }
        let mut subscription = self.bus.subscribe(PARTITION, from).await?;
        loop {
            for delivered in subscription.next(4 << 20).await? {
                let record = &delivered.record;
                if record.origin == self.id.database {
                    tail.previous = Some(record.position);
                    if record.position > tail.taken {
                        tail.taken = record.position;
                    }
                    if delivered.offset >= stored.next && !matches!(record.body, Body::Schema(_)) {
                        tail.open = !record.last;
                        if let Body::Change(change) = &record.body {
                            begun.insert(change.table().clone());
                        }
                        if record.last {
                            begun.clear();
                        }
                    }
                }
                if delivered.offset.next() >= bounds.next {
                    self.still_wanted(&begun)?;
                    return Ok(tail);
                }
            }
        }
    }
}
