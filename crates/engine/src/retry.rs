//! Parked keys: what a target has refused, until it takes it, a newer version does, or a person decides.
//!
//! A refused version is durable in the retry queue before the target's transaction commits, and its key stands in
//! `sync_worker.parked` by that transaction (invariant 2). A newer version of the key is tried at once and replaces it;
//! a retry whose parked row has gone or is another's is dropped (invariant 5).
//!
//! A refused change of key leaves the row at the target under its old key. The parked version remembers that one, so that
//! whatever comes next for the new key takes the old row with it.

use crate::clock::now_micros;
use crate::failure::EngineError;
use crate::version::{History, merged, stay};
use async_trait::async_trait;
use rand::Rng;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{ParkedKey, Parking, Refused, Write, WriteBatch};
use sync_worker_core::store::{Deferred, RetryQueue, TargetId};
use sync_worker_core::value::Damaged;

#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts, the first included, before a version becomes a dead letter.
    pub attempts: u32,
    /// Before the second attempt; doubles from there.
    pub first_delay: Duration,
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(60) }
    }
}

/// Keys that failed together do not come back together.
const JITTER: f64 = 0.2;

/// A version that is due and can't be tried yet is looked at again after this.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Versions of each kind that are looked through when a target is taken over.
const PURGED_AT_A_TIME: usize = 10_000;

impl RetryPolicy {
    fn delay(&self, attempts: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.longest_delay).mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER))
    }
}

type Name = (TableName, Key);

/// The keys parked at one target, and the queue behind them.
pub struct ParkingLot {
    pub target: TargetId,
    pub queue: Arc<dyn RetryQueue>,
    pub policy: RetryPolicy,
    /// As the target's own rows say.
    parked: HashMap<Name, Parked>,
    /// Where the target still has the row of a parked key: old name to parked key.
    moved: HashMap<Name, Key>,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    offset: Offset,
    /// Of this very version.
    attempts: u32,
}

impl ParkingLot {
    pub fn new(target: TargetId, queue: Arc<dyn RetryQueue>, policy: RetryPolicy) -> Self {
        Self { target, queue, policy, parked: HashMap::new(), moved: HashMap::new() }
    }

    /// Takes what the target says is parked, and removes from the queue what is not: a version whose transaction was
    /// lost, and which the target took when it came again.
    pub async fn reset(&mut self, keys: Vec<ParkedKey>, marker: Option<Offset>) -> Result<()> {
        self.parked.clear();
        self.moved.clear();
        for ParkedKey { table, key, offset, .. } in keys {
            if let Some(waiting) = self.queue.get(&self.target, &table, &key).await?
                && let Some(old) = waiting.change.old_key().map_err(EngineError::Damaged)?
            {
                self.moved.insert((table.clone(), old), key.clone());
            }
            self.parked.insert((table, key), Parked { offset, attempts: 0 });
        }
        for dead in [true, false] {
            for waiting in self.queue.list(&self.target, dead, PURGED_AT_A_TIME).await? {
                self.purge(&waiting, marker).await?;
            }
        }
        Ok(())
    }

