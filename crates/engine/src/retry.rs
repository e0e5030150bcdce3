//! Parked keys: what a target has refused, until it takes it, a newer version does, or a person decides.
//!
//! A refused version is durable in the retry queue before the target's transaction commits, and its key stands in
//! `sync_worker.parked` by that transaction (invariant 2). A newer version of the key is tried at once and replaces it;
//! a retry whose parked row has gone or is another's is dropped (invariant 5).

use crate::clock::now_micros;
use async_trait::async_trait;
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Parking, Refused, Write, WriteBatch};
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

impl RetryPolicy {
    fn delay(&self, attempts: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.longest_delay).mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER))
    }
}

/// The keys parked at one target, and the queue behind them.
pub struct ParkingLot {
    pub target: TargetId,
    pub queue: Arc<dyn RetryQueue>,
    pub policy: RetryPolicy,
    /// As the target's own rows say.
    parked: HashMap<(TableName, Key), Parked>,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    offset: Offset,
    /// Of this very version.
    attempts: u32,
}

impl ParkingLot {
    pub fn new(target: TargetId, queue: Arc<dyn RetryQueue>, policy: RetryPolicy) -> Self {
        Self { target, queue, policy, parked: HashMap::new() }
    }

    /// Takes what the target says is parked.
    pub fn reset(&mut self, keys: Vec<sync_worker_core::sink::ParkedKey>) {
        let parked =
            |key: sync_worker_core::sink::ParkedKey| ((key.table, key.key), Parked { offset: key.offset, attempts: 0 });
        self.parked = keys.into_iter().map(parked).collect();
    }

    pub fn len(&self) -> usize {
        self.parked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Marks the writes whose keys are parked and fills what they leave unchanged from the version that waits: the
    /// target never took that one.
    pub async fn prepare(&self, writes: &mut [Write]) -> Result<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        for write in writes {
            let Some(key) = write.change.key().map_err(crate::failure::EngineError::Damaged)? else { continue };
            let name = (write.change.table().clone(), key);
            if !self.parked.contains_key(&name) {
                continue;
            }
            write.parked = true;
            if let Some(waiting) = self.queue.get(&self.target, &name.0, &name.1).await? {
                write.change = merged(&waiting.change, &write.change).map_err(crate::failure::EngineError::Damaged)?;
            }
        }
        Ok(())
    }

    /// Follows what a committed batch did. The queue forgets versions that were written or replaced.
    pub async fn settle(&mut self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        if self.parked.is_empty() && refused.is_empty() {
            return Ok(());
        }
        for (index, write) in batch.writes.iter().enumerate() {
            let refusal = refused.iter().find(|refused| refused.write == index);
            if !write.parked && refusal.is_none() {
                continue;
            }
            let Some(key) = write.change.key().map_err(crate::failure::EngineError::Damaged)? else { continue };
            let name = (write.change.table().clone(), key);
            if refusal.is_some() {
                let attempts = self.attempts(&name, write.offset);
                self.parked.insert(name, Parked { offset: write.offset, attempts });
            } else if let Some(old) = self.parked.remove(&name) {
                self.queue.remove(&self.target, &name.0, &name.1, old.offset).await?;
            }
        }
        for (table, key) in &batch.unpark {
            if let Some(old) = self.parked.remove(&(table.clone(), key.clone())) {
                self.queue.remove(&self.target, table, key, old.offset).await?;
            }
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

    fn deferred(&self, batch: &WriteBatch, refused: &Refused) -> Result<Option<Deferred>, Damaged> {
        let write = &batch.writes[refused.write];
        let Some(key) = write.change.key()? else { return Ok(None) };
        let table = write.change.table().clone();
        let mut change = write.change.clone();
        // Earlier writes of the key in this batch were refused with it.
        for earlier in batch.writes[..refused.write].iter().rev() {
            if *earlier.change.table() == table && earlier.change.key()?.as_ref() == Some(&key) {
                change = merged(&earlier.change, &change)?;
            }
        }
        let name = (table, key);
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
        let mut deferred = Vec::with_capacity(refused.len());
        for one in refused {
            deferred.extend(self.deferred(batch, one).map_err(crate::failure::EngineError::Damaged)?);
        }
        self.queue.defer(deferred).await
    }
}

/// The newer change as it must be written where the older one never arrived.
fn merged(older: &Change, newer: &Change) -> Result<Change, Damaged> {
    let (Some(old), Some(new)) = (&older.after, &newer.after) else { return Ok(newer.clone()) };
    if older.schema.id != newer.schema.id {
        return Ok(newer.clone());
    }
    let after = Some(new.over(old)?);
    // A row that was never inserted has nothing to update.
    let op = match (older.op, newer.op) {
        (Op::Create | Op::Read, Op::Update) => Op::Create,
        (_, op) => op,
    };
    let before = if op == Op::Create { None } else { newer.before.clone().or_else(|| older.before.clone()) };
    Ok(Change { schema: newer.schema.clone(), op, before, after })
}
