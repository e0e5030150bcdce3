//! What an applier keeps of its resolver: where it goes on from, checkpoints, the ledger.

use super::checkpoint;
use super::stage::Stage;
use crate::capture::PARTITION;
use crate::decide::Decided;
use crate::failure::EngineError;
use crate::pace::Progress;
use crate::publish::Shown;
use crate::sequence::Sequence;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::bus::{Bounds, Bus};
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{Ledger, ResolverCheckpoint, ResolverStore};
use sync_worker_core::record::Offset;
use sync_worker_core::store::TargetId;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// The least time between two checkpoints, and how many times what one takes.
const EVERY: Duration = Duration::from_secs(2);
const SHARE: u32 = 20;

/// With more under way a checkpoint, which is made in memory, would hold up what makes it less: the log is kept instead.
/// Some 14,000 keys with small rows.
const MOST_BYTES: usize = 8 << 20;

/// What a two-way applier has beside a one-way one.
#[derive(Clone)]
pub struct TwoWayParts {
    pub ledger: Arc<dyn Ledger>,
    pub resolvers: Arc<dyn ResolverStore>,
    /// Of the target's own stream.
    pub shown: watch::Receiver<Shown>,
    /// Tells captures how far it has come.
    pub progress: Progress,
    /// Told what became of people's decisions.
    pub decided: broadcast::Sender<Decided>,
    /// A folder for what is under way beyond what memory is for; the resolver makes it.
    pub spill: PathBuf,
}

/// Where to read on.
pub struct Resumed {
    pub stage: Stage,
    pub sequence: Sequence,
    pub from: Offset,
}

/// The checkpoints of one applier.
pub struct Checkpoints {
    target: TargetId,
    store: Arc<dyn ResolverStore>,
    /// Offsets of those that are kept, the lowest first.
    kept: Vec<Offset>,
    next: Instant,
}

impl Checkpoints {
    /// The state after the newest checkpoint that the target's marker bears out, or an empty one before the first record.
    /// A checkpoint that rests on a later marker is of no use: the target has forgotten a transaction that it counts on.
    pub async fn resume(
        target: &TargetId,
        (store, spill): (&Arc<dyn ResolverStore>, &Path),
        marker: Option<Offset>,
        log: &str,
        bounds: Bounds,
    ) -> Result<(Self, Resumed)> {
        let stored = store.resolver_checkpoints(target).await?;
        let kept: Vec<Offset> = stored.iter().map(|checkpoint| checkpoint.offset).collect();
        let checkpoints = Self { target: target.clone(), store: store.clone(), kept, next: Instant::now() + EVERY };
        let mut stage = Stage::new(target.pipeline.clone(), target.partition, target.database.clone(), marker);
        let held = |checkpoint: &&ResolverCheckpoint| {
            let from = checkpoint.offset.next();
            checkpoint.log == log && checkpoint.rests_on <= marker && (bounds.first..=bounds.next).contains(&from)
        };
        if let Some(found) = stored.iter().rev().find(held) {
            let sequence = checkpoint::decode(&found.state, &mut stage).map_err(EngineError::Damaged)?;
            stage.spill_to(spill.to_owned());
            return Ok((checkpoints, Resumed { stage, sequence, from: found.offset.next() }));
        }
        if bounds.first > Offset(0) {
            let text = format!(
                "{} in pipeline {}: no checkpoint of its resolver fits its marker, and the log begins at offset {}; seed the pipeline anew",
                target.database, target.pipeline, bounds.first
            );
            return Err(EngineError::Gap(text).into());
        }
        stage.spill_to(spill.to_owned());
        Ok((checkpoints, Resumed { stage, sequence: Sequence::default(), from: Offset(0) }))
    }

    pub fn are_due(&self, stage: &Stage) -> bool {
        Instant::now() >= self.next && stage.entry_bytes() <= MOST_BYTES
    }

    /// Stores a state whose records are durable, and lets go of the log before the oldest one that is kept: that is the
    /// newest at or below the last echo of the target, which no failover takes back.
    pub async fn save(&mut self, bus: &dyn Bus, checkpoint: ResolverCheckpoint, echoed: Option<Offset>) -> Result<()> {
        let begun = Instant::now();
        let safe = match echoed {
            Some(echoed) => self.kept.iter().copied().rfind(|offset| *offset <= echoed),
            // Nothing is known of this life yet.
            None => self.kept.first().copied(),
        };
        self.kept = safe.into_iter().collect();
        self.store.save_resolver_checkpoint(&self.target, &checkpoint, &self.kept).await?;
        self.kept.push(checkpoint.offset);
        let consumer = format!("apply:{}", self.target.database);
        bus.retain(PARTITION, &consumer, self.kept.first().map_or(Offset(0), |offset| *offset)).await?;
        self.next = Instant::now() + EVERY.max(begun.elapsed() * SHARE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::record::{Body, Record};
    use sync_worker_core::rules::TwoWay;
    use sync_worker_testkit::memory::MemoryStore;

    /// A target that fails over to a server without our last transactions has an older marker.
    #[tokio::test]
    async fn a_checkpoint_that_rests_on_what_the_target_has_forgotten_is_of_no_use() {
        let target = TargetId { pipeline: "p".into(), partition: PARTITION, database: "b".into() };
        let mut stage = Stage::new(target.pipeline.clone(), PARTITION, target.database.clone(), None);
        let rules = TwoWay { members: Vec::new(), tables: Vec::new(), merged_seeds: false };
        stage.take(Offset(0), Record::of_nobody(0, Body::Configuration(Arc::new(rules)))).unwrap();
        let state = checkpoint::encode(&mut stage, &Sequence::default()).unwrap().unwrap();
        let store: Arc<dyn ResolverStore> = Arc::new(MemoryStore::default());
        for (offset, rests_on) in [(10, 8), (20, 18)] {
            let rests_on = Some(Offset(rests_on));
            let checkpoint =
                ResolverCheckpoint { offset: Offset(offset), rests_on, log: "log".to_owned(), state: state.clone() };
            store.save_resolver_checkpoint(&target, &checkpoint, &[Offset(10)]).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        for (marker, first, from) in
            [(19, 5, Some(21)), (18, 5, Some(21)), (17, 5, Some(11)), (7, 0, Some(0)), (7, 5, None)]
        {
            let bounds = Bounds { first: Offset(first), next: Offset(30) };
            let marker = Some(Offset(marker));
            let resumed = Checkpoints::resume(&target, (&store, folder.path()), marker, "log", bounds).await;
            assert_eq!(resumed.ok().map(|(_, resumed)| resumed.from), from.map(Offset), "{marker:?} from {first}");
        }
    }
}
