//! The oplog: what happened, in the order of its commits. Change streams read nothing else.

use std::collections::VecDeque;
use std::sync::Arc;

use bson::{Binary, DateTime, RawDocumentBuf};

use super::clock::Time;
use super::namespace::Namespace;
use crate::value::Shared;
use crate::value::order::Key;

#[derive(Debug, Clone)]
pub struct Entry {
    pub time: Time,
    /// The entry's place among those of one commit.
    pub ordinal: u32,
    pub wall: DateTime,
    pub namespace: Namespace,
    pub collection: Option<Binary>,
    pub transaction: Option<Arc<TransactionId>>,
    /// Whether the collection kept images when this was written.
    pub images: bool,
    pub change: Change,
}

/// `{id, uid}` of the session, and the number in it.
#[derive(Debug)]
pub struct TransactionId {
    pub session: RawDocumentBuf,
    pub number: i64,
}

#[derive(Debug, Clone)]
pub enum Change {
    Insert { key: Key, after: Shared },
    Update { key: Key, before: Option<Shared>, after: Shared, description: Arc<RawDocumentBuf> },
    Replace { key: Key, before: Option<Shared>, after: Shared },
    Delete { key: Key, before: Option<Shared> },
    Create { options: RawDocumentBuf },
    Drop,
    Rename { to: Namespace },
    DropDatabase,
    Modify { options: RawDocumentBuf },
    CreateIndex { specification: RawDocumentBuf },
    DropIndex { name: String, specification: RawDocumentBuf },
    Note { data: RawDocumentBuf },
}

impl Change {
    /// The row that it writes, and what the row is afterwards.
    pub fn row(&self) -> Option<(&Key, Option<&Shared>)> {
        match self {
            Self::Insert { key, after } | Self::Update { key, after, .. } | Self::Replace { key, after, .. } => {
                Some((key, Some(after)))
            }
            Self::Delete { key, .. } => Some((key, None)),
            _ => None,
        }
    }

    pub fn set_before(&mut self, row: Option<Shared>) {
        match self {
            Self::Update { before, .. } | Self::Replace { before, .. } | Self::Delete { before, .. } => *before = row,
            _ => {}
        }
    }

    pub fn operation(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Update { .. } => "update",
            Self::Replace { .. } => "replace",
            Self::Delete { .. } => "delete",
            Self::Create { .. } => "create",
            Self::Drop => "drop",
            Self::Rename { .. } => "rename",
            Self::DropDatabase => "dropDatabase",
            Self::Modify { .. } => "modify",
            Self::CreateIndex { .. } => "createIndexes",
            Self::DropIndex { .. } => "dropIndexes",
            Self::Note { .. } => "noop",
        }
    }
}

#[derive(Debug)]
pub struct Oplog {
    entries: VecDeque<Arc<Entry>>,
    /// How many entries were cut off: the index of the first that is left.
    start: u64,
    /// Before this time history is lost.
    floor: Time,
    /// Cut down to this many entries from time to time; 0 keeps everything.
    limit: usize,
}

impl Oplog {
    pub fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), start: 0, floor: Time::ZERO, limit }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub fn at(&self, index: u64) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(index.checked_sub(self.start)?).ok()?)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    pub fn push(&mut self, entry: Arc<Entry>) {
        self.entries.push_back(entry);
    }

    /// The index of the first entry at or after a time.
    pub fn first_at(&self, time: Time) -> u64 {
        self.start + self.entries.partition_point(|entry| entry.time < time) as u64
    }

    /// Whether something at or after the time was cut off.
    pub fn has_lost(&self, time: Time) -> bool {
        time < self.floor
    }

    pub fn is_too_long(&self) -> bool {
        self.limit > 0 && self.entries.len() > self.limit + self.limit / 4
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Cuts off all but the last entries, never in the middle of a commit, and gives what was cut.
    pub fn truncate(&mut self, keep: usize) -> Vec<Arc<Entry>> {
        let mut cut = self.entries.len().saturating_sub(keep);
        while cut > 0 && cut < self.entries.len() && self.entries[cut].time == self.entries[cut - 1].time {
            cut -= 1;
        }
        let gone: Vec<_> = self.entries.drain(..cut).collect();
        self.start += gone.len() as u64;
        if let Some(last) = gone.last() {
            self.floor = last.time.next();
        }
        gone
    }
}
