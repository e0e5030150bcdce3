//! What publishers, the writer and readers of one partition share.

use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::lock;
use crate::schemas::Schemas;
use crate::segment::Segment;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use sync_worker_core::bus::Bounds;
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::schema::Schema;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub struct Shared {
    pub partition: Partition,
    pub folder: PathBuf,
    pub schemas: Arc<Schemas>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Bytes that may still be queued.
    pub room: Arc<Semaphore>,
    /// The oldest first, never empty. The last one is being written.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    tail: Mutex<Tail>,
    /// The length of the segment being written.
    pub written: AtomicU64,
}

/// An end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub next: Offset,
    /// How often frames have been taken back, since the log was opened. With another count, an offset may mean another
    /// record.
    pub taken_back: u64,
}

/// What a publish waits for: the offset of its last record.
pub type Answer = std::result::Result<Offset, Arc<Failure>>;

/// Encoded records on their way to the disk.
pub struct Pending {
    /// The records behind [`crate::frame::HEADER`] spare bytes.
    pub frame: BytesMut,
    pub count: u32,
    /// Schemas that must be durable before them.
    pub schemas: Vec<Arc<Schema>>,
    /// On the last part of a publish.
    pub answer: Option<oneshot::Sender<Answer>>,
    pub room: Option<OwnedSemaphorePermit>,
}

/// Why a group did not become durable. As long as one of its publishers has not looked at its receipt, nothing more is
/// taken: it could be the continuation of what was lost.
#[derive(Debug)]
pub struct Failure {
    pub path: PathBuf,
    pub reason: String,
    /// Making room mends it; otherwise the file must not be written again.
    pub full: bool,
}

impl Failure {
    pub fn error(&self) -> Error {
        let (path, reason) = (self.path.clone(), self.reason.clone());
        if self.full { Error::Full { path, reason } } else { Error::Broken { path, reason } }
    }
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<Pending>,
    /// A consumer has moved on, or was declared: something may be removed.
    clean: bool,
    closed: bool,
    broken: Option<Arc<Failure>>,
    unseen: Weak<Failure>,
}

/// What the writer is to do next.
pub enum Job {
    Write(Vec<Pending>),
    Clean,
    Close,
}

/// The newest frames, so that readers that keep up never touch a file.
struct Tail {
    frames: VecDeque<Frame>,
    bytes: usize,
    limit: usize,
    taken_back: u64,
}

