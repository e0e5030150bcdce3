//! Multi-document transactions: what one has written so far, and which rows open transactions hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::clock::Time;
use super::namespace::Namespace;
use super::oplog::{Change, TransactionId};
use super::rows::Own;
use crate::value::order::Key;

#[derive(Debug)]
pub struct Transaction {
    pub id: Arc<TransactionId>,
    /// The snapshot that it reads.
    pub read_at: Time,
    /// When it is aborted for its age.
    pub expires: Instant,
    own: HashMap<Namespace, Own>,
    /// In the order of the writes; they get one time at the commit.
    pub changes: Vec<(Namespace, Change)>,
    pub bytes: usize,
}

impl Transaction {
    pub fn new(id: TransactionId, read_at: Time, expires: Instant) -> Self {
        Self { id: Arc::new(id), read_at, expires, own: HashMap::new(), changes: Vec::new(), bytes: 0 }
    }

    pub fn own(&self, namespace: &Namespace) -> Option<&Own> {
        self.own.get(namespace)
    }

    pub fn add(&mut self, namespace: &Namespace, change: Change) {
        if let Some((key, after)) = change.row() {
            self.bytes += after.map_or(64, |after| after.as_bytes().len());
            self.own.entry(namespace.clone()).or_default().insert(key.clone(), after.cloned());
        }
        self.changes.push((namespace.clone(), change));
    }
}

/// Who holds a row or a unique value until its transaction ends, by session.
#[derive(Debug, Default)]
pub struct Holds {
    rows: HashMap<Namespace, BTreeMap<Key, Arc<TransactionId>>>,
    unique: HashMap<(Namespace, String), BTreeMap<Key, Arc<TransactionId>>>,
}

impl Holds {
    pub fn row(&self, namespace: &Namespace, key: &Key) -> Option<&Arc<TransactionId>> {
        self.rows.get(namespace)?.get(key)
    }

    pub fn unique(&self, namespace: &Namespace, index: &str, key: &Key) -> Option<&Arc<TransactionId>> {
        if self.unique.is_empty() {
            return None;
        }
        self.unique.get(&(namespace.clone(), index.to_owned()))?.get(key)
    }

    pub fn take_row(&mut self, namespace: &Namespace, key: &Key, by: &Arc<TransactionId>) {
        self.rows.entry(namespace.clone()).or_default().insert(key.clone(), by.clone());
    }

    pub fn take_unique(&mut self, namespace: &Namespace, index: &str, key: Key, by: &Arc<TransactionId>) {
        self.unique.entry((namespace.clone(), index.to_owned())).or_default().insert(key, by.clone());
    }

    pub fn release(&mut self, transaction: &Transaction) {
        for (namespace, change) in &transaction.changes {
            if let (Some((key, _)), Some(rows)) = (change.row(), self.rows.get_mut(namespace)) {
                rows.remove(key);
            }
        }
        self.rows.retain(|_, rows| !rows.is_empty());
        for keys in self.unique.values_mut() {
            keys.retain(|_, holder| !Arc::ptr_eq(holder, &transaction.id));
        }
        self.unique.retain(|_, keys| !keys.is_empty());
    }
}
