//! A sink with rows, parked rows and marker in one 'transaction' of an in-memory database.

use super::MemoryError;
use super::database::{Fault, MemoryDatabase, RowName, State, Written};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::sink::{Applied, Marker, ParkedKey, Parking, Progress, Refused, Sink, WriteBatch};

pub(super) struct MemorySink {
    database: MemoryDatabase,
}

impl MemorySink {
    pub fn new(database: MemoryDatabase) -> Self {
        Self { database }
    }
}

fn lost() -> MemoryError {
    MemoryError::new(ErrorClass::Transient, "the connection to the target broke")
}

#[async_trait]
impl Sink for MemorySink {
    async fn take_over(&mut self, log: &str) -> Result<Progress> {
        self.database.pause().await;
        let (fault, progress) = self.database.shared.change(|state| {
            let fault = state.take_over_faults.pop_front();
            match fault {
                Some(Fault::BeforeCommit(_) | Fault::BeforeCommitAfterParking | Fault::Hang) => (fault, None),
                Some(Fault::AfterCommit | Fault::HangAfterCommit | Fault::Slow(_)) | None => {
                    (fault, Some(take_over(state, log)))
                }
            }
        });
        match (fault, progress) {
            (Some(Fault::Hang | Fault::HangAfterCommit), _) => std::future::pending().await,
            (Some(Fault::BeforeCommit(class)), _) => Err(MemoryError { class, ..lost() }.into()),
            (None, Some(progress)) => Ok(progress),
            (Some(Fault::Slow(time)), Some(progress)) => {
                tokio::time::sleep(time).await;
                Ok(progress)
            }
            (Some(Fault::BeforeCommitAfterParking | Fault::AfterCommit | Fault::Slow(_)) | None, _) => {
                Err(lost().into())
            }
        }
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        self.database.pause().await;
        let fault = self.database.shared.change(|state| state.sink_faults.pop_front());
        match fault {
            Some(Fault::BeforeCommit(class)) => return Err(MemoryError { class, ..lost() }.into()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::BeforeCommitAfterParking | Fault::AfterCommit | Fault::HangAfterCommit) | None => {}
        }
        let mut transaction = Transaction::over(&self.database.shared.lock());
        for (index, write) in batch.writes.iter().enumerate() {
            transaction.write(index, &write.change);
        }
        let keys: BTreeSet<&RowName> = transaction.written.iter().map(|(_, _, name, _)| name).collect();
        let mut applied = Applied { rows: keys.len() as u64, missing: transaction.missing, ..Applied::default() };
        applied.refused = transaction.refused.values().map(|refused| refused.reason.clone()).collect();
        applied.refused.sort_by_key(|refused| refused.write);
        if !applied.refused.is_empty() {
            parking.park(batch, &applied.refused).await?;
        }
        self.database.pause().await;
        if fault == Some(Fault::BeforeCommitAfterParking) {
            return Err(lost().into());
        }
        if let Some(flush) = parking.pending(batch) {
            flush.await?;
        }
        // invariant 2: one step for rows, parked rows and marker
        self.database.shared.change(|state| {
            if !is_expected(state.marker.as_ref(), &batch.expected) {
                return Err(MemoryError::new(ErrorClass::Superseded, "the marker was moved by another worker"));
            }
            transaction.commit(state, batch, &applied.refused);
            Ok(())
        })?;
        self.database.pause().await;
        match fault {
            Some(Fault::AfterCommit) => Err(lost().into()),
            Some(Fault::HangAfterCommit) => std::future::pending().await,
            Some(Fault::BeforeCommit(_) | Fault::BeforeCommitAfterParking | Fault::Hang | Fault::Slow(_)) | None => {
                Ok(applied)
            }
        }
    }
}

fn is_expected(there: Option<&Marker>, expected: &Marker) -> bool {
    there == Some(expected)
}

fn take_over(state: &mut State, log: &str) -> Progress {
    let new = || Marker { offset: None, log: log.to_owned(), digest: 0, epoch: 0, writes: 0 };
    let marker = state.marker.get_or_insert_with(new);
    marker.epoch += 1;
    marker.writes += 1;
    Progress { marker: marker.clone(), parked: state.parked.values().cloned().collect() }
}

/// A version that was refused in this transaction, and the key under which the target still has its row.
struct Refusal {
    reason: Refused,
    image: Option<Row>,
    still_at: Option<Key>,
}

