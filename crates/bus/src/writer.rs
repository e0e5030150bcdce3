//! The thread that owns the files of a partition: group commit, new segments, retention.

use crate::config::Config;
use crate::consumers::Consumers;
use crate::disk::{self, Disk};
use crate::error::{Error, is_full};
use crate::frame::{self, Frame, HEADER};
use crate::partition::{End, Failure, Job, Pending, Shared};
use crate::segment::{Previous, START, Segment};
use bytes::BytesMut;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use sync_worker_core::record::Offset;
use tokio::sync::watch;
use uuid::Uuid;

pub struct Writer {
    pub shared: Arc<Shared>,
    pub consumers: Arc<Consumers>,
    pub disk: Arc<dyn Disk>,
    pub config: Config,
    pub identity: Uuid,
    pub segment: Arc<Segment>,
    /// The segment's file, open for writing.
    pub file: File,
    /// Where the next frame goes. Whatever is behind it has not been acknowledged.
    pub end: u64,
    pub next: Offset,
    /// What readers ahead may read, and what everybody may rest on.
    pub ahead: watch::Sender<End>,
    pub durable: watch::Sender<End>,
}

impl Writer {
    /// Until the partition is closed. Blocks; runs on a thread of its own.
    pub fn run(mut self) {
        loop {
            match self.shared.job(frame::TARGET) {
                Job::Write(group) => self.commit(group),
                Job::Clean => self.remove_old(),
                Job::Close => return,
            }
        }
    }

    fn commit(&mut self, mut group: Vec<Pending>) {
        let mut next = self.next;
        match self.store(&mut group) {
            Ok(end) => self.next = end,
            Err(failure) => {
                tracing::error!(file = %failure.path.display(), reason = %failure.reason, "the log could not be written");
                return self.shared.fail(group, failure);
            }
        }
        // Only now may publishers and readers rest on it (invariant 1).
        self.durable.send_modify(|end| end.next = self.next);
        for pending in group {
            next = Offset(next.0 + u64::from(pending.count));
            if let Some(answer) = pending.answer {
                // A publisher that is gone needs no answer.
                answer.send(Ok(Offset(next.0 - 1))).unwrap_or_default();
            }
        }
    }

    /// Writes a group as one frame, durable when it returns, and returns the offset behind it.
    fn store(&mut self, group: &mut [Pending]) -> Result<Offset, Failure> {
        for pending in group.iter() {
            self.shared
                .schemas
                .add(&pending.schemas, &*self.disk)
                .map_err(|error| failure(&self.shared.folder, error))?;
        }
        let count = group.iter().map(|pending| pending.count).sum();
        let mut frame = assemble(group);
        let length = frame.len() as u64;
        if self.end > START && self.end + length > self.config.segment_bytes {
            self.roll().map_err(|error| failure(&self.shared.folder, error))?;
            self.remove_old();
        }
        frame::seal(&mut frame, self.next, count, self.shared.schemas.count(), self.segment.seed);
        let frame = frame.freeze();
        if let Err(error) = self.disk.write_all_at(&self.file, &frame, self.end) {
            return Err(self.undo(&error, is_full(error.kind())));
        }
        // Readers ahead work on it while it is being flushed.
        let written = Frame { base: self.next, count, payload: frame.slice(HEADER..) };
        let end = written.end();
        self.shared.cache(written);
        self.ahead.send_modify(|ahead| ahead.next = end);
        if let Err(error) = self.disk.sync(&self.file) {
            self.take_back();
            return Err(self.undo(&error, false));
        }
        self.segment.note(self.next, self.end);
        self.end += length;
        self.shared.written.store(self.end, Ordering::Relaxed);
        Ok(end)
    }

    /// Tells everybody who may have read a frame that it has not become durable. Readers ahead first: one that finds the
    /// cache changed must find out why.
    fn take_back(&self) {
        let end = End { next: self.next, taken_back: self.durable.borrow().taken_back + 1 };
        self.ahead.send_replace(end);
        self.shared.take_back(end);
        self.durable.send_replace(end);
    }

    /// Takes back what was written of a frame: nobody rests on it, so the next start must not find it.
    fn undo(&self, error: &io::Error, full: bool) -> Failure {
        let path = self.segment.path.clone();
        match self.file.set_len(self.end) {
            Ok(()) => Failure { path, reason: error.to_string(), full },
            Err(cut) => Failure { path, reason: format!("{error}, then {cut}"), full: false },
        }
    }

    /// Starts the next segment.
    fn roll(&mut self) -> Result<(), Error> {
        let previous = Some(Previous { base: self.segment.base, length: self.end });
        // The length that the next header will state, also where a failed write has been taken back.
        self.disk.sync(&self.file).map_err(|error| self.broken(&error))?;
        let (folder, schemas) = (&self.shared.folder, self.shared.schemas.count());
        let segment = Segment::create(folder, self.identity, self.shared.partition.0, self.next, previous, schemas)?;
        self.file = File::options().write(true).open(&segment.path).map_err(Error::io("open", &segment.path))?;
        self.end = START;
        self.shared.written.store(self.end, Ordering::Relaxed);
        self.segment = Arc::new(segment);
        self.shared.add_segment(self.segment.clone());
        Ok(())
    }

    fn broken(&self, error: &io::Error) -> Error {
        Error::Broken { path: self.segment.path.clone(), reason: error.to_string() }
    }

    /// Retention: the oldest segments go when the log is too large or they are too old, and no consumer needs them.
    fn remove_old(&mut self) {
        let segments = self.shared.segments();
        let mut bytes = self.shared.bytes();
        for (oldest, following) in segments.iter().zip(segments.iter().skip(1)) {
            let length = following.previous.map_or(0, |previous| previous.length);
            let age = oldest.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            let outdated = bytes > self.config.max_bytes || age.is_some_and(|age| age > self.config.max_age);
            let needed = self.consumers.slowest(self.shared.partition).is_some_and(|slowest| slowest < following.base);
            if !outdated || needed {
                return;
            }
            self.shared.drop_oldest();
            // In order even over a crash: a segment that came back without the next one would look like a loss.
            let removed = fs::remove_file(&oldest.path).map_err(Error::io("remove", &oldest.path));
            if let Err(error) = removed.and_then(|()| disk::sync_folder(&self.shared.folder)) {
                tracing::warn!(error = %error, "an old log segment stays until the next start");
                return;
            }
            tracing::debug!(file = %oldest.path.display(), "removed an old log segment");
            bytes -= length;
        }
    }
}

impl Drop for Writer {
    /// However it ends, a panic included, nobody waits for it any more.
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// The records of a group behind room for the header of a frame.
fn assemble(group: &mut [Pending]) -> BytesMut {
    let Some((first, others)) = group.split_first_mut() else { return BytesMut::zeroed(HEADER) };
    let mut frame = std::mem::take(&mut first.frame);
    frame.reserve(others.iter().map(|pending| pending.frame.len() - HEADER).sum());
    for pending in others {
        frame.extend_from_slice(&pending.frame[HEADER..]);
        pending.frame = BytesMut::new();
    }
    frame
}

fn failure(folder: &Path, error: Error) -> Failure {
    match error {
        Error::Full { path, reason } => Failure { path, reason, full: true },
        Error::Broken { path, reason } => Failure { path, reason, full: false },
        Error::Io { path, source, .. } => Failure { path, reason: source.to_string(), full: is_full(source.kind()) },
        other => Failure { path: folder.to_owned(), reason: other.to_string(), full: false },
    }
}
