//! The keys of which something is under way: in memory, and on disk beyond that.

use super::checkpoint::put_entry;
use super::key::RowKey;
use super::spill::{Spill, SpillError};
use super::version::Entry;
use bytes::BytesMut;
use hashbrown::HashTable;
use hashbrown::hash_table;
use std::path::PathBuf;

/// Entries by the keys of their versions.
///
/// Whoever looks for a key [fetches](Self::fetch) its hash first, and lets it [settle](Self::settle) afterwards.
#[derive(Default)]
pub struct Entries {
    table: HashTable<Entry>,
    spill: Option<Spill>,
    /// Entries that memory is for.
    limit: usize,
    /// Something could not be read back: nothing that was decided since counts.
    failed: Option<SpillError>,
}

impl Entries {
    /// Beyond `limit` in memory, entries go to files in this folder.
    pub fn spill_to(&mut self, folder: PathBuf, limit: usize) {
        (self.spill, self.limit) = (Some(Spill::new(folder)), limit);
    }

    pub fn len(&self) -> usize {
        self.table.len() + self.spilled()
    }

    /// Those on disk.
    pub fn spilled(&self) -> usize {
        self.spill.as_ref().map_or(0, Spill::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends all of them as they stand in checkpoints.
    pub fn encode(&mut self, out: &mut BytesMut) -> Result<(), SpillError> {
        self.table.iter().for_each(|entry| put_entry(out, entry));
        self.spill.as_mut().map_or(Ok(()), |spill| spill.copy_to(out))
    }

    /// Brings what has this hash into memory.
    pub fn fetch(&mut self, hash: u64) {
        let Some(spill) = self.spill.as_mut().filter(|spill| !spill.is_empty()) else { return };
        match spill.take(hash) {
            Ok(entries) => entries.into_iter().for_each(|entry| self.put(entry)),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Puts what has this hash aside where memory holds too much. The newest go: what has waited longest comes back first.
    pub fn settle(&mut self, hash: u64) {
        let Some(spill) = self.spill.as_mut().filter(|_| self.table.len() > self.limit) else { return };
        while let Ok(found) = self.table.find_entry(hash, |entry| entry.hash() == hash)
            && spill.put(found.get())
        {
            found.remove();
        }
    }

    /// Why nothing that was decided since the last call counts.
    pub fn failure(&mut self) -> Option<SpillError> {
        self.failed.take()
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
