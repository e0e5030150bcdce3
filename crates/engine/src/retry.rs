//! Parked keys: what a target has refused, until it takes it, a newer version does, or a person decides.
//!
//! A refused version is durable in the retry queue before the target's transaction commits, and its key stands in
//! `sync_worker.parked` by that transaction (invariant 2). A newer version of the key is tried at once and replaces it;
//! a retry whose parked row has gone or is another's is dropped (invariant 5).
//!
//! Two-way, versions that are tried again take others of their tables along, before their time: a unique value may have gone
//! round among their rows, and none of them can be written without the others.
//!
//! A refused change of key leaves the row at the target under its old key. The parked version remembers that one, so that
//! whatever comes next for the new key takes the old row with it.

use crate::clock::now_micros;
use crate::failure::{EngineError, timed};
use crate::resolve::entry;
use crate::resolve::version::Expectations;
use crate::version::{History, merged, stay};
use async_trait::async_trait;
use rand::Rng;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::bus::{Durability, Flush};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::Scope;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::ledger::{BY_WORKER, Conflict, Ledger, Settled};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Applied, ParkedKey, Parking, Refused, Write, WriteBatch};
use sync_worker_core::store::{Deferred, Name, RetryQueue, TargetId};
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

/// One-way, keys that failed together do not come back together. Two-way they do: one may wait for another.
const JITTER: f64 = 0.2;

/// A version that is due and can't be tried yet is looked at again after this.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// How long a target's transaction is kept open for the log's flush: less than a target is waited for.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// Versions of each kind that are looked through when a target is taken over.
const PURGED_AT_A_TIME: usize = 10_000;

impl RetryPolicy {
    fn delay(&self, attempts: u32) -> Duration {
        self.first_delay.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(self.longest_delay)
    }
}

/// Keys whose versions are asked for in one look at the queue.
const ASKED_AT_A_TIME: usize = 1_000;

fn version(deferred: &Deferred) -> (Name, Offset) {
    ((deferred.change.table().clone(), deferred.key.clone()), deferred.offset)
}

/// The keys parked at one target, and the queue behind them.
pub struct ParkingLot {
    pub target: TargetId,
    pub queue: Arc<dyn RetryQueue>,
    pub policy: RetryPolicy,
    /// Of the records that the writes are made of.
    durability: Arc<dyn Durability>,
    /// As the target's own rows say.
    parked: HashMap<Name, Parked>,
    /// Where the target still has the row of a parked key: old name to parked key.
    moved: HashMap<Name, Key>,
    /// Two-way, what is refused for good is on record.
    ledger: Option<Arc<dyn Ledger>>,
    /// Tables of which other versions are parked than when all that wait were tried last.
    changed: HashSet<TableName>,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    offset: Offset,
    /// Of this very version.
    attempts: u32,
    /// What was there, where the row was none that it may be written over: then nothing waits in the queue.
    seen: Option<Image>,
    /// An entry of the ledger may be open about it: it is a dead letter, or was one before it was tried again.
    on_record: bool,
    /// It is tried before its time, which stays.
    due: Option<i64>,
}

impl ParkingLot {
    pub fn new(
        target: TargetId,
        queue: Arc<dyn RetryQueue>,
        policy: RetryPolicy,
        durability: Arc<dyn Durability>,
    ) -> Self {
        Self {
            target,
            queue,
            policy,
            durability,
            parked: HashMap::new(),
            moved: HashMap::new(),
            ledger: None,
            changed: HashSet::new(),
        }
    }

