//! The journal on disk: one frame per command, appended before the reply. A frame is whole or it never happened.
//!
//! `[length u32][crc32 of the payload u32][payload]`, the payload being BSON documents one after another
//! (see [`super::record`]). It is not synced: it must survive the end of the process, not of the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use bson::{RawDocument, RawDocumentBuf};

const HEADER: usize = 8;

#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Records of the command that is running.
    pending: Vec<u8>,
}

impl Journal {
    /// Opens or creates the journal, gives its records to `replay` and cuts off a torn tail.
    pub fn open(path: &Path, mut replay: impl FnMut(&RawDocument) -> io::Result<()>) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let mut sound = 0;
        while let Some(payload) = frame(&content[sound..]) {
            let mut rest = payload;
            while !rest.is_empty() {
                let record = record(rest).ok_or_else(|| io::Error::other("a sound frame holds a damaged record"))?;
                rest = &rest[record.as_bytes().len()..];
                replay(record)?;
            }
            sound += HEADER + payload.len();
        }
        if sound < content.len() {
            tracing::warn!(bytes = content.len() - sound, "cut a torn tail off the journal");
            file.set_len(sound as u64)?;
        }
        Ok(Self { file, pending: Vec::new() })
    }

    pub fn add(&mut self, record: &RawDocumentBuf) {
        if self.pending.is_empty() {
            self.pending.resize(HEADER, 0);
        }
        self.pending.extend_from_slice(record.as_bytes());
    }

    pub fn write(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let payload = &self.pending[HEADER..];
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let crc = crc32fast::hash(payload);
        self.pending[..4].copy_from_slice(&length.to_le_bytes());
        self.pending[4..HEADER].copy_from_slice(&crc.to_le_bytes());
        let written = self.file.write_all(&self.pending);
        self.pending.clear();
        written
    }
}

fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.get(..HEADER)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header[4..].try_into().ok()?);
    let payload = bytes.get(HEADER..HEADER + length)?;
    (crc32fast::hash(payload) == crc).then_some(payload)
}

fn record(bytes: &[u8]) -> Option<&RawDocument> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    RawDocument::from_bytes(bytes.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn read(path: &Path) -> Vec<RawDocumentBuf> {
        let mut records = Vec::new();
        Journal::open(path, |record| {
            records.push(record.to_owned());
            Ok(())
        })
        .expect("opens");
        records
    }

    #[test]
    fn a_torn_tail_is_cut_and_writing_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, |_| Ok(())).expect("opens");
        for number in 0..3 {
            journal.add(&rawdoc! {"n": number});
            journal.write().expect("writes");
        }
        drop(journal);
        let length = std::fs::metadata(&path).expect("exists").len();
        OpenOptions::new().write(true).open(&path).expect("opens").set_len(length - 3).expect("cuts");
        assert_eq!(read(&path), [rawdoc! {"n": 0}, rawdoc! {"n": 1}]);
        let mut journal = Journal::open(&path, |_| Ok(())).expect("opens");
        journal.add(&rawdoc! {"n": 9});
        journal.write().expect("writes");
        assert_eq!(read(&path), [rawdoc! {"n": 0}, rawdoc! {"n": 1}, rawdoc! {"n": 9}]);
    }
}
