//! In-memory control data and retry queue.

use super::{MemoryError, Shared};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::ledger::{
    Conflict, FLIP_FLOP, Ledger, Recorded, ResolverCheckpoint, ResolverStore, Settled, UNFIT, Wanted,
};
use sync_worker_core::name::{InstallationId, PipelineName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::store::{CaptureId, ChunkState, Deferred, Name, RetryQueue, Store, StoredCheckpoint, TargetId};

/// Clones are handles of the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared<State>>,
}

#[derive(Default)]
struct State {
    checkpoints: HashMap<CaptureId, StoredCheckpoint>,
    chunks: HashMap<CaptureId, BTreeMap<(TableName, u64), ChunkState>>,
    deferred: HashMap<(TargetId, TableName, Key), Deferred>,
    /// In the order of their ids, which count from 1.
    conflicts: Vec<Recorded>,
    resolvers: HashMap<TargetId, BTreeMap<Offset, ResolverCheckpoint>>,
    failing: bool,
    removals: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { shared: Arc::new(Shared::new(State::default())) }
    }
}

impl MemoryStore {
    /// Every write fails from now on, or no longer.
    pub fn fail(&self, failing: bool) {
        self.shared.change(|state| state.failing = failing);
    }

    /// The store's disk is gone, but for the retry queue.
    pub fn forget_everything(&self) {
        self.shared.change(|state| {
            state.checkpoints.clear();
            state.chunks.clear();
        });
    }

    /// Puts a checkpoint there as another life of the worker might have left it.
    pub fn put_checkpoint(&self, capture: &CaptureId, stored: StoredCheckpoint) {
        self.shared.change(|state| state.checkpoints.insert(capture.clone(), stored));
    }

    pub fn stored(&self, capture: &CaptureId) -> Option<StoredCheckpoint> {
        self.shared.lock().checkpoints.get(capture).cloned()
    }

    pub fn deferred(&self) -> Vec<Deferred> {
        self.shared.lock().deferred.values().cloned().collect()
    }

    /// All of every pipeline, the oldest first.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.lock().conflicts.clone()
    }

    /// How often versions were removed from the queue, however many at a time.
    pub fn removals(&self) -> usize {
        self.shared.lock().removals
    }

    /// Waits until the store looks like this.
    pub async fn until<R>(&self, mut ready: impl FnMut(&Self) -> Option<R>) -> R {
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(result) = ready(self) {
                return result;
            }
            changes.changed().await.unwrap_or_default();
        }
    }

    fn write<R>(&self, write: impl FnOnce(&mut State) -> R) -> Result<R> {
        if self.shared.lock().failing {
            return Err(MemoryError::new(ErrorClass::Transient, "the store's disk is full").into());
        }
        Ok(self.shared.change(write))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn installation(&self) -> Result<InstallationId> {
        Ok(InstallationId::new("memory"))
    }

    async fn checkpoint(&self, capture: &CaptureId) -> Result<Option<StoredCheckpoint>> {
        Ok(self.stored(capture))
    }

    async fn save_checkpoint(&self, capture: &CaptureId, checkpoint: &StoredCheckpoint) -> Result<()> {
        tokio::task::yield_now().await;
        self.write(|state| drop(state.checkpoints.insert(capture.clone(), checkpoint.clone())))
    }

    async fn chunks(&self, capture: &CaptureId) -> Result<Vec<ChunkState>> {
        let state = self.shared.lock();
        Ok(state.chunks.get(capture).map(|chunks| chunks.values().cloned().collect()).unwrap_or_default())
    }

    async fn save_chunks(&self, capture: &CaptureId, chunks: &[ChunkState]) -> Result<()> {
        tokio::task::yield_now().await;
        self.write(|state| {
            let known = state.chunks.entry(capture.clone()).or_default();
            known.extend(chunks.iter().map(|chunk| ((chunk.table.clone(), chunk.number), chunk.clone())));
        })
    }

    async fn forget_chunks(&self, capture: &CaptureId, tables: &[TableName]) -> Result<()> {
        self.write(|state| {
            let known = state.chunks.entry(capture.clone()).or_default();
            known.retain(|(table, _), _| !tables.contains(table));
        })
    }

    async fn forget_capture(&self, capture: &CaptureId) -> Result<()> {
        self.write(|state| {
            state.checkpoints.remove(capture);
            state.chunks.remove(capture);
        })
    }
}

#[async_trait]
impl RetryQueue for MemoryStore {
    async fn defer(&self, deferred: Vec<Deferred>) -> Result<()> {
        tokio::task::yield_now().await;
        self.write(|state| {
            for one in deferred {
                let name = (one.target.clone(), one.change.table().clone(), one.key.clone());
                state.deferred.insert(name, one);
            }
        })
    }

    async fn get(&self, target: &TargetId, names: &[Name]) -> Result<Vec<Deferred>> {
        let state = self.shared.lock();
        let one = |(table, key): &Name| state.deferred.get(&(target.clone(), table.clone(), key.clone())).cloned();
        Ok(names.iter().filter_map(one).collect())
    }

    async fn due(&self, target: &TargetId, now: i64, limit: usize) -> Result<Vec<Deferred>> {
        let mut due: Vec<_> =
            self.deferred().into_iter().filter(|one| one.target == *target && !one.dead && one.due <= now).collect();
        due.sort_by_key(|one| one.due);
        due.truncate(limit);
        Ok(due)
    }

