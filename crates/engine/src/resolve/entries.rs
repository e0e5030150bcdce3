//! The keys of which something is under way: in memory, and on disk beyond that.

use super::checkpoint::put_entry;
use super::key::RowKey;
use super::spill::{Spill, SpillError};
use super::version::{Entry, Version};
use bytes::BytesMut;
use hashbrown::HashTable;
use hashbrown::hash_table::{Entry as Place, OccupiedEntry};
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_core::guard::Image;

/// What an entry takes in memory beside its row: about this many bytes.
const BESIDE_ROW: usize = 512;

/// What one takes there that is on disk, with the sends that it waits for.
const ON_DISK: usize = 28;

/// Entries by the keys of their versions.
///
/// Whoever looks for a key [fetches](Self::fetch) its hash first, and lets it [settle](Self::settle) afterwards.
#[derive(Default)]
pub struct Entries {
    table: HashTable<Entry>,
    /// What those take.
    bytes: usize,
    spill: Option<Spill>,
    /// Bytes that memory is for.
    limit: usize,
    /// Something could not be read back: nothing that was decided since counts.
    failed: Option<SpillError>,
}

impl Entries {
    /// Beyond `limit` bytes in memory, entries go to files in this folder.
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

    /// What they take, in memory and on disk.
    pub fn bytes(&self) -> usize {
        self.bytes + self.spill.as_ref().map_or(0, Spill::bytes)
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
        let Self { table, bytes, spill: Some(spill), limit, .. } = self else { return };
        let mut put_aside = false;
        while *bytes > room(*limit, spill.len())
            && let Ok(found) = table.find_entry(hash, |entry| entry.hash() == hash)
            && spill.put(found.get())
        {
            *bytes -= size(&found.remove().0.version);
            put_aside = true;
        }
        // What is on disk has taken the room of others.
        let most = room(*limit, spill.len());
        if put_aside && *bytes > most + *limit / 16 {
            let goes = |entry: &mut Entry| {
                let goes = *bytes > most && spill.put(entry);
                *bytes -= if goes { size(&entry.version) } else { 0 };
                goes
            };
            table.extract_if(goes).for_each(drop);
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

    pub fn remove(&mut self, key: &RowKey) {
        if let Some(found) = self.find(key.hash(), |entry| entry.is_of(key)) {
            found.remove();
        }
    }

    /// The entry of a version's key, which has this version from now on, and the image of the one before.
    pub fn accept(&mut self, version: &Arc<Version>) -> (&mut Entry, Option<Image>) {
        let key = &version.key;
        self.bytes += size(version);
        match self.table.entry(key.hash(), |entry| entry.is_of(key), Entry::hash) {
            Place::Vacant(place) => (place.insert(Entry::new(version.clone(), Default::default())).into_mut(), None),
            Place::Occupied(place) => {
                let entry = place.into_mut();
                let before = std::mem::replace(&mut entry.version, version.clone());
                self.bytes -= size(&before);
                (entry, Some(before.image))
            }
        }
    }

    /// Adds one whose key has none.
    pub fn put(&mut self, entry: Entry) {
        self.bytes += size(&entry.version);
        self.table.insert_unique(entry.hash(), entry, Entry::hash);
    }

    /// One of the entries with a hash that fits.
    pub fn find(&mut self, hash: u64, fits: impl Fn(&Entry) -> bool) -> Option<Found<'_>> {
        let place = self.table.find_entry(hash, |entry| entry.hash() == hash && fits(entry)).ok()?;
        Some(Found { place, bytes: &mut self.bytes })
    }

    /// The entries with a hash: one, but for two keys that share it.
    pub fn all_of(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        self.table.iter_hash(hash).filter(move |entry| entry.hash() == hash)
    }
}

/// An entry that was found.
pub struct Found<'a> {
    place: OccupiedEntry<'a, Entry>,
    bytes: &'a mut usize,
}

impl Found<'_> {
    pub fn get_mut(&mut self) -> &mut Entry {
        self.place.get_mut()
    }

    pub fn remove(self) {
        *self.bytes -= size(&self.place.remove().0.version);
    }
}

/// What an entry with this version takes.
fn size(version: &Version) -> usize {
    BESIDE_ROW + version.row.as_ref().map_or(0, |row| row.as_bytes().len())
}

/// Bytes that may be in memory where so many entries are on disk: those take their share, up to three quarters.
fn room(limit: usize, on_disk: usize) -> usize {
    limit.saturating_sub(on_disk * ON_DISK).max(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::super::spill::tests::entry;
    use super::*;

    /// Memory holds fewer entries the larger their rows are, and the more are on disk; and all are found again.
    #[test]
    fn entries_take_the_memory_that_is_for_them() {
        const LIMIT: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        for (row, number) in [(10, 100_000), (100_000, 100)] {
            let mut entries = Entries::default();
            entries.spill_to(folder.path().to_owned(), LIMIT);
            let each = BESIDE_ROW + row;
            for number in 0..number {
                let entry = entry(number, row);
                let hash = entry.hash();
                entries.fetch(hash);
                entries.put(entry);
                entries.settle(hash);
                assert!(entries.bytes <= room(LIMIT, entries.spilled()) + LIMIT / 16 + each, "at {number}");
                assert_eq!(entries.bytes, entries.table.len() * each);
            }
            assert_eq!(entries.len() as u64, number);
            assert!(entries.bytes <= LIMIT / 4 + LIMIT / 16 + each || entries.spilled() * ON_DISK < LIMIT / 2);
            for number in 0..number {
                let wanted = entry(number, row);
                entries.fetch(wanted.hash());
                let found = entries.get(&wanted.version.key).unwrap();
                assert_eq!(found.version.row, wanted.version.row);
                entries.remove(&wanted.version.key);
                entries.settle(wanted.hash());
            }
            assert!(entries.is_empty() && entries.bytes == 0 && entries.failure().is_none());
        }
    }
}
