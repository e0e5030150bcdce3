//! Where a session goes on.

use super::Apply;
use super::seeds::Copies;
use super::two_way::Resolving;
use crate::capture::PARTITION;
use crate::failure::EngineError;
use crate::resolve::applier::Checkpoints;
use crate::resolve::stage::Stage;
use crate::sequence::Sequence;
use sync_worker_core::bus::Ahead;
use sync_worker_core::error::Result;
use sync_worker_core::record::{Delivered, Offset};
use sync_worker_core::sink::Marker;

pub(super) struct Resuming {
    pub(super) ahead: Ahead,
    /// The next record that the target is to take.
    pub(super) next: Offset,
    pub(super) sequence: Sequence,
    /// Two-way.
    pub(super) resolving: Option<(Stage, Resolving)>,
}

impl Apply {
    /// The stream of records after the marker. A marker of another log, below or above what the log holds, or over
    /// another record than the one that stands there, is a GAP (invariant 8).
    pub(super) async fn resume(&self, marker: &Marker) -> Result<Resuming> {
        let (target, pipeline) = (&self.id.database, &self.id.pipeline);
        let gap = |what: String| {
            EngineError::Gap(format!(
                "{target} in pipeline {pipeline}: {what}; take a new snapshot into an empty marker"
            ))
        };
        if marker.log != self.bus.identity() {
            return Err(gap(format!("its marker belongs to log {}, not to {}", marker.log, self.bus.identity())).into());
        }
        let bounds = self.bus.bounds(PARTITION).await?;
        if let Some(two_way) = &self.two_way {
            if let Some(offset) = marker.offset.filter(|offset| *offset >= bounds.next) {
                return Err(
                    gap(format!("its marker is at offset {offset}, but the log ends at {}", bounds.next)).into()
                );
            }
            if let Some(offset) = marker.offset.filter(|offset| *offset >= bounds.first) {
                self.first(offset, marker, &gap).await?;
            }
            let log = self.bus.identity();
            let store = (&two_way.resolvers, two_way.spill.as_path());
            let (checkpoints, resumed) = Checkpoints::resume(&self.id, store, marker.offset, log, bounds).await?;
            two_way.progress.moved(resumed.from.0);
            let ahead = self.bus.subscribe_ahead(PARTITION, resumed.from).await?;
            let resolving = Resolving { parts: two_way.clone(), checkpoints, copies: Copies::default() };
            let (next, sequence) = (resumed.from, resumed.sequence);
            return Ok(Resuming { ahead, next, sequence, resolving: Some((resumed.stage, resolving)) });
        }
        let mut sequence = Sequence::default();
        let Some(offset) = marker.offset else {
            if bounds.first > Offset(0) {
                return Err(
                    gap(format!("the log begins at offset {}, after changes it has not seen", bounds.first)).into()
                );
            }
            let ahead = self.bus.subscribe_ahead(PARTITION, bounds.first).await?;
            return Ok(Resuming { ahead, next: bounds.first, sequence, resolving: None });
        };
        if offset < bounds.first || offset >= bounds.next {
            let range = format!("{} to {}", bounds.first, bounds.next);
            return Err(gap(format!("its marker is at offset {offset}, but the log holds {range}")).into());
        }
        let (ahead, there) = self.first(offset, marker, &gap).await?;
        let Some(first) = there.first() else { return Err(EngineError::Stopped("the log is gone").into()) };
        sequence.resume_after(&first.record);
        // What came with the first record is read again, in order.
        let ahead = match there.len() {
            1 => ahead,
            _ => self.bus.subscribe_ahead(PARTITION, offset.next()).await?,
        };
        Ok(Resuming { ahead, next: offset.next(), sequence, resolving: None })
    }

    /// The record at the marker's offset, and what came with it: it must be the one that the target has applied.
    async fn first(
        &self,
        offset: Offset,
        marker: &Marker,
        gap: &(impl Fn(String) -> EngineError + Sync),
    ) -> Result<(Ahead, Vec<Delivered>)> {
        let mut ahead = self.bus.subscribe_ahead(PARTITION, offset).await?;
        let there = ahead.subscription.next(1).await?;
        let Some(first) = there.first().filter(|first| first.offset == offset) else {
            return Err(gap(format!("the log has no record at its marker's offset {offset}")).into());
        };
        if first.digest() != marker.digest {
            return Err(
                gap(format!("the record at its marker's offset {offset} is another one than it applied")).into()
            );
        }
        Ok((ahead, there))
    }
}