    pub fn with_ledger(self, ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Takes what the target says is parked, and removes from the queue what is not: a version whose transaction was
    /// lost, and which the target took when it came again.
    /// Returns how many refusals are new on record: an earlier life may have ended before it came to that.
    pub async fn reset(&mut self, keys: &[ParkedKey], marker: Option<Offset>) -> Result<usize> {
        self.parked.clear();
        self.moved.clear();
        let mut recorded = 0;
        for keys in keys.chunks(ASKED_AT_A_TIME) {
            let names: Vec<Name> = keys.iter().map(|parked| (parked.table.clone(), parked.key.clone())).collect();
            let parked = keys.iter().map(|parked| Parked {
                offset: parked.offset,
                attempts: 0,
                seen: parked.seen,
                on_record: true,
                due: None,
            });
            self.changed.extend(names.iter().map(|(table, _)| table.clone()));
            self.parked.extend(names.iter().cloned().zip(parked));
            let mut refusals = Vec::new();
            for waiting in self.queue.get(&self.target, &names).await? {
                if waiting.dead && self.ledger.is_some() && self.is_parked(&waiting) {
                    let Deferred { offset, key, change, .. } = &waiting;
                    refusals.push(entry::refused(&self.target, *offset, key, change, now_micros()));
                }
                if let Some(old) = waiting.change.old_key().map_err(EngineError::Damaged)? {
                    self.moved.insert((waiting.change.table().clone(), old.detached()), waiting.key);
                }
            }
            recorded += self.record(refusals).await?;
        }
        for dead in [true, false] {
            let waiting = self.queue.list(&self.target, dead, PURGED_AT_A_TIME).await?;
            self.purge(&waiting, marker).await?;
        }
        Ok(recorded)
    }

    /// Removes versions from the queue that are not parked at the target. One above the marker stays: see [`Self::due`].
    pub async fn purge(&self, waiting: &[Deferred], marker: Option<Offset>) -> Result<()> {
        let left_over = |one: &&Deferred| Some(one.offset) <= marker && !self.is_parked(one);
        let (mut versions, mut dead) = (Vec::new(), Vec::new());
        for one in waiting.iter().filter(left_over) {
            let version = version(one);
            // Where another version of the key is parked, that one's end closes what is open.
            dead.extend((one.dead && !self.parked.contains_key(&version.0)).then(|| version.0.clone()));
            versions.push(version);
        }
        self.close(&dead, BY_WORKER).await?;
        if !versions.is_empty() {
            self.queue.remove(&self.target, &versions).await?;
        }
        Ok(())
    }

    /// Puts versions that are refused for good on record. How many are new there.
    async fn record(&self, refusals: Vec<Conflict>) -> Result<usize> {
        match &self.ledger {
            Some(ledger) if !refusals.is_empty() => Ok(ledger.record(refusals).await?.len()),
            Some(_) | None => Ok(0),
        }
    }

    /// Closes the entries about dead letters of these keys.
    async fn close(&self, names: &[Name], by: &str) -> Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let mut tables: HashMap<&TableName, Vec<Key>> = HashMap::new();
        for (table, key) in names {
            tables.entry(table).or_default().push(key.clone());
        }
        for (table, keys) in tables {
            let settled = Settled::Refused { keys, at: self.target.database.clone() };
            ledger.close(&self.target.pipeline, table, &settled, by, now_micros()).await?;
        }
        Ok(())
    }

    /// Waits until all records up to this one are durable.
    pub async fn flushed(&self, offset: Offset) -> Result<()> {
        match self.durability.pending(offset) {
            Some(flush) => timed("the log", FLUSH_PATIENCE, flush).await,
            None => Ok(()),
        }
    }

    pub fn len(&self) -> usize {
        self.parked.len()
    }

