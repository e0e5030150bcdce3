//! Reading frames from segment files, in large reads that check every CRC.

use crate::error::{Error, Result};
use crate::frame::{self, Frame, HEADER, Header};
use crate::partition::Shared;
use crate::segment::Segment;
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use sync_worker_core::record::Offset;

/// One read: four full frames and a little, so that not much is read twice. A reader holds two of them.
const BLOCK: usize = 4 * frame::TARGET + (256 << 10);

/// Reads a partition forward, segment after segment.
pub struct Reader {
    shared: Arc<Shared>,
    open: Option<Open>,
}

/// A segment that is being read. Retention may take its name meanwhile; the file itself stays readable.
struct Open {
    segment: Arc<Segment>,
    file: File,
    /// Where the next frame starts, and its base offset.
    at: u64,
    next: Offset,
}

impl Reader {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: None }
    }

    /// Blocks. The frames from the one with `from` on, at least one and about [`BLOCK`] bytes of them. `until` is a
    /// durable end of the log above `from`: what is behind it may still be half written.
    pub fn read(&mut self, from: Offset, until: Offset) -> Result<Vec<Frame>> {
        let mut open = match self.open.take().filter(|open| open.next <= from) {
            Some(open) => open,
            None => self.seek(from)?,
        };
        loop {
            let frames = open.block(from, until)?;
            if !frames.is_empty() {
                self.open = Some(open);
                return Ok(frames);
            }
            if open.ended()? {
                let next = self.seek(open.next)?;
                if next.segment.base != open.next || Arc::ptr_eq(&next.segment, &open.segment) {
                    return Err(Error::damaged(&open.segment.path, open.at, "its last records are missing"));
                }
                open = next;
            }
        }
    }

    fn seek(&self, offset: Offset) -> Result<Open> {
        let gone = || {
            let next = Offset(offset.0 + 1);
            Error::Outside { path: self.shared.folder.clone(), from: offset, first: self.shared.first(), next }
        };
        let segment = self.shared.segment(offset).ok_or_else(gone)?;
        let file = File::open(&segment.path).map_err(|error| match error.kind() {
            // Retention was faster.
            ErrorKind::NotFound if self.shared.first() > offset => gone(),
            ErrorKind::NotFound => Error::Missing(segment.path.clone()),
            _ => Error::io("open", &segment.path)(error),
        })?;
        let (next, at) = segment.floor(offset);
        Ok(Open { segment, file, at, next })
    }
}

impl Open {
    /// Reads one block and moves behind its frames, which are those that hold records from `from` up to `until`.
    fn block(&mut self, from: Offset, until: Offset) -> Result<Vec<Frame>> {
        let bytes = self.bytes()?;
        let (mut frames, mut done) = (Vec::new(), 0);
        while self.next < until && done < bytes.len() {
            let rest = &bytes[done..];
            let whole = Header::parse(rest).is_some_and(|header| header.frame_length() <= rest.len());
            if !whole && done > 0 {
                // The rest of it is in the next block, where a bad one will be the first.
                break;
            }
            let path = &self.segment.path;
            let header =
                frame::check(rest, self.segment.seed).ok_or_else(|| Error::damaged(path, self.at, "a bad frame"))?;
            if header.base != self.next {
                return Err(Error::damaged(path, self.at, "records are missing"));
            }
            self.segment.note(header.base, self.at);
            let end = done + header.frame_length();
            if header.end() > from {
                let payload = bytes.slice(done + HEADER..end);
                frames.push(Frame { base: header.base, count: header.count, payload });
            }
            self.at += header.frame_length() as u64;
            self.next = header.end();
            done = end;
        }
        Ok(frames)
    }

    /// About a block from where the next frame starts, that frame whole if the file has it.
    fn bytes(&self) -> Result<Bytes> {
        let mut bytes = BytesMut::zeroed(BLOCK);
        let read = read_full(&self.file, &mut bytes, self.at).map_err(Error::io("read", &self.segment.path))?;
        bytes.truncate(read);
        let whole = Header::parse(&bytes).map_or(0, |header| header.frame_length());
        if whole > BLOCK && read == BLOCK {
            bytes.resize(whole, 0);
            let more = read_full(&self.file, &mut bytes[BLOCK..], self.at + BLOCK as u64);
            bytes.truncate(BLOCK + more.map_err(Error::io("read", &self.segment.path))?);
        }
        Ok(bytes.freeze())
    }

    /// Whether all of the file has been read.
    fn ended(&self) -> Result<bool> {
        let length = self.file.metadata().map_err(Error::io("read", &self.segment.path))?.len();
        Ok(self.at >= length)
    }
}

fn read_full(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
