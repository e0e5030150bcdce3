//! Writing rows and the one commit point.

use std::sync::Arc;

use bson::{DateTime, RawDocument};

use super::clock::Time;
use super::index;
use super::namespace::Namespace;
use super::oplog::{Change, Entry, TransactionId};
use super::record::{Record, encode_entry};
use super::store::Store;
use super::transaction::Transaction;
use crate::failure::{Failure, Stop};
use crate::value::Shared;
use crate::value::order::Key;

/// What a whole transaction may write before it is too large for this stand-in.
const TRANSACTION_LIMIT: usize = 1 << 30;

impl Store {
    /// Whether a plain write to any of the rows has to wait for an open transaction.
    pub fn is_held(&self, namespace: &Namespace, keys: impl IntoIterator<Item = Key>) -> bool {
        keys.into_iter().any(|key| self.holds.row(namespace, &key).is_some())
    }

    /// Writes one row: at once, or into the transaction.
    pub fn write(
        &mut self,
        transaction: Option<&mut Transaction>,
        namespace: &Namespace,
        change: Change,
    ) -> Result<(), Stop> {
        match transaction {
            None => self.write_now(namespace, change),
            Some(transaction) => self.write_in(transaction, namespace, change).map_err(Stop::from),
        }
    }

    fn write_now(&mut self, namespace: &Namespace, change: Change) -> Result<(), Stop> {
        let Some((key, after)) = change.row() else { return Ok(()) };
        if self.holds.row(namespace, key).is_some() {
            return Err(Stop::Waits);
        }
        let collection = self.collections.get(namespace).ok_or_else(|| missing(namespace))?;
        if matches!(change, Change::Insert { .. }) && collection.rows.get(key, None).is_some() {
            return Err(index::duplicate_id(namespace, key).into());
        }
        if let Some(after) = after {
            for index in collection.indexes.iter().filter(|index| index.unique) {
                for entry in index.keys(after) {
                    if index.holder(&entry).is_some_and(|holder| holder != key) {
                        return Err(index.duplicate(namespace, &entry).into());
                    }
                    if self.holds.unique(namespace, &index.name, &entry).is_some() {
                        return Err(Stop::Waits);
                    }
                }
            }
        }
        Ok(self.commit(None, vec![(namespace.clone(), change)])?)
    }

    fn write_in(
        &mut self,
        transaction: &mut Transaction,
        namespace: &Namespace,
        change: Change,
    ) -> Result<(), Failure> {
        let Some((key, after)) = change.row() else { return Ok(()) };
        let collection = self.collections.get(namespace).ok_or_else(|| missing(namespace))?;
        let held_by_us = match self.holds.row(namespace, key) {
            Some(holder) if !Arc::ptr_eq(holder, &transaction.id) => return Err(Failure::write_conflict()),
            holder => holder.is_some(),
        };
        if !held_by_us && collection.rows.changed_at(key) > transaction.read_at {
            return Err(Failure::write_conflict());
        }
        if matches!(change, Change::Insert { .. }) {
            let own = transaction.own(namespace).and_then(|own| own.get(key));
            let exists = own.map_or_else(|| collection.rows.get(key, None).is_some(), Option::is_some);
            if exists {
                return Err(index::duplicate_id(namespace, key));
            }
        }
        let mut unique = Vec::new();
        for index in collection.indexes.iter().filter(|index| index.unique) {
            for entry in after.map(|after| index.keys(after)).unwrap_or_default() {
                let own = transaction.own(namespace);
                // A row that this transaction has changed no longer stands for its committed values.
                let committed = index.holder(&entry).filter(|holder| *holder != key);
                if committed.is_some_and(|holder| own.is_none_or(|own| !own.contains_key(holder))) {
                    return Err(index.duplicate(namespace, &entry));
                }
                match self.holds.unique(namespace, &index.name, &entry) {
                    Some(holder) if !Arc::ptr_eq(holder, &transaction.id) => return Err(Failure::write_conflict()),
                    // A row of this transaction has it, or had it. Only then are they looked through.
                    Some(_) => {
                        let has = |row: &Shared| index.keys(row).contains(&entry);
                        let mut others = own.into_iter().flatten().filter(|(other, _)| *other != key);
                        if others.any(|(_, row)| row.as_ref().is_some_and(has)) {
                            return Err(index.duplicate(namespace, &entry));
                        }
                    }
                    None => {}
                }
                unique.push((index.name.clone(), entry));
            }
        }
        self.holds.take_row(namespace, key, &transaction.id);
        for (index, entry) in unique {
            self.holds.take_unique(namespace, &index, entry, &transaction.id);
        }
        transaction.add(namespace, change);
        if transaction.bytes > TRANSACTION_LIMIT {
            return Err(Failure::new(257, "Total size of all transaction operations is too large"));
        }
        Ok(())
    }

