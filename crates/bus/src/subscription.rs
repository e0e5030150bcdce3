//! A reader of one partition: from memory while it keeps up, from the files while it is behind.

use crate::error::{Error, Result};
use crate::format::{Decoder, Undecodable};
use crate::frame::Frame;
use crate::partition::Shared;
use crate::reader::Reader;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use sync_worker_core::bus::Subscription;
use sync_worker_core::record::{Delivered, Offset};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct LogSubscription {
    shared: Arc<Shared>,
    durable: watch::Receiver<Offset>,
    /// The record that is returned next.
    next: Offset,
    current: Option<Current>,
    /// Frames from a file that follow the current one.
    read: VecDeque<Frame>,
    files: Files,
    decoder: Decoder,
}

/// A frame that is being decoded: the record `offset` starts at byte `at`.
struct Current {
    frame: Frame,
    offset: Offset,
    at: usize,
}

/// One block is read ahead while another is decoded. Kept outside the future of `next`, which may be dropped.
enum Files {
    Idle(Option<Reader>),
    Reading(JoinHandle<(Reader, Result<Vec<Frame>>)>),
}

impl LogSubscription {
    /// `from` is within the bounds.
    pub fn new(shared: Arc<Shared>, durable: watch::Receiver<Offset>, from: Offset) -> Self {
        let files = Files::Idle(None);
        Self { shared, durable, next: from, current: None, read: VecDeque::new(), files, decoder: Decoder::default() }
    }

    /// Decodes what is at hand until there are about `bytes` bytes.
    fn decode(&mut self, bytes: usize, out: &mut Vec<Delivered>) -> Result<()> {
        let mut taken = 0;
        while taken < bytes.max(1) && self.find_frame() {
            let Some(current) = &mut self.current else { return Ok(()) };
            let schemas = &self.shared.schemas;
            while taken < bytes.max(1) && current.offset < current.frame.end() {
                let offset = current.offset;
                let unreadable = |what| Error::Record { path: self.shared.folder.clone(), offset, what };
                let (record, end) = current.frame.record(current.at).map_err(|error| unreadable(error.0))?;
                if offset >= self.next {
                    let decoded = self.decoder.decode(&record, |id| schemas.get(id)).map_err(|error| match error {
                        Undecodable::Damaged(error) => unreadable(error.0),
                        Undecodable::Schema(_) => unreadable("its schema is unknown"),
                    })?;
                    taken += record.len();
                    out.push(Delivered { offset, record: decoded, bytes: record });
                    self.next = offset.next();
                }
                current.at = end;
                current.offset = offset.next();
            }
            if current.offset >= current.frame.end() {
                self.current = None;
            }
        }
        Ok(())
    }

    /// Makes the frame with the next record the current one, if no file has to be read for it.
    fn find_frame(&mut self) -> bool {
        if self.current.is_none() {
            let wanted = self.next;
            while self.read.front().is_some_and(|frame| frame.end() <= wanted) {
                self.read.pop_front();
            }
            let frame = self.read.pop_front().or_else(|| self.shared.cached(wanted));
            self.current = frame.map(|frame| Current { offset: frame.base, frame, at: 0 });
        }
        self.current.is_some()
    }

    /// Starts a read of what follows the frames at hand, if there is more in the files and no read under way.
    fn read_ahead(&mut self) {
        let behind = self.read.back().map(Frame::end);
        let from = behind.or(self.current.as_ref().map(|current| current.frame.end())).unwrap_or(self.next);
        let until = *self.durable.borrow();
        if from >= until || self.shared.cached(from).is_some() {
            return;
        }
        if let Files::Idle(reader) = &mut self.files {
            let mut reader = reader.take().unwrap_or_else(|| Reader::new(self.shared.clone()));
            self.files = Files::Reading(tokio::task::spawn_blocking(move || {
                let frames = reader.read(from, until);
                (reader, frames)
            }));
        }
    }

    /// Waits for the read under way, if there is one. Cancel safe.
    async fn take_read(&mut self) -> Result<bool> {
        let Files::Reading(handle) = &mut self.files else { return Ok(false) };
        let joined = handle.await;
        self.files = Files::Idle(None);
        let (reader, frames) = joined.map_err(|error| Error::io("read", &self.shared.folder)(error.into()))?;
        self.files = Files::Idle(Some(reader));
        self.read.extend(frames?);
        Ok(true)
    }
}

#[async_trait]
impl Subscription for LogSubscription {
    async fn next(&mut self, bytes: usize) -> sync_worker_core::error::Result<Vec<Delivered>> {
        let mut out = Vec::new();
        loop {
            // Nothing is awaited while `out` holds records, so none are lost when this future is dropped.
            let decoded = self.decode(bytes, &mut out);
            if !out.is_empty() {
                // An error comes again at the next call, behind the records before it.
                self.read_ahead();
                return Ok(out);
            }
            decoded?;
            if *self.durable.borrow_and_update() <= self.next {
                let closed = |_| Error::Closed(self.shared.folder.clone());
                self.durable.changed().await.map_err(closed)?;
                continue;
            }
            self.read_ahead();
            self.take_read().await?;
        }
    }

    fn caught_up(&self) -> bool {
        *self.durable.borrow() <= self.next
    }
}
