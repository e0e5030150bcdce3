//! All collections and their history, and how they are read.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::path::Path;

use bson::RawDocument;
use bson::oid::ObjectId;

use super::clock::{Clock, Time};
use super::collection::Collection;
use super::journal::Journal;
use super::namespace::Namespace;
use super::oplog::Oplog;
use super::record::Record;
use super::session::{Phase, Sessions};
use super::transaction::{Holds, Transaction};
use super::walk::Walk;
use crate::failure::{Failure, code};
use crate::query::filter::Filter;
use crate::query::range::Range;
use crate::query::sort::Sort;
use crate::value::Shared;

#[derive(Debug)]
pub struct Store {
    pub clock: Clock,
    pub oplog: Oplog,
    pub sessions: Sessions,
    pub(super) collections: BTreeMap<Namespace, Collection>,
    pub(super) holds: Holds,
    pub(super) journal: Option<Journal>,
    /// When a name last lost its collection: reads from before can't be served.
    pub(super) gone: HashMap<Namespace, Time>,
    /// `replicaSetId`: whose history this is. It comes back with the journal.
    pub identity: ObjectId,
    /// Counts whatever somebody may wait for.
    pub changes: u64,
}

/// What a read sees: the present, a past time, or a transaction's snapshot with its own writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct View<'a> {
    pub time: Option<Time>,
    pub transaction: Option<&'a Transaction>,
}

impl<'a> View<'a> {
    pub fn of(transaction: Option<&'a Transaction>, time: Option<Time>) -> Self {
        Self { time: transaction.map_or(time, |transaction| Some(transaction.read_at)), transaction }
    }
}

/// Which documents a read wants.
#[derive(Debug)]
pub struct Selection {
    pub filter: Filter,
    pub range: Range,
    /// The places of a secondary index that a hint names.
    pub walk: Option<Walk>,
    pub sort: Sort,
    pub skip: usize,
    /// 0: no limit.
    pub limit: usize,
}

impl Selection {
    pub fn of(filter: Filter) -> Self {
        let range = Range::of(&filter);
        Self { filter, range, walk: None, sort: Sort::default(), skip: 0, limit: 0 }
    }

    pub fn limited(filter: Filter, limit: usize) -> Self {
        Self { limit, ..Self::of(filter) }
    }
}

impl Store {
    /// An empty store, or the one whose journal is in the folder.
    pub fn open(folder: Option<&Path>, oplog_limit: usize) -> io::Result<Self> {
        let mut store = Self {
            clock: Clock::start(),
            oplog: Oplog::new(oplog_limit),
            sessions: Sessions::default(),
            collections: BTreeMap::new(),
            holds: Holds::default(),
            journal: None,
            gone: HashMap::new(),
            identity: ObjectId::new(),
            changes: 0,
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)?;
            let journal = Journal::open(&folder.join("journal"), |record| {
                store.replay(record).map_err(|failure| io::Error::other(failure.message))
            })?;
            store.clock.skip_a_second();
            store.journal = Some(journal);
            store.record(&Record::Identity { identity: store.identity });
            store.write_journal()?;
        }
        Ok(store)
    }

    fn replay(&mut self, record: &RawDocument) -> Result<(), Failure> {
        match Record::decode(record)? {
            Record::Entry(entry) => {
                if let Some(transaction) = &entry.transaction
                    && let Ok(id) = transaction.session.get_binary("id")
                {
                    let session = self.sessions.get(id.bytes);
                    session.number = transaction.number;
                    session.phase = Phase::Committed;
                }
                self.apply(entry)?;
            }
            Record::Written { session, number, reply } => {
                let session = self.sessions.get(&session);
                session.number = number;
                session.phase = Phase::Written(reply);
            }
            Record::Truncated { keep } => self.cut(keep),
            Record::Identity { identity } => self.identity = identity,
            Record::Behind { time, namespace, key, row } => {
                self.clock.observe(time);
                if let Some(collection) = self.collections.get_mut(&namespace) {
                    collection.put(&key, time, row);
                }
            }
        }
        Ok(())
    }

    pub fn collection(&self, namespace: &Namespace) -> Option<&Collection> {
        self.collections.get(namespace)
    }

    pub fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collections.values()
    }

    pub fn in_database<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a Collection> {
        self.collections.values().filter(move |collection| collection.namespace.database() == database)
    }

    /// Refuses a time whose history is gone or that has not come yet.
    pub fn check_readable(&mut self, namespace: &Namespace, time: Time) -> Result<(), Failure> {
        self.clock.observe(time);
        if self.oplog.has_lost(time) {
            return Err(Failure::new(239, "Read timestamp is older than the oldest available timestamp."));
        }
        if self.gone.get(namespace).is_some_and(|gone| time < *gone) {
            return Err(Failure::new(
                code::SNAPSHOT_UNAVAILABLE,
                format!("Unable to read from a snapshot due to pending collection catalog changes: {namespace}"),
            ));
        }
        Ok(())
    }

    pub fn find(&self, namespace: &Namespace, selection: &Selection, view: View<'_>) -> Vec<Shared> {
        let Some(collection) = self.collections.get(namespace) else { return Vec::new() };
        let Selection { filter, range, walk: hinted, sort, skip, limit } = selection;
        let wanted = if *limit == 0 { usize::MAX } else { *limit };
        let planned = match (hinted, range) {
            (None, Range::Between(Bound::Unbounded, Bound::Unbounded)) => Walk::planned(filter, collection),
            _ => None,
        };
        if let Some(walk) = hinted.as_ref().or(planned.as_ref()) {
            let mut rows = walk.rows(collection, &self.oplog, view);
            rows.retain(|row| filter.matches(row));
            if !sort.is_by(walk.names(collection)) {
                sort.sort(&mut rows);
            }
            return rows.into_iter().skip(*skip).take(wanted).collect();
        }
        let own = view.transaction.and_then(|transaction| transaction.own(namespace));
        let walk = sort.by_key();
        let matching = collection
            .rows
            .scan(range, view.time, own, walk.unwrap_or(false))
            .filter(|row| filter.is_everything() || filter.matches(row))
            .cloned();
        if walk.is_some() {
            return matching.skip(*skip).take(wanted).collect();
        }
        let mut all: Vec<Shared> = matching.collect();
        sort.sort(&mut all);
        all.into_iter().skip(*skip).take(wanted).collect()
    }

    pub fn write_journal(&mut self) -> io::Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::write)
    }

    pub(super) fn record(&mut self, record: &Record) {
        if let Some(journal) = &mut self.journal {
            journal.add(&record.encode());
        }
    }

    /// Keeps a retryable write's reply for the retry, over a restart too.
    pub fn remember(&mut self, session: &[u8], number: i64, reply: &RawDocument) {
        if self.journal.is_some() {
            self.record(&Record::Written { session: session.to_vec(), number, reply: reply.to_owned() });
        }
        let session = self.sessions.get(session);
        session.number = number;
        session.phase = Phase::Written(reply.to_owned());
    }

    pub fn truncate_oplog(&mut self, keep: usize) {
        self.cut(keep);
        self.record(&Record::Truncated { keep });
    }

    pub(super) fn cut(&mut self, keep: usize) {
        for entry in self.oplog.truncate(keep) {
            if let (Some((key, _)), Some(collection)) = (entry.change.row(), self.collections.get_mut(&entry.namespace))
            {
                collection.rows.forget(key, entry.time);
            }
        }
        self.changes += 1;
    }
}