    pub fn commit_transaction(&mut self, transaction: &mut Transaction) -> Result<(), Failure> {
        if transaction.changes.iter().any(|(namespace, _)| !self.collections.contains_key(namespace)) {
            return Err(Failure::write_conflict());
        }
        self.holds.release(transaction);
        self.changes += 1;
        let changes = std::mem::take(&mut transaction.changes);
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(Some(transaction.id.clone()), changes)
    }

    pub fn abort_transaction(&mut self, transaction: &Transaction) {
        self.holds.release(transaction);
        self.changes += 1;
    }

    /// The one commit point: all changes get one time, go to the journal and the oplog, and are applied.
    pub(super) fn commit(
        &mut self,
        transaction: Option<Arc<TransactionId>>,
        changes: Vec<(Namespace, Change)>,
    ) -> Result<(), Failure> {
        let (time, wall) = (self.clock.tick(), DateTime::now());
        for (ordinal, (namespace, change)) in changes.into_iter().enumerate() {
            let collection = self.collections.get(&namespace);
            let entry = Entry {
                time,
                ordinal: ordinal as u32,
                wall,
                collection: collection.map(|collection| collection.uuid.clone()),
                images: collection.is_some_and(|collection| collection.images),
                namespace,
                transaction: transaction.clone(),
                change,
            };
            self.apply_new(entry)?;
        }
        if self.oplog.is_too_long() {
            self.truncate_oplog(self.oplog.limit());
        }
        Ok(())
    }

    /// A new entry: applied, then written to the journal as it was applied.
    fn apply_new(&mut self, entry: Entry) -> Result<(), Failure> {
        let entry = self.apply(entry)?;
        if let Some(journal) = &mut self.journal {
            journal.add(&encode_entry(&entry));
        }
        Ok(())
    }

    /// Applies an entry to the collections and appends it to the oplog.
    pub(super) fn apply(&mut self, mut entry: Entry) -> Result<Arc<Entry>, Failure> {
        self.clock.observe(entry.time);
        match entry.change.row() {
            Some((key, after)) => {
                let collection = self.collections.get_mut(&entry.namespace).ok_or_else(|| missing(&entry.namespace))?;
                let before = collection.put(key, entry.time, after.cloned());
                entry.change.set_before(before);
            }
            None => self.apply_to_catalog(&mut entry)?,
        }
        let entry = Arc::new(entry);
        self.oplog.push(entry.clone());
        self.changes += 1;
        Ok(entry)
    }

    /// Writes a row that no oplog entry tells about, behind the back of whoever captures changes.
    pub fn write_behind(&mut self, namespace: &Namespace, key: Key, row: Option<&RawDocument>) -> Result<(), Failure> {
        let time: Time = self.clock.tick();
        let row: Option<Shared> = row.map(|row| Arc::new(row.to_owned()));
        let collection = self.collections.get_mut(namespace).ok_or_else(|| missing(namespace))?;
        collection.put(&key, time, row.clone());
        self.record(&Record::Behind { time, namespace: namespace.clone(), key, row });
        Ok(())
    }
}

pub fn missing(namespace: &Namespace) -> Failure {
    Failure::new(crate::failure::code::NAMESPACE_NOT_FOUND, format!("ns does not exist: {namespace}"))
}
