//! A reader of one partition: from memory while it keeps up, from the files while it is behind. A reader ahead takes from
//! memory what the files do not have for certain yet.

use crate::error::{Error, Result};
use crate::format::{Decoder, Undecodable};
use crate::frame::Frame;
use crate::partition::{End, Shared};
use crate::reader::Reader;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use sync_worker_core::bus::{Durability, Flush, Subscription};
use sync_worker_core::record::{Delivered, Offset};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct LogSubscription {
    shared: Arc<Shared>,
    durable: watch::Receiver<End>,
    /// Of a reader ahead.
    ahead: Option<Ahead>,
    /// The record that is returned next.
    next: Offset,
    current: Option<Current>,
    /// Frames from a file that follow the current one.
    read: VecDeque<Frame>,
    files: Files,
    decoder: Decoder,
}

struct Ahead {
    written: watch::Receiver<End>,
    /// As it was when the reader began. When it is another, what has been read may not be what stands there.
    taken_back: u64,
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
    pub fn new(shared: Arc<Shared>, durable: watch::Receiver<End>, from: Offset) -> Self {
        let (files, decoder) = (Files::Idle(None), Decoder::default());
        Self { shared, durable, ahead: None, next: from, current: None, read: VecDeque::new(), files, decoder }
    }

    /// The same reader, ahead; `taken_back` as it was when `from` was within the bounds.
    pub fn ahead(self, written: watch::Receiver<End>, taken_back: u64) -> Self {
        Self { ahead: Some(Ahead { written, taken_back }), ..self }
    }

    /// What this reader may take from memory.
    fn end(&self) -> End {
        match &self.ahead {
            Some(ahead) => End { taken_back: ahead.taken_back, ..*ahead.written.borrow() },
            None => *self.durable.borrow(),
        }
    }

    /// Waits until there is more than this reader has returned. Cancel safe.
    async fn more(&mut self) -> Result<()> {
        let (next, begun) = (self.next, self.ahead.as_ref().map(|ahead| ahead.taken_back));
        let is_other = |end: &End| begun.is_some_and(|begun| begun != end.taken_back);
        let follows = self.ahead.as_mut().map_or(&mut self.durable, |ahead| &mut ahead.written);
        let end = follows.wait_for(|end| end.next > next || is_other(end)).await;
        let end = end.map(|end| *end).map_err(|_| Error::Closed(self.shared.folder.clone()))?;
        if is_other(&end) { Err(Error::TakenBack(self.shared.folder.clone())) } else { Ok(()) }
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
            let frame = self.read.pop_front().or_else(|| self.shared.cached(wanted, self.end()));
            self.current = frame.map(|frame| Current { offset: frame.base, frame, at: 0 });
        }
        self.current.is_some()
    }

    /// Starts a read of what follows the frames at hand, if there is more in the files and no read under way.
    fn read_ahead(&mut self) {
        let behind = self.read.back().map(Frame::end);
        let from = behind.or(self.current.as_ref().map(|current| current.frame.end())).unwrap_or(self.next);
        let durable = *self.durable.borrow();
        let is_other = self.ahead.as_ref().is_some_and(|ahead| ahead.taken_back != durable.taken_back);
        if from >= durable.next || is_other || self.shared.cached(from, self.end()).is_some() {
            return;
        }
        let until = durable.next;
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
            self.more().await?;
            self.read_ahead();
            self.take_read().await?;
        }
    }

    fn caught_up(&self) -> bool {
        self.durable.borrow().next <= self.next
    }
}

/// Of a reader ahead.
pub struct LogDurability {
    pub shared: Arc<Shared>,
    pub durable: watch::Receiver<End>,
    /// As it was when the reader began.
    pub taken_back: u64,
}

impl Durability for LogDurability {
    fn pending(&self, offset: Offset) -> Option<Flush> {
        let begun = self.taken_back;
        let is_durable = move |end: &End| end.taken_back == begun && end.next > offset;
        if is_durable(&self.durable.borrow()) {
            return None;
        }
        let (mut durable, folder) = (self.durable.clone(), self.shared.folder.clone());
        Some(Box::pin(async move {
            let end = durable.wait_for(|end| end.taken_back != begun || end.next > offset).await;
            match end.map(|end| is_durable(&end)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::TakenBack(folder).into()),
                Err(_) => Err(Error::Closed(folder).into()),
            }
        }))
    }
}