/// What is not committed yet.
struct Transaction<'a> {
    rows: BTreeMap<RowName, Row>,
    refuse: super::database::Refuse,
    refused: HashMap<RowName, Refusal>,
    gone: Vec<RowName>,
    written: Vec<(usize, &'a Change, RowName, Option<Row>)>,
    missing: u64,
}

impl<'a> Transaction<'a> {
    fn over(state: &State) -> Self {
        Self {
            rows: state.rows.clone(),
            refuse: state.refuse.clone(),
            refused: HashMap::new(),
            gone: Vec::new(),
            written: Vec::new(),
            missing: 0,
        }
    }

    fn write(&mut self, index: usize, change: &'a Change) {
        let whole = "the engine hands over whole changes";
        let table = change.table().clone();
        let Some(key) = change.key().expect(whole) else {
            self.rows.retain(|(name, _), _| *name != table);
            self.refused.retain(|(name, _), _| *name != table);
            self.gone.push((table.clone(), Key::from_bytes(bytes::Bytes::new())));
            return;
        };
        let name = (table.clone(), key.clone());
        let old_key = change.old_key().expect(whole);
        let old = (table.clone(), old_key.clone().unwrap_or_else(|| key.clone()));
        // What an earlier change of this transaction was refused with goes into this one.
        let earlier = self.refused.remove(&old);
        if change.op != Op::Delete {
            let taken = self.refused.iter_mut().filter(|((name, _), _)| *name == table);
            taken.filter(|(_, refusal)| refusal.still_at.as_ref() == Some(&key)).for_each(|(_, r)| r.still_at = None);
        }
        let still_at = earlier.as_ref().and_then(|refusal| refusal.still_at.clone());
        let at = still_at.map_or_else(|| old.clone(), |key| (table.clone(), key));
        if change.op == Op::Delete {
            let found = self.rows.remove(&at).is_some();
            self.missing += u64::from(!found && earlier.is_none());
            self.written.push((index, change, name, None));
            return;
        }
        let after = change.after.as_ref().expect(whole);
        let base = earlier.as_ref().and_then(|refusal| refusal.image.clone()).or_else(|| self.rows.get(&at).cloned());
        let image = match &base {
            Some(base) => after.over(base).expect(whole),
            None => after.clone(),
        };
        let is_partial = image.is_partial().expect(whole);
        let class = if is_partial { Some(ErrorClass::Dependency) } else { (self.refuse)(&table, &image) };
        if old_key.is_some() {
            self.gone.push(old.clone());
        }
        if let Some(class) = class {
            let reason = if is_partial { "the row is not there" } else { "the table's rule refuses it" };
            let reason = Refused { write: index, class, reason: reason.to_owned() };
            let still_at = (at != name).then_some(at.1);
            self.refused.insert(name, Refusal { reason, image: Some(image), still_at });
            return;
        }
        if change.op == Op::Update && base.is_none() {
            self.missing += 1;
        }
        if at != name {
            self.rows.remove(&at);
            self.written.push((index, change, at, None));
        }
        self.rows.insert(name.clone(), image.clone());
        self.written.push((index, change, name, Some(image)));
    }

    fn commit(self, state: &mut State, batch: &WriteBatch, refused: &[Refused]) {
        state.transactions += 1;
        state.rows = self.rows;
        for (table, key) in self.gone {
            match key.as_bytes().is_empty() {
                true => state.parked.retain(|(name, _), _| *name != table),
                false => drop(state.parked.remove(&(table, key))),
            }
        }
        for (index, change, name, row) in self.written {
            if batch.writes[index].parked {
                state.parked.remove(&name);
            }
            let (table, key) = name;
            let (op, offset, transaction) = (change.op, batch.writes[index].offset, state.transactions);
            state.written.push(Written { table, key, op, row, offset, transaction });
        }
        batch.unpark.iter().for_each(|name| drop(state.parked.remove(name)));
        for one in refused {
            let write = &batch.writes[one.write];
            let table = write.change.table().clone();
            let Ok(Some(key)) = write.change.key() else { continue };
            let (offset, reason) = (write.offset, one.reason.clone());
            state.parked.insert((table.clone(), key.clone()), ParkedKey { table, key, offset, reason, seen: None });
        }
        state.marker = Some(batch.marker.clone());
    }
}
