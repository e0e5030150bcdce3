//! Entries on disk: keys under way beyond those that memory is for (invariant 9).
//!
//! A member that is away leaves every key that it lacks under way, and they come back in the order in which they went: the
//! files are written to at the end and read from the beginning, and one of which nothing is left goes. In memory stays
//! where each entry lies. Nothing here outlives the process: a resolver is rebuilt from the log.

use super::checkpoint::{put_entry, take_entry};
use super::version::Entry;
use bytes::BytesMut;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use sync_worker_core::value::Damaged;

/// What is written at once, and read at once where entries come back in order.
const BLOCK: usize = 64 << 10;

/// What is read of an entry that comes back out of order, before its size is known.
const GUESS: usize = 512;

/// The size of a file.
const SEGMENT: usize = 64 << 20;

/// Before each entry: its length.
const HEAD: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error("what is under way can't be read back from {folder}: {error}")]
    Read { folder: String, error: io::Error },
    #[error("what is under way was read back damaged: {0}")]
    Damaged(#[from] Damaged),
}

/// Where an entry lies: the number of its file in the upper half, the offset in it in the lower one.
struct Place {
    hash: u64,
    at: u64,
}

struct Segment {
    file: File,
    /// Bytes in the file.
    written: usize,
    /// Entries that were not taken back.
    live: usize,
}

pub struct Spill {
    folder: PathBuf,
    places: HashTable<Place>,
    segments: BTreeMap<u32, Segment>,
    /// Of the last segment, behind what is in its file.
    tail: BytesMut,
    /// What was read last, and where it lies.
    window: Vec<u8>,
    window_at: u64,
    /// Nothing can be written at the moment; what comes stays in memory.
    full: bool,
}

fn place(segment: u32, offset: usize) -> u64 {
    u64::from(segment) << 32 | offset as u64
}

/// Number and offset of a place.
fn split(at: u64) -> (u32, usize) {
    let part = |half: u64| u32::try_from(half).unwrap_or(u32::MAX);
    (part(at >> 32), part(at & u64::from(u32::MAX)) as usize)
}

impl Spill {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            places: HashTable::new(),
            segments: BTreeMap::new(),
            tail: BytesMut::new(),
            window: Vec::new(),
            window_at: 0,
            full: false,
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The hashes of all entries.
    pub fn hashes(&self) -> Vec<u64> {
        self.places.iter().map(|place| place.hash).collect()
    }

    /// Puts an entry aside; false where there is no file for it. What can't be written to that stays in memory, and is tried
    /// again with the next.
    pub fn put(&mut self, entry: &Entry) -> bool {
        if let Err(error) = self.make_room()
            && !std::mem::replace(&mut self.full, true)
        {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "keys under way can't be put aside and stay in memory; make room there");
        }
        let Some((&number, segment)) = self.segments.iter_mut().next_back() else { return false };
        let at = place(number, segment.written + self.tail.len());
        let head = self.tail.len();
        self.tail.extend_from_slice(&[0; HEAD]);
        put_entry(&mut self.tail, entry);
        let length = u32::try_from(self.tail.len() - head - HEAD).unwrap_or(u32::MAX);
        self.tail[head..head + HEAD].copy_from_slice(&length.to_le_bytes());
        segment.live += 1;
        self.places.insert_unique(entry.hash(), Place { hash: entry.hash(), at }, |place| place.hash);
        true
    }

    /// Writes what has come together, and begins another file where there is none or one is long enough.
    fn make_room(&mut self) -> io::Result<()> {
        let Some((_, segment)) = self.segments.iter_mut().next_back() else { return self.next_segment() };
        if self.tail.len() < BLOCK {
            return Ok(());
        }
        segment.file.write_all_at(&self.tail, segment.written as u64)?;
        segment.written += self.tail.len();
        self.tail.clear();
        self.full = false;
        if segment.written >= SEGMENT { self.next_segment() } else { Ok(()) }
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let number = self.segments.keys().next_back().map_or(0, |last| last + 1);
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("under-way.{}.{number}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        // It goes with the process, however that ends.
        fs::remove_file(&path)?;
        self.segments.insert(number, Segment { file, written: 0, live: 0 });
        Ok(())
    }

    /// Takes the entries with a hash back: one, but for two keys that share it.
    pub fn take(&mut self, hash: u64) -> Result<Vec<Entry>, SpillError> {
        let mut found = Vec::new();
        while let Ok(known) = self.places.find_entry(hash, |place| place.hash == hash) {
            let at = known.get().at;
            let entry = self.read(at)?;
            if let Ok(known) = self.places.find_entry(hash, |place| place.at == at) {
                known.remove();
            }
            self.taken(at);
            found.push(entry);
        }
        Ok(found)
    }

    fn read(&mut self, at: u64) -> Result<Entry, SpillError> {
        let Self { folder, segments, tail, window, window_at, .. } = self;
        let (number, offset) = split(at);
        let damaged = || Damaged("a place that is not there");
        let segment = segments.get(&number).ok_or_else(damaged)?;
        if offset >= segment.written {
            return decoded(tail.get(offset - segment.written..).ok_or_else(damaged)?)?.ok_or_else(|| damaged().into());
        }
        // Relative to what was read last.
        let from = at.checked_sub(*window_at).and_then(|from| usize::try_from(from).ok()).unwrap_or(usize::MAX);
        if let Some(entry) = decoded(window.get(from..).unwrap_or_default())? {
            return Ok(entry);
        }
        // In order, where it begins within that or right behind it.
        let mut size = if from <= window.len() { BLOCK } else { GUESS };
        loop {
            window.resize(size.min(segment.written - offset), 0);
            *window_at = at;
            if let Err(error) = segment.file.read_exact_at(window, offset as u64) {
                window.clear();
                return Err(SpillError::Read { folder: folder.display().to_string(), error });
            }
            match decoded(window)? {
                Some(entry) => return Ok(entry),
                // What is behind it in memory is a part of no entry in the file.
                None if window.len() < size => return Err(damaged().into()),
                None => size *= 4,
            }
        }
    }

    /// One entry less in a file; one of which none is left goes, and the last one begins anew.
    fn taken(&mut self, at: u64) {
        let (number, _) = split(at);
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.live -= 1;
        if segment.live > 0 {
            return;
        }
        if self.segments.keys().next_back() == Some(&number) {
            self.tail.clear();
        }
        self.segments.remove(&number);
        self.window.clear();
    }
}

