//! Transactions that the server sends before they have committed, kept in files until they do.

use crate::error::Error;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held in memory per transaction before it goes to its file.
const BUFFER: usize = 256 * 1024;

/// The folder of transactions in progress.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    open: HashMap<u32, Transaction>,
}

#[derive(Debug)]
struct Transaction {
    path: PathBuf,
    file: BufWriter<File>,
    aborted: HashSet<u32>,
}

impl Spill {
    /// Makes the folder, empty: what was in progress is sent again from its start.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Spill { folder: folder.display().to_string(), source };
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(folder).map_err(fail)?;
        Ok(Self { folder: folder.to_owned(), open: HashMap::new() })
    }

    /// Appends a message of a transaction: its tag, the sub-transaction that wrote it, and the rest.
    pub fn append(&mut self, xid: u32, subtransaction: u32, tag: u8, rest: &[u8]) -> Result<(), Error> {
        if !self.open.contains_key(&xid) {
            let path = self.folder.join(xid.to_string());
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let file = BufWriter::with_capacity(BUFFER, file.map_err(|error| self.fail(error))?);
            self.open.insert(xid, Transaction { path, file, aborted: HashSet::new() });
        }
        let Some(transaction) = self.open.get_mut(&xid) else { return Ok(()) };
        let length = u32::try_from(rest.len()).map_err(|_| Error::Protocol("a message above 4 GB"))?;
        let file = &mut transaction.file;
        let written = file
            .write_all(&subtransaction.to_le_bytes())
            .and_then(|()| file.write_all(&length.to_le_bytes()))
            .and_then(|()| file.write_all(&[tag]))
            .and_then(|()| file.write_all(rest));
        written.map_err(|error| self.fail(error))
    }

    /// Forgets a sub-transaction, or all of the transaction where both are the same.
    pub fn abort(&mut self, xid: u32, subtransaction: u32) {
        if xid == subtransaction {
            self.forget(xid);
        } else if let Some(transaction) = self.open.get_mut(&xid) {
            transaction.aborted.insert(subtransaction);
        }
    }

    pub fn forget(&mut self, xid: u32) {
        if let Some(transaction) = self.open.remove(&xid) {
            remove(&transaction.path);
        }
    }

    /// What a committed transaction wrote; None where it wrote nothing.
    pub fn replay(&mut self, xid: u32) -> Result<Option<Replay>, Error> {
        let Some(transaction) = self.open.remove(&xid) else { return Ok(None) };
        let rewound = transaction.file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut file| {
            file.rewind()?;
            Ok(file)
        });
        let file = BufReader::with_capacity(BUFFER, rewound.map_err(|error| self.fail(error))?);
        let (path, aborted) = (transaction.path, transaction.aborted);
        Ok(Some(Replay { path, file, aborted, message: Vec::new() }))
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::Spill { folder: self.folder.display().to_string(), source }
    }
}

/// The messages of a transaction, in order, without those of aborted sub-transactions. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    file: BufReader<File>,
    aborted: HashSet<u32>,
    message: Vec<u8>,
}

impl Replay {
    /// Moves to the next message; false at the end. Descriptions of tables are kept whoever sent them: later changes of
    /// the transaction may rest on one whose own sub-transaction was aborted.
    pub fn advance(&mut self) -> Result<bool, Error> {
        loop {
            let mut header = [0; 9];
            match self.file.read(&mut header[..1]).map_err(|error| self.fail(error))? {
                0 => return Ok(false),
                _ => self.file.read_exact(&mut header[1..]).map_err(|error| self.fail(error))?,
            }
            let [x0, x1, x2, x3, l0, l1, l2, l3, tag] = header;
            let subtransaction = u32::from_le_bytes([x0, x1, x2, x3]);
            let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
            if tag != b'R' && self.aborted.contains(&subtransaction) {
                let skip = i64::try_from(length).map_err(|_| Error::Protocol("a message above 4 GB"))?;
                self.file.seek_relative(skip).map_err(|error| self.fail(error))?;
                continue;
            }
            self.message.resize(length + 1, 0);
            self.message[0] = tag;
            let read = self.file.read_exact(&mut self.message[1..]);
            read.map_err(|error| self.fail(error))?;
            return Ok(true);
        }
    }

    /// The message, in the form that it has outside of a streamed piece.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::Spill { folder: self.path.display().to_string(), source }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "a spilled transaction stays behind until the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborted_subtransactions_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(&folder.path().join("spill")).unwrap();
        spill.append(7, 7, b'I', b"one").unwrap();
        spill.append(7, 8, b'R', b"table").unwrap();
        spill.append(7, 8, b'I', b"two").unwrap();
        spill.append(9, 9, b'I', b"other").unwrap();
        spill.append(7, 7, b'I', b"three").unwrap();
        spill.abort(7, 8);
        let mut replay = spill.replay(7).unwrap().unwrap();
        let mut messages = Vec::new();
        while replay.advance().unwrap() {
            messages.push(String::from_utf8(replay.message().to_vec()).unwrap());
        }
        assert_eq!(messages, ["Ione", "Rtable", "Ithree"]);
        drop(replay);
        spill.abort(9, 9);
        assert!(spill.replay(9).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
    }
}
