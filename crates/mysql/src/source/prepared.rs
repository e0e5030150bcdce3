//! Transactions that are prepared and not yet committed: their events are held until `XA COMMIT` or `XA ROLLBACK`.

use crate::error::Error;
use crate::gtid::Gtid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// What is kept in memory of one transaction; the rest goes to a file.
const IN_MEMORY: usize = 1 << 20;

const PREFIX: &str = "prepared-";

/// Of which transactions the rows are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    All,
    /// Those that write to a table of the pipeline.
    Ours,
}

pub struct Prepared {
    folder: PathBuf,
    keep: Keep,
    next: u64,
    held: HashMap<String, Held>,
}

/// The events of one transaction, each with its length before it.
pub struct Held {
    /// Of its first part; not among what has been taken until the transaction is decided, unless it is not wanted.
    pub gtid: Gtid,
    wanted: bool,
    memory: Vec<u8>,
    file: Option<(File, PathBuf)>,
}

impl Prepared {
    /// Makes the folder, and empties it: what is prepared still is sent again.
    pub fn new(folder: &Path, keep: Keep) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::Spill)?;
        for entry in fs::read_dir(folder).map_err(Error::Spill)? {
            let entry = entry.map_err(Error::Spill)?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_file(entry.path()).map_err(Error::Spill)?;
            }
        }
        Ok(Self { folder: folder.to_owned(), keep, next: 0, held: HashMap::new() })
    }

    pub fn begin(&mut self, name: &str, gtid: Gtid) {
        let held = Held { gtid, wanted: self.keep == Keep::All, memory: Vec::new(), file: None };
        self.held.insert(name.to_owned(), held);
    }

    /// Takes a table map, of a table of the pipeline or of another.
    pub fn map(&mut self, name: &str, event: &[u8], ours: bool) -> Result<(), Error> {
        if let Some(held) = self.held.get_mut(name) {
            held.wanted |= ours;
        }
        self.push(name, event)
    }

    /// Takes rows, whose map came before them.
    pub fn rows(&mut self, name: &str, event: &[u8]) -> Result<(), Error> {
        match self.is_wanted(name) {
            true => self.push(name, event),
            false => Ok(()),
        }
    }

    /// Whether a transaction has written anything that matters.
    pub fn is_wanted(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| held.wanted)
    }

    fn push(&mut self, name: &str, event: &[u8]) -> Result<(), Error> {
        let Some(held) = self.held.get_mut(name) else { return Ok(()) };
        held.memory.extend_from_slice(&(event.len() as u64).to_le_bytes());
        held.memory.extend_from_slice(event);
        if held.memory.len() < IN_MEMORY {
            return Ok(());
        }
        if held.file.is_none() {
            let path = self.folder.join(format!("{PREFIX}{}", self.next));
            self.next += 1;
            let file = File::options().create_new(true).read(true).write(true).open(&path).map_err(Error::Spill)?;
            held.file = Some((file, path));
        }
        if let Some((file, _)) = &mut held.file {
            file.write_all(&held.memory).map_err(Error::Spill)?;
            held.memory.clear();
        }
        Ok(())
    }

    pub fn take(&mut self, name: &str) -> Option<Held> {
        self.held.remove(name)
    }

    /// All of them, by name.
    pub fn take_all(&mut self) -> HashMap<String, Held> {
        std::mem::take(&mut self.held)
    }
}

impl Held {
    /// Its events, in order.
    pub fn replay(&mut self) -> Result<Replay, Error> {
        let memory = std::mem::take(&mut self.memory);
        let file: Box<dyn Read + Send> = match &self.file {
            Some((_, path)) => Box::new(BufReader::with_capacity(256 * 1024, File::open(path).map_err(Error::Spill)?)),
            None => Box::new(std::io::empty()),
        };
        Ok(Replay { reader: Box::new(file.chain(std::io::Cursor::new(memory))), event: Vec::new() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.file {
            // A file that stays is removed at the next start.
            let _removed = fs::remove_file(path);
        }
    }
}

pub struct Replay {
    reader: Box<dyn Read + Send>,
    event: Vec<u8>,
}

impl Replay {
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        let mut length = [0; 8];
        match self.reader.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::Spill(error)),
        }
        let length =
            usize::try_from(u64::from_le_bytes(length)).map_err(|_| Error::Protocol("a damaged spill file"))?;
        self.event.resize(length, 0);
        self.reader.read_exact(&mut self.event).map_err(Error::Spill)?;
        Ok(Some(&self.event))
    }
}
