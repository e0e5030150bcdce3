//! Segment files: a header that names the log and the segment before, then frames.

use crate::disk;
use crate::error::{Error, Result};
use crate::format::VERSION;
use crate::frame::{self, HEADER};
use crate::lock;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use sync_worker_core::record::Offset;
use uuid::Uuid;

/// Bytes before the first frame.
pub const START: u64 = 64;
const MAGIC: [u8; 8] = *b"SYNCWLOG";
/// The index has an entry about each so many bytes; a read from anywhere passes over less than this.
const INDEX_EVERY: u64 = 1 << 20;

/// The segment before one, as it was when it was closed. One that is gone or cut is noticed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    pub base: Offset,
    pub length: u64,
}

#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub base: Offset,
    /// What the CRC of its frames starts from.
    pub seed: u32,
    pub previous: Option<Previous>,
    /// Schemas that the log knew when this was made.
    schemas: u32,
    /// Offsets of some frames, and where they start.
    index: Mutex<BTreeMap<u64, u64>>,
}

/// What a scan of the newest segment found.
pub struct Scanned {
    /// Where the next frame goes.
    pub end: u64,
    pub next: Offset,
    pub schemas: u32,
    /// Bytes of an unfinished write behind `end`.
    pub torn: u64,
}

impl Segment {
    pub fn path(folder: &Path, base: Offset) -> PathBuf {
        folder.join(format!("{:020}.log", base.0))
    }

    /// The segments in a folder, the oldest first.
    pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("read the folder", folder))? {
            let path = entry.map_err(Error::io("read the folder", folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let numbered = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("log") if numbered => paths.push(path),
                // Left by a crash before it had its name.
                Some("new") if numbered => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
                _ => {}
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Makes an empty segment, durable under its name.
    pub fn create(
        folder: &Path,
        identity: Uuid,
        partition: u32,
        base: Offset,
        previous: Option<Previous>,
        schemas: u32,
    ) -> Result<Self> {
        let mut header = Vec::with_capacity(64);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&partition.to_le_bytes());
        header.extend_from_slice(identity.as_bytes());
        header.extend_from_slice(&base.0.to_le_bytes());
        header.extend_from_slice(&previous.map_or(u64::MAX, |previous| previous.base.0).to_le_bytes());
        header.extend_from_slice(&previous.map_or(0, |previous| previous.length).to_le_bytes());
        header.extend_from_slice(&schemas.to_le_bytes());
        let seed = crc32fast::hash(&header);
        header.extend_from_slice(&seed.to_le_bytes());
        let path = Self::path(folder, base);
        disk::replace(&path, &header)?;
        Ok(Self { path, base, seed, previous, schemas, index: Mutex::default() })
    }

    /// Reads the header of an existing segment. Also returns the file's length.
    pub fn open(path: &Path, identity: Uuid, partition: u32) -> Result<(Self, u64)> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::damaged(path, length, "its header ends early"),
            _ => Error::io("read", path)(error),
        })?;
        let long = |at: usize| header[at..at + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let word = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        if header[..8] != MAGIC {
            return Err(Error::damaged(path, 0, "it is no log segment"));
        }
        let seed = crc32fast::hash(&header[..60]);
        if seed != word(60) {
            return Err(Error::damaged(path, 0, "the checksum of its header is wrong"));
        }
        if word(8) != VERSION {
            return Err(Error::Version { path: path.to_owned(), version: word(8) });
        }
        let (base, previous) = (Offset(long(32)), long(40));
        let named = path.file_stem().is_some_and(|stem| stem.to_string_lossy() == format!("{:020}", base.0));
        if header[16..32] != *identity.as_bytes() || word(12) != partition || !named {
            return Err(Error::Foreign(path.to_owned()));
        }
        let previous = (previous != u64::MAX).then(|| Previous { base: Offset(previous), length: long(48) });
        let path = path.to_owned();
        Ok((Self { path, base, seed, previous, schemas: word(56), index: Mutex::default() }, length))
    }

    /// Reads all frames and shows their payloads. A bad one with nothing sound behind it is a torn write; any other
    /// damage is an error.
    pub fn scan(&self, file: &File, mut show: impl FnMut(&[u8])) -> Result<Scanned> {
        let length = file.metadata().map_err(Error::io("read", &self.path))?.len();
        let mut scanned = Scanned { end: START, next: self.base, schemas: self.schemas, torn: 0 };
        let mut window = Window::default();
        while scanned.end < length {
            let bytes = window.at(file, scanned.end, length).map_err(Error::io("read", &self.path))?;
            match frame::check(bytes, self.seed) {
                Some(header) if header.base == scanned.next => {
                    self.note(header.base, scanned.end);
                    show(&bytes[HEADER..header.frame_length()]);
                    scanned.end += header.frame_length() as u64;
                    scanned.next = header.end();
                    scanned.schemas = header.schemas;
                }
                Some(_) => return Err(Error::damaged(&self.path, scanned.end, "records are missing")),
                None => {
                    let mut rest = vec![0; usize::try_from(length - scanned.end).unwrap_or(usize::MAX)];
                    file.read_exact_at(&mut rest, scanned.end).map_err(Error::io("read", &self.path))?;
                    if frame::find(&rest, scanned.next, self.seed).is_some() {
                        return Err(Error::damaged(&self.path, scanned.end, "a bad frame with good ones behind it"));
                    }
                    scanned.torn = length - scanned.end;
                    break;
                }
            }
        }
        Ok(scanned)
    }

    /// Remembers where a frame starts, unless a near one is known.
    pub fn note(&self, base: Offset, at: u64) {
        let mut index = lock(&self.index);
        let near = index.range(..=base.0).next_back().is_some_and(|(_, &before)| at < before + INDEX_EVERY);
        if !near {
            index.insert(base.0, at);
        }
    }

    /// A known frame at or before the one that holds `offset`: its base, and where it starts.
    pub fn floor(&self, offset: Offset) -> (Offset, u64) {
        let index = lock(&self.index);
        let known = index.range(..=offset.0).next_back();
        known.map_or((self.base, START), |(&base, &at)| (Offset(base), at))
    }

    /// When it was last written.
    pub fn modified(&self) -> io::Result<SystemTime> {
        fs::metadata(&self.path)?.modified()
    }
}

/// A part of a file in memory, moved forward over it.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    const STEP: u64 = 4 << 20;

    /// The bytes from `at` on: at least the whole frame there, if the file has it.
    fn at(&mut self, file: &File, at: u64, length: u64) -> io::Result<&[u8]> {
        let held = self.start + self.bytes.len() as u64;
        let short = match at.checked_sub(self.start).filter(|_| at <= held) {
            Some(skip) => {
                let bytes = &self.bytes[usize::try_from(skip).unwrap_or(usize::MAX)..];
                frame::Header::parse(bytes).map_or(bytes.len() < HEADER, |header| bytes.len() < header.frame_length())
            }
            None => true,
        };
        if short && held < length {
            self.fill(file, at, Self::STEP.min(length - at))?;
            let whole = frame::Header::parse(&self.bytes).map_or(0, |header| header.frame_length() as u64);
            if whole > self.bytes.len() as u64 {
                self.fill(file, at, whole.min(length - at))?;
            }
        }
        Ok(&self.bytes[usize::try_from(at - self.start).unwrap_or(usize::MAX)..])
    }

    fn fill(&mut self, file: &File, at: u64, count: u64) -> io::Result<()> {
        self.start = at;
        self.bytes.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
        file.read_exact_at(&mut self.bytes, at)
    }
}
