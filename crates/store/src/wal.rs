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
    let mut file = BufReader::with_capacity(1 << 20, file);
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
        // What an earlier round of the log has left behind has other salts.
        let alive = *salts.get_or_insert(own) == own;
        if let Some(checksums) = &mut running
            && (!alive || !checksums.covers(&frame))
        {
            running = None;
        }
        if running.is_none() && alive {
            if commit_ignored {
                return Ok(true);
            }
            commit_ignored = word(&frame, 4) != [0; 4];
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