    /// Removes a version from the queue that is not parked at the target. One above the marker stays: see [`Self::due`].
    pub async fn purge(&self, waiting: &Deferred, marker: Option<Offset>) -> Result<()> {
        if Some(waiting.offset) <= marker && !self.is_parked(waiting) {
            self.queue.remove(&self.target, waiting.change.table(), &waiting.key, waiting.offset).await?;
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.parked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Whether this is the version that the target lacks.
    pub fn is_parked(&self, deferred: &Deferred) -> bool {
        let name = (deferred.change.table().clone(), deferred.key.clone());
        self.parked.get(&name).is_some_and(|parked| parked.offset == deferred.offset)
    }

    /// Marks the writes whose keys are parked. The first write of such a key gets what it leaves unchanged from the
    /// version that waits, since the target never took that one; later ones build on the first. Returns the keys whose
    /// parked rows go although no write names them any more.
    pub async fn prepare(&mut self, writes: &mut Vec<Write>) -> Result<Vec<Name>> {
        let mut unpark = Vec::new();
        if self.parked.is_empty() {
            return Ok(unpark);
        }
        let (mut met, mut emptied, mut added) = (HashSet::new(), HashSet::new(), Vec::new());
        for (index, write) in writes.iter_mut().enumerate() {
            let table = write.change.table().clone();
            let Some(key) = write.change.key().map_err(EngineError::Damaged)? else {
                emptied.insert(table);
                continue;
            };
            // What waited for a truncated table waits no more.
            if emptied.contains(&table) {
                continue;
            }
            let old_key = write.change.old_key().map_err(EngineError::Damaged)?;
            let new = (table.clone(), key);
            let name = (table, old_key.unwrap_or_else(|| new.1.clone()));
            write.parked = self.parked.contains_key(&name) || self.parked.contains_key(&new);
            if self.parked.contains_key(&name)
                && !met.contains(&name)
                && let Some(waiting) = self.queue.get(&self.target, &name.0, &name.1).await?
            {
                let waiting = waiting.change;
                let moved = waiting.old_key().map_err(EngineError::Damaged)?.is_some();
                if write.change.op == Op::Delete && moved {
                    let change = Change { op: Op::Delete, after: None, ..waiting };
                    added.push((index, Write { change, offset: write.offset, parked: false }));
                } else {
                    write.change = merged(&waiting, &write.change).map_err(EngineError::Damaged)?;
                    if moved && name != new {
                        unpark.push(name.clone());
                    }
                }
            }
            self.settle_elsewhere(&new).await?;
            met.extend([name, new]);
        }
        for (index, write) in added.into_iter().rev() {
            writes.insert(index, write);
        }
        Ok(unpark)
    }

    /// Another row comes under the old key of a parked version: that version is no longer about the row there.
    async fn settle_elsewhere(&mut self, name: &Name) -> Result<()> {
        let Some(key) = self.moved.remove(name) else { return Ok(()) };
        if let Some(mut waiting) = self.queue.get(&self.target, &name.0, &key).await? {
            stay(&mut waiting.change);
            self.queue.defer(vec![waiting]).await?;
        }
        Ok(())
    }

    /// Follows what a committed batch did. The queue forgets versions that were written or replaced.
    pub async fn settle(&mut self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        if self.parked.is_empty() && refused.is_empty() {
            return Ok(());
        }
        let refused: HashSet<usize> = refused.iter().map(|refused| refused.write).collect();
        let history = match refused.is_empty() {
            true => History::default(),
            false => History::of(&batch.writes).map_err(EngineError::Damaged)?,
        };
        for (index, write) in batch.writes.iter().enumerate() {
            let table = write.change.table();
            let Some(key) = write.change.key().map_err(EngineError::Damaged)? else {
                let gone: Vec<Name> = self.parked.keys().filter(|(name, _)| name == table).cloned().collect();
                for name in gone {
                    self.forget(&name).await?;
                }
                continue;
            };
            let is_refused = refused.contains(&index);
            // The sink takes the parked row of an old key away with the row itself.
            if let Some(old) = write.change.old_key().map_err(EngineError::Damaged)? {
                self.forget(&(table.clone(), old)).await?;
            }
            let name = (table.clone(), key);
            if is_refused {
                let attempts = self.attempts(&name, write.offset);
                let version = history.version(&batch.writes, index).map_err(EngineError::Damaged)?;
                self.moved.retain(|(table, _), key| (table, &*key) != (&name.0, &name.1));
                if let Some(old) = version.old_key().map_err(EngineError::Damaged)? {
                    self.moved.insert((name.0.clone(), old.detached()), name.1.detached());
                }
                let name = (name.0, name.1.detached());
                self.parked.insert(name, Parked { offset: write.offset, attempts });
            } else if write.parked {
                self.forget(&name).await?;
            }
        }
        for name in &batch.unpark {
            self.forget(name).await?;
        }
        Ok(())
    }

    async fn forget(&mut self, name: &Name) -> Result<()> {
        if let Some(old) = self.parked.remove(name) {
            self.moved.retain(|(table, _), key| (table, &*key) != (&name.0, &name.1));
            self.queue.remove(&self.target, &name.0, &name.1, old.offset).await?;
        }
        Ok(())
    }

    /// Versions that are due and still the ones that wait. Superseded ones are dropped and counted by the caller.
    ///
    /// A version above the marker stands in the queue of a transaction that never committed. It stays there: the bus will
    /// bring it again, and what it was merged with may be nowhere else.
    pub async fn due(&mut self, limit: usize, marker: Option<Offset>) -> Result<(Vec<Deferred>, usize)> {
        let due = self.queue.due(&self.target, now_micros(), limit).await?;
        let (mut live, mut superseded) = (Vec::new(), 0);
        for deferred in due {
            let name = (deferred.change.table().clone(), deferred.key.clone());
            match self.parked.get_mut(&name) {
                Some(parked) if parked.offset == deferred.offset => {
                    parked.attempts = deferred.attempts;
                    live.push(deferred);
                }
                _ if Some(deferred.offset) > marker => {}
                Some(_) | None => {
                    superseded += 1;
                    self.queue.remove(&self.target, &name.0, &name.1, deferred.offset).await?;
                }
            }
        }
        Ok((live, superseded))
    }

    /// How long until the next retry; None when nothing waits for one.
    pub async fn until_next(&self) -> Result<Option<Duration>> {
        if self.parked.is_empty() {
            return Ok(None);
        }
        let due = self.queue.next_due(&self.target).await?;
        let until = |due: i64| Duration::from_micros(u64::try_from(due - now_micros()).unwrap_or(0));
        Ok(due.map(|due| until(due).max(SHORTEST_WAIT)))
    }

    /// How often this version of the key has been refused, this time included.
    fn attempts(&self, name: &(TableName, Key), offset: Offset) -> u32 {
        match self.parked.get(name) {
            Some(parked) if parked.offset == offset => parked.attempts + 1,
            Some(_) | None => 1,
        }
    }

    fn deferred(&self, batch: &WriteBatch, refused: &Refused, history: &History) -> Result<Option<Deferred>, Damaged> {
        let write = &batch.writes[refused.write];
        let Some(key) = write.change.key()? else { return Ok(None) };
        let change = history.version(&batch.writes, refused.write)?;
        let name = (write.change.table().clone(), key);
        let attempts = self.attempts(&name, write.offset);
        let delay = self.policy.delay(attempts);
        Ok(Some(Deferred {
            target: self.target.clone(),
            key: name.1,
            change,
            offset: write.offset,
            class: refused.class,
            reason: refused.reason.clone(),
            attempts,
            due: now_micros() + i64::try_from(delay.as_micros()).unwrap_or(i64::MAX / 2),
            dead: refused.class == ErrorClass::Poison || attempts >= self.policy.attempts,
        }))
    }
}

#[async_trait]
impl Parking for ParkingLot {
    async fn park(&self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        let history = History::of(&batch.writes).map_err(EngineError::Damaged)?;
        let mut deferred = Vec::with_capacity(refused.len());
        for one in refused {
            deferred.extend(self.deferred(batch, one, &history).map_err(EngineError::Damaged)?);
        }
        self.queue.defer(deferred).await
    }
}