    async fn next_due(&self, target: &TargetId) -> Result<Option<i64>> {
        Ok(self.deferred().into_iter().filter(|one| one.target == *target && !one.dead).map(|one| one.due).min())
    }

    async fn remove(&self, target: &TargetId, versions: &[(Name, Offset)]) -> Result<usize> {
        self.write(|state| {
            state.removals += 1;
            let before = state.deferred.len();
            for ((table, key), offset) in versions {
                let name = (target.clone(), table.clone(), key.clone());
                if state.deferred.get(&name).is_some_and(|one| one.offset == *offset) {
                    state.deferred.remove(&name);
                }
            }
            before - state.deferred.len()
        })
    }

    async fn list(&self, target: &TargetId, dead: bool, limit: usize) -> Result<Vec<Deferred>> {
        let mut all: Vec<_> =
            self.deferred().into_iter().filter(|one| one.target == *target && one.dead == dead).collect();
        all.sort_by_key(|one| one.offset);
        all.truncate(limit);
        Ok(all)
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn record(&self, conflicts: Vec<Conflict>) -> Result<Vec<Conflict>> {
        tokio::task::yield_now().await;
        self.write(|state| {
            let mut new = Vec::new();
            for conflict in conflicts {
                if state.conflicts.iter().all(|known| !is_same(&known.conflict, &conflict)) {
                    let id = state.conflicts.last().map_or(1, |last| last.id + 1);
                    new.push(conflict.clone());
                    state.conflicts.push(Recorded { id, conflict, decided: None });
                }
            }
            new
        })
    }

    async fn conflicts(&self, pipeline: &PipelineName, wanted: &Wanted) -> Result<Vec<Recorded>> {
        let state = self.shared.lock();
        let newest_first = state.conflicts.iter().rev().filter(|one| {
            one.conflict.pipeline == *pipeline
                && (one.conflict.open || !wanted.open_only)
                && wanted.table.as_ref().is_none_or(|table| one.conflict.table == *table)
                && wanted.before.is_none_or(|before| one.id < before)
        });
        Ok(newest_first.take(wanted.limit).cloned().collect())
    }

    async fn conflict(&self, pipeline: &PipelineName, id: i64) -> Result<Option<Recorded>> {
        let state = self.shared.lock();
        Ok(state.conflicts.iter().find(|one| one.id == id && one.conflict.pipeline == *pipeline).cloned())
    }

    async fn close(
        &self,
        pipeline: &PipelineName,
        table: &TableName,
        settled: &Settled,
        by: &str,
        time: i64,
    ) -> Result<usize> {
        let settles = |id: i64, conflict: &Conflict| match settled {
            Settled::Entry(one) => id == *one,
            Settled::Key(key) => conflict.key == *key && conflict.kind != UNFIT,
            Settled::Columns { key, columns, .. } => {
                let is_of = match (&conflict.stands, &conflict.column) {
                    (Some(_), Some(column)) => columns.contains(column),
                    (None, _) | (_, None) => conflict.kind != UNFIT,
                };
                conflict.key == *key && is_of
            }
            Settled::Unfit(key) => conflict.key == *key && conflict.kind == UNFIT && !conflict.is_refusal(),
            Settled::Refused { keys, at } => {
                keys.contains(&conflict.key) && conflict.is_refusal() && conflict.at.as_ref() == Some(at)
            }
            Settled::FlipFlops => conflict.kind == FLIP_FLOP,
        };
        self.write(|state| {
            let mut closed = 0;
            for one in &mut state.conflicts {
                let conflict = &mut one.conflict;
                if conflict.open
                    && conflict.pipeline == *pipeline
                    && conflict.table == *table
                    && settles(one.id, conflict)
                {
                    conflict.open = false;
                    one.decided = Some((by.to_owned(), time));
                    closed += 1;
                }
                if let Settled::Columns { key, columns, before, stands } = settled
                    && (&conflict.pipeline, &conflict.table, &conflict.key) == (pipeline, table, key)
                    && conflict.stands.as_ref() == Some(before)
                    && conflict.column.as_ref().is_some_and(|column| !columns.contains(column))
                {
                    conflict.stands = Some(stands.clone());
                }
            }
            closed
        })
    }
}

fn is_same(one: &Conflict, other: &Conflict) -> bool {
    let place = |of: &Conflict| (of.partition, of.offset);
    place(one) == place(other)
        && one.pipeline == other.pipeline
        && one.table == other.table
        && one.key == other.key
        && one.column == other.column
        && one.kind == other.kind
        && one.at == other.at
}

#[async_trait]
impl ResolverStore for MemoryStore {
    async fn resolver_checkpoints(&self, target: &TargetId) -> Result<Vec<ResolverCheckpoint>> {
        let state = self.shared.lock();
        Ok(state.resolvers.get(target).map(|kept| kept.values().cloned().collect()).unwrap_or_default())
    }

    async fn save_resolver_checkpoint(
        &self,
        target: &TargetId,
        checkpoint: &ResolverCheckpoint,
        keep: &[Offset],
    ) -> Result<()> {
        tokio::task::yield_now().await;
        self.write(|state| {
            let kept = state.resolvers.entry(target.clone()).or_default();
            kept.retain(|offset, _| keep.contains(offset));
            kept.insert(checkpoint.offset, checkpoint.clone());
        })
    }
}
