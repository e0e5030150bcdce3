//! The windows of snapshot chunks: which keys the stream has shown since a chunk's read began.
//!
//! A chunk is read while the stream goes on. Its window opens before the read and closes when the stream has reached the
//! read's high position. A key that the stream showed in between drops its chunk row, so that a read never beats a
//! change: whatever the read saw of that key, the bus already holds what the stream says. A transaction that came before
//! the window is visible to the read, by the promise of `TableReader`; one that comes after it is above the high position.

use std::collections::{HashMap, HashSet};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::TableName;
use sync_worker_core::position::Position;
use sync_worker_core::reader::Chunk;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::value::Damaged;
use tokio::sync::oneshot;

/// Identifies a window of one capture.
pub type WindowId = u64;

/// Keys that were asked for one by one; those that are not in the chunk are deleted at the targets.
pub type AskedKeys = Vec<Key>;

/// A read that waits for the stream.
#[derive(Debug)]
pub struct Read {
    pub chunk: Chunk,
    /// None for a key range.
    pub asked: Option<AskedKeys>,
    /// Told when the rows are durable on the bus; false: the table was truncated meanwhile, read it again.
    pub done: oneshot::Sender<bool>,
}

#[derive(Debug)]
struct Window {
    table: TableName,
    seen: HashSet<Key>,
    truncated: bool,
    read: Option<Read>,
}

#[derive(Debug, Default)]
pub struct Windows {
    open: HashMap<WindowId, Window>,
    next: WindowId,
}

/// What a closed window leaves to publish.
#[derive(Debug)]
pub struct Closed {
    pub read: Read,
    /// The chunk's rows whose keys the stream has not shown.
    pub rows: Vec<Row>,
    /// Asked keys that neither the chunk nor the stream showed.
    pub gone: Vec<Key>,
    pub truncated: bool,
}

impl Windows {
    pub fn open(&mut self, table: TableName) -> WindowId {
        self.next += 1;
        self.open.insert(self.next, Window { table, seen: HashSet::new(), truncated: false, read: None });
        self.next
    }

    /// Hands in what was read. A window that is gone (its capture has started anew) drops the read.
    pub fn read(&mut self, id: WindowId, read: Read) {
        if let Some(window) = self.open.get_mut(&id) {
            window.read = Some(read);
        }
    }

    /// A read that came to nothing.
    pub fn abandon(&mut self, id: WindowId) {
        self.open.remove(&id);
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes a change that is about to be published.
    pub fn saw(&mut self, change: &Change) -> Result<(), Damaged> {
        for window in self.open.values_mut().filter(|window| window.table == *change.table()) {
            match change.op {
                Op::Truncate => window.truncated = true,
                Op::Create | Op::Read | Op::Update | Op::Delete => {
                    window.seen.extend(change.key()?);
                    window.seen.extend(change.old_key()?);
                }
            }
        }
        Ok(())
    }

    /// Closes the windows whose high position the stream has reached. Only between transactions.
    pub fn close(&mut self, reached: Position) -> Result<Vec<Closed>, Damaged> {
        let ready = |window: &Window| window.read.as_ref().is_some_and(|read| read.chunk.high <= reached);
        let mut ids: Vec<WindowId> = self.open.iter().filter(|(_, window)| ready(window)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let mut closed = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(mut window) = self.open.remove(&id) else { continue };
            let Some(mut read) = window.read.take() else { continue };
            let mut rows = std::mem::take(&mut read.chunk.rows);
            let schema = read.chunk.schema.clone();
            let mut found = HashSet::new();
            if !window.seen.is_empty() || read.asked.is_some() {
                let mut kept = Vec::with_capacity(rows.len());
                for row in rows {
                    let key = schema.key_of(&row)?;
                    if !window.seen.contains(&key) {
                        kept.push(row);
                    }
                    if read.asked.is_some() {
                        found.insert(key);
                    }
                }
                rows = kept;
            }
            let gone = |key: &Key| !found.contains(key) && !window.seen.contains(key);
            let gone = read.asked.iter().flatten().filter(|key| gone(key)).cloned().collect();
            closed.push(Closed { read, rows, gone, truncated: window.truncated });
        }
        Ok(closed)
    }
}
