//! Entries on disk: keys under way beyond those that memory is for (invariant 9).
//!
//! A member that is away leaves every key that it lacks under way, and they come back in the order in which they went: the
//! files are written to at the end and read from the beginning, and one of which nothing is left goes. In memory stays
//! where each entry lies. Nothing here outlives the process: a resolver is rebuilt from the log.

use super::checkpoint::{put_entry, take_entry};
use super::places::{PLACE_BITS, Places};
use super::version::Entry;
use bytes::{BufMut, BytesMut};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use sync_worker_core::value::Damaged;

/// What is written at once, and read at once where entries come back in order.
const BLOCK: usize = 64 << 10;

/// What is read of an entry that comes back out of order, before its size is known.
const GUESS: usize = 512;

/// The size of a file.
const SEGMENT: usize = 64 << 20;

/// What may wait for a file that can't be written to.
const MOST_WAITING: usize = 4 << 20;

/// Between two tries to write where that has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Before each entry: its length.
const HEAD: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error("what is under way can't be read back from {folder}: {error}")]
    Read { folder: String, error: io::Error },
    #[error("what is under way was read back damaged: {0}")]
    Damaged(#[from] Damaged),
}

/// Bits of an offset in a file: an entry begins below [`SEGMENT`] and what may wait.
const OFFSET_BITS: u32 = 27;

/// Files that may be there at once: half a terabyte.
const MOST_SEGMENTS: u32 = 1 << (PLACE_BITS - OFFSET_BITS);

struct Segment {
    file: File,
    /// Bytes in the file.
    written: usize,
    /// Entries that were not taken back.
    live: usize,
}

pub struct Spill {
    folder: PathBuf,
    /// By the numbers of files as far as they differ among those that are there.
    places: Places,
    segments: BTreeMap<u32, Segment>,
    /// Of the last segment, behind what is in its file.
    tail: BytesMut,
    /// What was read last, and where it lies.
    window: Vec<u8>,
    window_at: u64,
    /// Bytes of entries that were not taken back.
    live: usize,
    /// Nothing could be written the last time: when to try again.
    full: Option<Instant>,
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
            places: Places::default(),
            segments: BTreeMap::new(),
            tail: BytesMut::new(),
            window: Vec::new(),
            window_at: 0,
            live: 0,
            full: None,
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Of all entries, on disk.
    pub fn bytes(&self) -> usize {
        self.live
    }

    /// The encoded entries, in the order in which they lie.
    pub fn copy_to(&mut self, out: &mut BytesMut) -> Result<(), SpillError> {
        for at in self.sorted(|_| true) {
            out.extend_from_slice(self.read(at)?);
        }
        Ok(())
    }

    /// Where the entries of some files lie, in order.
    fn sorted(&self, is_in: impl Fn(u32) -> bool) -> Vec<u64> {
        let mut places: Vec<u64> = self.places.iter().map(|known| self.at(known)).collect();
        places.retain(|at| is_in(split(*at).0));
        places.sort_unstable();
        places
    }

    /// A place as it is kept.
    fn known(at: u64) -> u64 {
        let (number, offset) = split(at);
        u64::from(number % MOST_SEGMENTS) << OFFSET_BITS | offset as u64
    }

    fn at(&self, known: u64) -> u64 {
        let first = self.segments.keys().next().copied().unwrap_or(0);
        let number = u32::try_from(known >> OFFSET_BITS).unwrap_or(0);
        let behind = number.wrapping_sub(first) % MOST_SEGMENTS;
        place(first + behind, (known & ((1 << OFFSET_BITS) - 1)) as usize)
    }

    /// Puts an entry aside; false where it has to stay in memory, since nothing can be written at the moment.
    pub fn put(&mut self, entry: &Entry) -> bool {
        let bytes = encoded(entry);
        let Some(at) = self.append(&bytes) else { return false };
        self.places.put(entry.hash(), Self::known(at));
        self.live += bytes.len();
        self.compact();
        true
    }