    /// The parked keys whose tables are not among these.
    pub fn of_others(&self, scope: &Scope) -> Vec<Name> {
        let is_other = |(table, _): &&Name| !scope.tables.iter().any(|at| at.table == *table);
        self.parked.keys().filter(is_other).cloned().collect()
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
        let mut waiting = self.waiting(writes).await?;
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
                && let Some(waiting) = waiting.get(&name).cloned()
            {
                let moved = waiting.old_key().map_err(EngineError::Damaged)?.is_some();
                if write.change.op == Op::Delete && moved {
                    let change = Change { op: Op::Delete, after: None, ..waiting };
                    added.push((index, Write { change, offset: write.offset, parked: false, over: None }));
                } else {
                    write.change = merged(&waiting, &write.change).map_err(EngineError::Damaged)?;
                    if moved && name != new {
                        unpark.push(name.clone());
                    }
                }
            }
            if let Some(other) = self.settle_elsewhere(&new).await? {
                let name = (other.change.table().clone(), other.key);
                waiting.insert(name, other.change);
            }
            met.extend([name, new]);
        }
        for (index, write) in added.into_iter().rev() {
            writes.insert(index, write);
        }
        Ok(unpark)
    }

    /// The same two-way: what a write may be written over takes the place of what an older one left. Of the keys that keep
    /// what they have, returns those whose parked rows go.
    pub fn prepare_guarded(&self, writes: &mut [Write], over: Vec<Expectations>, keep: Vec<Name>) -> Result<Vec<Name>> {
        for (write, over) in writes.iter_mut().zip(over) {
            let parked = match self.parked.is_empty() {
                true => None,
                false => {
                    let key = write.change.key().map_err(EngineError::Damaged)?;
                    let key = key.ok_or(Damaged("a guarded write without a key")).map_err(EngineError::Damaged)?;
                    self.parked.get(&(write.change.table().clone(), key))
                }
            };
            write.parked = parked.is_some();
            let image = |expected| match expected {
                Expected::Image(image) => Some(image),
                Expected::Seen(offset) => parked.filter(|parked| parked.offset == offset)?.seen,
            };
            write.over = Some(over.into_iter().filter_map(image).collect());
        }
        Ok(keep.into_iter().filter(|name| self.parked.contains_key(name)).collect())
    }

    /// What waits for the keys that these writes find parked, in one look.
    async fn waiting(&self, writes: &[Write]) -> Result<HashMap<Name, Change>> {
        let mut names = HashSet::new();
        for write in writes {
            let Some(key) = write.change.key().map_err(EngineError::Damaged)? else { continue };
            let old = write.change.old_key().map_err(EngineError::Damaged)?;
            let name = (write.change.table().clone(), old.unwrap_or(key));
            if self.parked.contains_key(&name) {
                names.insert(name);
            }
        }
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names: Vec<Name> = names.into_iter().collect();
        let found = self.queue.get(&self.target, &names).await?;
        Ok(found.into_iter().map(|one| ((one.change.table().clone(), one.key), one.change)).collect())
    }

    /// Another row comes under the old key of a parked version: that version is no longer about the row there. Returns it
    /// as it is now.
    async fn settle_elsewhere(&mut self, name: &Name) -> Result<Option<Deferred>> {
        let Some(key) = self.moved.remove(name) else { return Ok(None) };
        let mut found = self.queue.get(&self.target, &[(name.0.clone(), key)]).await?;
        if let Some(waiting) = found.first_mut() {
            stay(&mut waiting.change);
            self.queue.defer(vec![waiting.clone()]).await?;
        }
        Ok(found.pop())
    }

    /// Follows what a committed batch did. The queue forgets versions that were written or replaced, and `by` closes what is
    /// open about them. How many refusals are new on record.
    pub async fn settle(&mut self, batch: &WriteBatch, applied: &Applied, by: &str) -> Result<usize> {
        let (refused, differing) = (&applied.refused, &applied.differing);
        if self.parked.is_empty() && refused.is_empty() && differing.is_empty() {
            return Ok(0);
        }
        let (mut gone, mut no_more, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let differing: HashMap<usize, Image> = differing.iter().map(|(write, seen)| (*write, seen.image)).collect();
        let refused: HashMap<usize, ErrorClass> = refused.iter().map(|one| (one.write, one.class)).collect();
        let history = match refused.is_empty() {
            true => History::default(),
            false => History::of(&batch.writes).map_err(EngineError::Damaged)?,
        };
        for (index, write) in batch.writes.iter().enumerate() {
            let table = write.change.table();
            let Some(key) = write.change.key().map_err(EngineError::Damaged)? else {
                let emptied: Vec<Name> = self.parked.keys().filter(|(name, _)| name == table).cloned().collect();
                gone.extend(emptied.into_iter().filter_map(|name| self.forget(name)));
                continue;
            };
            // The sink takes the parked row of an old key away with the row itself.
            if let Some(old) = write.change.old_key().map_err(EngineError::Damaged)? {
                gone.extend(self.forget((table.clone(), old)));
            }
            let name = (table.clone(), key);
            if let Some(seen) = differing.get(&index) {
                gone.extend(self.forget(name.clone()));
                let parked =
                    Parked { offset: write.offset, attempts: 0, seen: Some(*seen), on_record: false, due: None };
                self.parked.insert((name.0, name.1.detached()), parked);
            } else if let Some(class) = refused.get(&index) {
                let attempts = self.attempts(&name, write.offset);
                let version = history.version(&batch.writes, index).map_err(EngineError::Damaged)?;
                self.moved.retain(|(table, _), key| (table, &*key) != (&name.0, &name.1));
                if let Some(old) = version.old_key().map_err(EngineError::Damaged)? {
                    self.moved.insert((name.0.clone(), old.detached()), name.1.detached());
                }
                let name = (name.0, name.1.detached());
                let dead = self.is_dead(*class, attempts);
                if dead && self.ledger.is_some() {
                    refusals.push(entry::refused(&self.target, write.offset, &name.1, &version, now_micros()));
                }
                let replaced = self.parked.remove(&name);
                if replaced.is_none_or(|old| old.offset != write.offset) {
                    self.changed.insert(name.0.clone());
                }
                let same = replaced.is_some_and(|old| old.offset == write.offset && old.on_record);
                // The queue has put a newer version in the place of the older one.
                no_more.extend(replaced.filter(|old| old.on_record && !same).map(|_| name.clone()));
                let parked = Parked { offset: write.offset, attempts, seen: None, on_record: dead || same, due: None };
                self.parked.insert(name, parked);
            } else if write.parked {
                gone.extend(self.forget(name));
            }
        }
        gone.extend(batch.unpark.iter().filter_map(|name| self.forget(name.clone())));
        no_more.extend(gone.iter().filter(|(_, parked)| parked.on_record).map(|(name, _)| name.clone()));
        self.close(&no_more, by).await?;
        if !gone.is_empty() {
            let versions: Vec<_> = gone.into_iter().map(|(name, parked)| (name, parked.offset)).collect();
            self.queue.remove(&self.target, &versions).await?;
        }
        self.record(refusals).await
    }

    /// The version that is to go from the queue with it.
    fn forget(&mut self, name: Name) -> Option<(Name, Parked)> {
        let old = self.parked.remove(&name)?;
        self.changed.insert(name.0.clone());
        self.moved.retain(|(table, _), key| (table, &*key) != (&name.0, &name.1));
        Some((name, old))
    }

    /// Whether a version that was refused like that, so many times, is tried no more by itself.
    fn is_dead(&self, class: ErrorClass, attempts: u32) -> bool {
        class == ErrorClass::Poison || attempts >= self.policy.attempts
    }

    /// Versions that are due and still the ones that wait. Superseded ones are dropped and counted by the caller.
    ///
    /// A version above the marker stands in the queue of a transaction that never committed. It stays there: the bus will
    /// bring it again, and what it was merged with may be nowhere else.
    pub async fn due(&mut self, limit: usize, marker: Option<Offset>) -> Result<(Vec<Deferred>, usize)> {
        let due = self.queue.due(&self.target, now_micros(), limit).await?;
        let (mut live, mut superseded) = (Vec::new(), Vec::new());
        for deferred in due {
            let name = (deferred.change.table().clone(), deferred.key.clone());
            match self.parked.get_mut(&name) {
                Some(parked) if parked.offset == deferred.offset => {
                    parked.attempts = deferred.attempts;
                    live.push(deferred);
                }
                _ if Some(deferred.offset) > marker => {}
                Some(_) | None => superseded.push((name, deferred.offset)),
            }
        }
        if !superseded.is_empty() {
            let gone = superseded.iter().map(|(name, _)| name).filter(|name| !self.parked.contains_key(name));
            self.close(&gone.cloned().collect::<Vec<_>>(), BY_WORKER).await?;
            self.queue.remove(&self.target, &superseded).await?;
        }
        Ok((live, superseded.len()))
    }

    /// Others that wait for the tables of these, dead letters among them, the oldest of each table, at most so many; none where
    /// nothing has changed in a table since they were tried. Being tried with these is no attempt of their own.
    pub async fn along(&mut self, tried: &[Deferred], limit: usize) -> Result<Vec<Deferred>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let names: HashSet<(&TableName, &Key)> = tried.iter().map(|one| (one.change.table(), &one.key)).collect();
        let mut others: HashMap<&TableName, Vec<(Offset, &Name)>> = names
            .iter()
            .filter(|(table, _)| self.changed.contains(*table))
            .map(|(table, _)| (*table, Vec::new()))
            .collect();
        for (name, parked) in self.parked.iter().filter(|(_, parked)| parked.seen.is_none()) {
            if let Some(of_table) = others.get_mut(&name.0)
                && !names.contains(&(&name.0, &name.1))
            {
                of_table.push((parked.offset, name));
            }
        }
        let mut asked: Vec<Name> = Vec::new();
        for mut of_table in others.into_values() {
            of_table.sort_unstable_by_key(|(offset, _)| *offset);
            asked.extend(of_table.into_iter().take(limit).map(|(_, name)| name.clone()));
        }
        asked.truncate(limit);
        self.changed.retain(|table| !tried.iter().any(|one| one.change.table() == table));
        let mut along = self.queue.get(&self.target, &asked).await?;
        along.retain(|one| one.class != ErrorClass::Poison && self.is_parked(one));
        for one in &along {
            if let Some(parked) = self.parked.get_mut(&version(one).0) {
                parked.attempts = one.attempts.saturating_sub(1);
                parked.due = Some(one.due);
            }
        }
        Ok(along)
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

    fn deferred(
        &self,
        batch: &WriteBatch,
        refused: &Refused,
        history: &History,
        now: i64,
    ) -> Result<Option<Deferred>, Damaged> {
        let write = &batch.writes[refused.write];
        let Some(key) = write.change.key()? else { return Ok(None) };
        let change = history.version(&batch.writes, refused.write)?;
        let name = (write.change.table().clone(), key);
        let attempts = self.attempts(&name, write.offset);
        let jitter = match self.ledger {
            Some(_) => 1.0,
            None => rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER),
        };
        let delay = self.policy.delay(attempts).mul_f64(jitter);
        let after = || now + i64::try_from(delay.as_micros()).unwrap_or(i64::MAX / 2);
        let same = self.parked.get(&name).filter(|parked| parked.offset == write.offset);
        let due = same.and_then(|parked| parked.due).unwrap_or_else(after);
        Ok(Some(Deferred {
            target: self.target.clone(),
            key: name.1,
            change,
            over: write.over.clone(),
            offset: write.offset,
            class: refused.class,
            reason: refused.reason.clone(),
            attempts,
            due,
            dead: self.is_dead(refused.class, attempts),
        }))
    }
}

#[async_trait]
impl Parking for ParkingLot {
    fn pending(&self, batch: &WriteBatch) -> Option<Flush> {
        let flush = batch.marker.offset.and_then(|offset| self.durability.pending(offset))?;
        Some(Box::pin(timed("the log", FLUSH_PATIENCE, flush)))
    }

    async fn park(&self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        // What waits for a retry outlives the log's tail: it must not be about a record that gets lost.
        if let Some(flush) = self.pending(batch) {
            flush.await?;
        }
        let (history, now) = (History::of(&batch.writes).map_err(EngineError::Damaged)?, now_micros());
        let mut deferred = Vec::with_capacity(refused.len());
        for one in refused {
            deferred.extend(self.deferred(batch, one, &history, now).map_err(EngineError::Damaged)?);
        }
        self.queue.defer(deferred).await
    }
}
