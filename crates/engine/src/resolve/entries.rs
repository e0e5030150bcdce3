//! The keys of which something is under way.

use super::key::RowKey;
use super::version::Entry;
use hashbrown::HashTable;
use hashbrown::hash_table;

/// Entries by the keys of their versions.
#[derive(Default)]
pub struct Entries {
    table: HashTable<Entry>,
}

impl Entries {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    pub fn get(&self, key: &RowKey) -> Option<&Entry> {
        self.table.find(key.hash(), |entry| entry.is_of(key))
    }

    pub fn get_mut(&mut self, key: &RowKey) -> Option<&mut Entry> {
        self.table.find_mut(key.hash(), |entry| entry.is_of(key))
    }

    pub fn remove(&mut self, key: &RowKey) -> Option<Entry> {
        self.table.find_entry(key.hash(), |entry| entry.is_of(key)).ok().map(|found| found.remove().0)
    }

    /// The place of a key, taken or not.
    pub fn place(&mut self, key: &RowKey) -> hash_table::Entry<'_, Entry> {
        self.table.entry(key.hash(), |entry| entry.is_of(key), Entry::hash)
    }

    /// Adds one whose key has none.
    pub fn put(&mut self, entry: Entry) {
        self.table.insert_unique(entry.hash(), entry, Entry::hash);
    }

    /// One of the entries with a hash that fits.
    pub fn find(&mut self, hash: u64, fits: impl Fn(&Entry) -> bool) -> Option<hash_table::OccupiedEntry<'_, Entry>> {
        self.table.find_entry(hash, |entry| entry.hash() == hash && fits(entry)).ok()
    }

    /// The entries with a hash: one, but for two keys that share it.
    pub fn all_of(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        self.table.iter_hash(hash).filter(move |entry| entry.hash() == hash)
    }
}