/// The entry at the beginning of some bytes; None where they end before it.
fn decoded(bytes: &[u8]) -> Result<Option<Entry>, Damaged> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let Some(mut body) = rest.get(..u32::from_le_bytes(*head) as usize) else { return Ok(None) };
    take_entry(&mut body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::key::RowKey;
    use super::super::version::{Member, Origin, Version, VersionId};
    use super::*;
    use smallvec::SmallVec;
    use std::sync::Arc;
    use sync_worker_core::guard::Image;
    use sync_worker_core::record::Offset;
    use sync_worker_core::row::{Key, Row};

    /// With a row of this many bytes.
    fn entry(number: u64, bytes: usize) -> Entry {
        let key = RowKey::new("t".into(), Key::from_bytes(number.to_be_bytes().to_vec().into()));
        let row = Some(Row::from_bytes(vec![b'x'; bytes].into()));
        let (id, origin) = (VersionId::Record(Offset(number)), Origin::Member(Member(0)));
        let image = Image::of(row.as_ref());
        let version = Version { id, key, origin, by: None, commit_time: 0, row, image, read: false };
        Entry::new(Arc::new(version), SmallVec::new())
    }

    fn taken(spill: &mut Spill, number: u64, bytes: usize) {
        let wanted = entry(number, bytes);
        let found = spill.take(wanted.hash()).unwrap();
        assert_eq!(found.len(), 1, "entry {number}");
        assert_eq!((found[0].version.id, &found[0].version.row), (wanted.version.id, &wanted.version.row));
        assert!(spill.take(wanted.hash()).unwrap().is_empty());
    }

    /// In order, out of order and again; over several files, with entries larger than what is read at once.
    #[test]
    fn entries_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(folder.path().join("made"));
        let size = |number: u64| if number.is_multiple_of(1_000) { 3 << 20 } else { 10 + number as usize % 3_000 };
        for round in 0..2 {
            (0..100_000).for_each(|number| assert!(spill.put(&entry(number, size(number)))));
            assert!(spill.segments.len() > 3, "{} files", spill.segments.len());
            (0..100_000).step_by(7).for_each(|number| taken(&mut spill, number, size(number)));
            (0..100_000).filter(|number| number % 7 != 0).for_each(|number| taken(&mut spill, number, size(number)));
            assert!(spill.is_empty() && spill.segments.is_empty(), "round {round}");
            assert_eq!(fs::read_dir(folder.path().join("made")).unwrap().count(), 0);
        }
    }

    /// A folder that can't be made: nothing is put aside, and nothing is lost.
    #[test]
    fn where_nothing_can_be_written_nothing_is_put_aside() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut spill = Spill::new(file.path().join("below"));
        assert!(!spill.put(&entry(1, 10)) && spill.is_empty());
    }
}