impl Shared {
    pub fn new(
        partition: Partition,
        folder: PathBuf,
        schemas: Arc<Schemas>,
        segments: VecDeque<Arc<Segment>>,
        queue_bytes: u32,
        cache_bytes: usize,
    ) -> Self {
        Self {
            partition,
            folder,
            schemas,
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(queue_bytes as usize)),
            segments: Mutex::new(segments),
            tail: Mutex::new(Tail { frames: VecDeque::new(), bytes: 0, limit: cache_bytes, taken_back: 0 }),
            written: AtomicU64::new(0),
        }
    }

    /// Queues the parts of one publish behind each other.
    pub fn push(&self, parts: Vec<Pending>) -> Result<()> {
        let mut queue = lock(&self.queue);
        if let Some(failure) = &queue.broken {
            return Err(failure.error());
        }
        if queue.closed {
            return Err(Error::Closed(self.folder.clone()));
        }
        if queue.unseen.upgrade().is_some() {
            return Err(Error::Unseen(self.folder.clone()));
        }
        queue.pending.extend(parts);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub fn clean(&self) {
        lock(&self.queue).clean = true;
        self.wake.notify_one();
    }

    /// No publish is taken any more; the writer ends after those that are queued.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_one();
    }

    /// Takes no publish any more; receipts that are still open resolve to an error.
    pub fn abandon(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let pending = std::mem::take(&mut queue.pending);
        drop(queue);
        drop(pending);
    }

    /// Waits for something to do. A group ends once it has `target` bytes.
    pub fn job(&self, target: usize) -> Job {
        let mut queue = lock(&self.queue);
        loop {
            if !queue.pending.is_empty() {
                let mut bytes = 0;
                let within = |pending: &&Pending| {
                    let taken = bytes == 0 || bytes + pending.frame.len() <= target;
                    bytes += pending.frame.len();
                    taken
                };
                let count = queue.pending.iter().take_while(within).count();
                return Job::Write(queue.pending.drain(..count).collect());
            }
            if queue.clean {
                queue.clean = false;
                return Job::Clean;
            }
            if queue.closed {
                return Job::Close;
            }
            queue = self.wake.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Fails a group and everything queued behind it at once, so that nothing later becomes durable (invariant 1).
    pub fn fail(&self, group: Vec<Pending>, failure: Failure) {
        let failure = Arc::new(failure);
        let mut queue = lock(&self.queue);
        queue.unseen = Arc::downgrade(&failure);
        if !failure.full {
            queue.broken = Some(failure.clone());
        }
        let behind = std::mem::take(&mut queue.pending);
        drop(queue);
        let mut answers: Vec<_> = group.into_iter().chain(behind).filter_map(|pending| pending.answer).collect();
        let last = answers.pop();
        // A publisher that no longer waits has seen enough. Nothing of the failure stays here behind the last answer.
        for answer in answers {
            answer.send(Err(failure.clone())).unwrap_or_default();
        }
        if let Some(answer) = last {
            answer.send(Err(failure)).unwrap_or_default();
        }
    }

    /// Keeps a frame that is written, durable or not.
    pub fn cache(&self, frame: Frame) {
        let mut tail = lock(&self.tail);
        tail.bytes += frame.payload.len();
        tail.frames.push_back(frame);
        while tail.bytes > tail.limit && tail.frames.len() > 1 {
            let bytes = tail.frames.pop_front().map_or(0, |frame| frame.payload.len());
            tail.bytes -= bytes;
        }
    }

    /// Forgets what did not become durable. A reader ahead that had the chance to see it gets nothing from here any more.
    pub fn take_back(&self, end: End) {
        let mut tail = lock(&self.tail);
        while tail.frames.back().is_some_and(|frame| frame.base >= end.next) {
            let bytes = tail.frames.pop_back().map_or(0, |frame| frame.payload.len());
            tail.bytes -= bytes;
        }
        tail.taken_back = end.taken_back;
    }

    /// The frame with a record, if it is in memory, up to an end of the log as the reader knows it.
    pub fn cached(&self, offset: Offset, until: End) -> Option<Frame> {
        let tail = lock(&self.tail);
        let at = tail.frames.partition_point(|frame| frame.end() <= offset);
        let frame = tail.frames.get(at).filter(|frame| frame.base <= offset && frame.end() <= until.next)?;
        (tail.taken_back == until.taken_back).then(|| frame.clone())
    }

    pub fn first(&self) -> Offset {
        lock(&self.segments).front().map_or(Offset(0), |segment| segment.base)
    }

    /// The base of the segment that an offset is in.
    pub fn base_of(&self, offset: Offset) -> Option<Offset> {
        self.segment(offset).map(|segment| segment.base)
    }

    pub fn segment(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = lock(&self.segments);
        let after = segments.partition_point(|segment| segment.base <= offset);
        after.checked_sub(1).map(|at| segments[at].clone())
    }

    pub fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).iter().cloned().collect()
    }

    pub fn add_segment(&self, segment: Arc<Segment>) {
        lock(&self.segments).push_back(segment);
    }

    /// Takes the oldest segment out of the bounds, before its file goes.
    pub fn drop_oldest(&self) {
        lock(&self.segments).pop_front();
    }

    /// The length of all files.
    pub fn bytes(&self) -> u64 {
        let segments = lock(&self.segments);
        let closed: u64 =
            segments.iter().skip(1).filter_map(|segment| segment.previous).map(|previous| previous.length).sum();
        closed + self.written.load(Ordering::Relaxed)
    }

    pub fn bounds(&self, durable: &watch::Receiver<End>) -> Bounds {
        // `first` never passes `next`, whichever is read first: the segment being written is never dropped.
        Bounds { first: self.first(), next: durable.borrow().next }
    }

    pub fn outside(&self, from: Offset, bounds: Bounds) -> Error {
        Error::Outside { path: self.folder.clone(), from, first: bounds.first, next: bounds.next }
    }
}
