//! Whether SQLite's write-ahead log has lost anything that was acknowledged.
//!
//! SQLite reads the log up to the first frame that is not sound and ignores the rest: right for a commit that a crash has
//! torn, wrong for damage in the middle, where acknowledged commits would vanish without a word. They can be told apart:
//! every commit is flushed before the next one is written, so where a later commit has begun, the earlier one was whole.
//!
//! The format is SQLite's: a header of 32 bytes, then frames of 24 bytes and a page each, all numbers big-endian.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;
/// Of every store, should the header not say.
const PAGE: usize = 4096;

/// Whether the log at `path` is damaged in its middle. A log that is not there is sound.
pub(crate) fn is_damaged(path: &Path) -> std::io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    is_log_damaged(BufReader::with_capacity(1 << 20, file))
}

fn is_log_damaged(mut file: impl Read) -> std::io::Result<bool> {
    let mut header = [0; HEADER];
    if !filled(&mut file, &mut header)? {
        return Ok(false);
    }
    let mut running = Running::begin(&header);
    let mut salts = running.as_ref().map(|_| salts_of(&header[16..24]));
    let size = u32::from_be_bytes(word(&header, 8));
    let page = match usize::try_from(size) {
        Ok(size) if running.is_some() && size.is_power_of_two() && size <= 65_536 => size,
        Ok(_) | Err(_) => PAGE,
    };
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut commit_ignored = false;
    while filled(&mut file, &mut frame)? {
        let own = salts_of(&frame[8..16]);
        // What an earlier round of the log has left behind has other salts. So has a frame of this round whose salts were
        // damaged, which the checksum still stands for: it does not cover them.
        let alive = *salts.get_or_insert(own) == own;
        let before = running.clone();
        let covered = running.as_mut().is_some_and(|checksums| checksums.covers(&frame));
        if !(alive && covered) {
            running = None;
        }
        if running.is_none() && (alive || covered) {
            if commit_ignored {
                return Ok(true);
            }
            // Nothing else of a frame says that a commit ends in it. What is damaged may be that word, or something else that
            // changes the checksum alike: whatever may have been a commit is taken for one.
            let size = before.filter(|_| alive && !covered).and_then(|checksums| checksums.size_of(&frame));
            commit_ignored = [Some(u32::from_be_bytes(word(&frame, 4))), size].iter().flatten().any(|size| *size != 0);
        }
    }
    Ok(false)
}

fn filled(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    word
}

fn salts_of(bytes: &[u8]) -> [[u8; 4]; 2] {
    [word(bytes, 0), word(bytes, 4)]
}

/// The checksum that runs through the whole log.
#[derive(Clone)]
struct Running {
    big_endian: bool,
    sums: [u32; 2],
}

impl Running {
    /// None for a header that is not sound.
    fn begin(header: &[u8; HEADER]) -> Option<Self> {
        let magic = u32::from_be_bytes(word(header, 0));
        let mut running = Self { big_endian: magic & 1 == 1, sums: [0; 2] };
        running.add(&header[..24]);
        (magic & !1 == MAGIC && running.stands_at(&header[24..])).then_some(running)
    }

    fn covers(&mut self, frame: &[u8]) -> bool {
        self.add(&frame[..8]);
        self.add(&frame[FRAME_HEADER..]);
        self.stands_at(&frame[16..24])
    }

    /// The size of the database that makes the frame whole, if one does: what stands there may be all that is damaged.
    fn size_of(&self, frame: &[u8]) -> Option<u32> {
        let with = |size: u32| {
            let mut running = self.clone();
            let size = if self.big_endian { size.to_be_bytes() } else { size.to_le_bytes() };
            running.add(&[word(frame, 0), size].concat());
            running.add(&frame[FRAME_HEADER..]);
            running.sums
        };
        // Both sums are linear in it, modulo 2^32, and of their two factors one at least is odd, so has an inverse.
        let ([one, two], stored) = (with(0), [word(frame, 16), word(frame, 20)].map(u32::from_be_bytes));
        let factors = [with(1)[0].wrapping_sub(one), with(1)[1].wrapping_sub(two)];
        let found = |at: usize| {
            let inverse = (0..5).fold(factors[at], |inverse, _| {
                inverse.wrapping_mul(2u32.wrapping_sub(factors[at].wrapping_mul(inverse)))
            });
            stored[at].wrapping_sub([one, two][at]).wrapping_mul(inverse)
        };
        let size = found(factors.iter().position(|factor| factor % 2 == 1)?);
        // As the checksum reads it, which may be the other way round.
        let size = (with(size) == stored).then_some(size)?;
        Some(if self.big_endian { size } else { size.swap_bytes() })
    }

    fn add(&mut self, bytes: &[u8]) {
        let number = |bytes| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let [mut one, mut two] = self.sums;
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(number(word(pair, 0))).wrapping_add(two);
            two = two.wrapping_add(number(word(pair, 4))).wrapping_add(one);
        }
        self.sums = [one, two];
    }

    fn stands_at(&self, bytes: &[u8]) -> bool {
        [word(bytes, 0), word(bytes, 4)].map(u32::from_be_bytes) == self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// The checksum of a database of sixteen pages may be as if its size were damaged, and had been zero, where it is the
    /// page.
    #[test]
    fn each_bit_of_the_commit_before_the_last_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sixteen.sqlite");
        let connection = Connection::open(&path).unwrap();
        let pages = || connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)).unwrap();
        let begin = "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB) STRICT";
        connection.execute_batch(begin).unwrap();
        while pages() < 16 {
            connection.execute("INSERT INTO t (body) VALUES (randomblob(1000))", []).unwrap();
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        for _ in 0..2 {
            connection.execute("UPDATE t SET body = randomblob(1000) WHERE id = 1", []).unwrap();
        }
        let mut log = std::fs::read(folder.path().join("sixteen.sqlite-wal")).unwrap();
        let frame = FRAME_HEADER + PAGE;
        assert_eq!((log.len(), pages()), (HEADER + 2 * frame, 16));
        assert!(!is_log_damaged(&log[..]).unwrap());
        for bit in HEADER * 8..(HEADER + frame) * 8 {
            log[bit / 8] ^= 1 << (bit % 8);
            assert!(is_log_damaged(&log[..]).unwrap(), "bit {bit}");
            log[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