    /// Puts bytes behind all others and returns their place.
    fn append(&mut self, bytes: &[u8]) -> Option<u64> {
        if self.full.is_none_or(|again| Instant::now() >= again)
            && let Err(error) = self.make_room()
        {
            if self.full.is_none() {
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "keys under way can't be put aside and stay in memory; make room there");
            }
            self.full = Some(Instant::now() + AGAIN);
        }
        let (&number, segment) = self.segments.iter_mut().next_back()?;
        if self.tail.len() >= MOST_WAITING {
            return None;
        }
        let at = place(number, segment.written + self.tail.len());
        self.tail.extend_from_slice(bytes);
        segment.live += 1;
        Some(at)
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
        self.full = None;
        if segment.written >= SEGMENT { self.next_segment() } else { Ok(()) }
    }

    /// Moves what is left of the oldest file behind all others, where less than half of all files is needed: keys that change all
    /// the time are put aside again and again.
    fn compact(&mut self) {
        if self.segments.len() < 3 || self.segments.values().map(|one| one.written).sum::<usize>() < 2 * self.live {
            return;
        }
        let Some((&oldest, _)) = self.segments.first_key_value() else { return };
        for at in self.sorted(|number| number == oldest) {
            // What can't be read shows when it is needed.
            let Ok(Ok((entry, bytes))) = self.read(at).map(|bytes| Ok::<_, Damaged>((decoded(bytes)?, bytes.to_vec())))
            else {
                return;
            };
            let Some(moved) = self.append(&framed(&bytes)) else { return };
            self.places.remove(entry.hash(), Self::known(at));
            self.places.put(entry.hash(), Self::known(moved));
            self.left(at);
        }
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let number = self.segments.keys().next_back().map_or(0, |last| last + 1);
        if self.segments.keys().next().is_some_and(|first| number - first >= MOST_SEGMENTS) {
            return Err(io::Error::other("there are too many files of keys under way"));
        }
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
        for known in self.places.of(hash) {
            let at = self.at(known);
            let bytes = self.read(at)?;
            let (entry, length) = (decoded(bytes)?, HEAD + bytes.len());
            if entry.hash() != hash {
                continue;
            }
            self.places.remove(hash, known);
            self.live -= length;
            self.left(at);
            found.push(entry);
        }
        Ok(found)
    }

    /// The encoded entry at a place.
    fn read(&mut self, at: u64) -> Result<&[u8], SpillError> {
        let Self { folder, segments, tail, window, window_at, .. } = self;
        let (number, offset) = split(at);
        let damaged = || Damaged("a place that is not there");
        let segment = segments.get(&number).ok_or_else(damaged)?;
        if offset >= segment.written {
            return Ok(unframed(tail.get(offset - segment.written..).ok_or_else(damaged)?).ok_or_else(damaged)?);
        }
        // Relative to what was read last.
        let from = at.checked_sub(*window_at).and_then(|from| usize::try_from(from).ok()).unwrap_or(usize::MAX);
        if unframed(window.get(from..).unwrap_or_default()).is_some() {
            return Ok(unframed(&window[from..]).ok_or_else(damaged)?);
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
            if unframed(window).is_some() {
                return Ok(unframed(window).ok_or_else(damaged)?);
            }
            // What is behind it in memory is a part of no entry in the file.
            if window.len() < size {
                return Err(damaged().into());
            }
            size *= 4;
        }
    }

    /// One entry less in a file; one of which none is left goes, and the last one begins anew.
    fn left(&mut self, at: u64) {
        let (number, _) = split(at);
        let is_last = self.segments.keys().next_back() == Some(&number);
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.live -= 1;
        if segment.live > 0 {
            return;
        }
        self.window.clear();
        if is_last && segment.file.set_len(0).is_ok() {
            segment.written = 0;
            self.tail.clear();
        } else {
            if is_last {
                self.tail.clear();
            }
            self.segments.remove(&number);
        }
    }
}

fn encoded(entry: &Entry) -> BytesMut {
    let mut bytes = BytesMut::new();
    put_entry(&mut bytes, entry);
    framed(&bytes)
}

/// With its length before it.
fn framed(entry: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEAD + entry.len());
    bytes.put_u32_le(u32::try_from(entry.len()).unwrap_or(u32::MAX));
    bytes.put_slice(entry);
    bytes
}

/// The encoded entry at the beginning of some bytes; None where they end before it.
fn unframed(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    rest.get(..u32::from_le_bytes(*head) as usize)
}

fn decoded(mut bytes: &[u8]) -> Result<Entry, Damaged> {
    take_entry(&mut bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::key::RowKey;
    use super::super::version::{Member, Origin, Version, VersionId};
    use super::*;
    use smallvec::SmallVec;
    use std::sync::Arc;
    use sync_worker_core::guard::Image;
    use sync_worker_core::record::Offset;
    use sync_worker_core::row::{Key, Row};

    /// With a row of this many bytes.
    pub fn entry(number: u64, bytes: usize) -> Entry {
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
            assert!(spill.is_empty() && spill.segments.len() <= 1 && spill.live == 0, "round {round}");
            assert_eq!(fs::read_dir(folder.path().join("made")).unwrap().count(), 0);
        }
    }

    /// A few keys that change all the time beside many that do not: the files hold little more than what is needed.
    #[test]
    fn what_is_put_aside_again_and_again_takes_no_more_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(folder.path().to_owned());
        (0..20_000).for_each(|number| assert!(spill.put(&entry(number, 3_000))));
        for turn in 0..200_000 {
            let number = turn % 10 * 2_000;
            taken(&mut spill, number, 3_000);
            assert!(spill.put(&entry(number, 3_000)));
        }
        let written: usize = spill.segments.values().map(|segment| segment.written).sum();
        assert!(written < 2 * spill.live + 3 * SEGMENT, "{written} bytes for {}", spill.live);
        (0..20_000).for_each(|number| taken(&mut spill, number, 3_000));
        assert!(spill.is_empty());
    }

    /// A folder that can't be made: nothing is put aside, and nothing is lost.
    #[test]
    fn where_nothing_can_be_written_nothing_is_put_aside() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut spill = Spill::new(file.path().join("below"));
        assert!(!spill.put(&entry(1, 10)) && spill.is_empty());
    }
}
