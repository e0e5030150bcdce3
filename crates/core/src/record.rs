//! What stands on the bus. The bytes of a record are the business of the `bus` crate.

use crate::change::Change;
use crate::echo::Echo;
use crate::guard::Image;
use crate::name::{DatabaseName, TableName};
use crate::position::{Lsn, Position, PostgresPosition};
use crate::rules::TwoWay;
use crate::schema::Schema;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// The place of a record in one bus partition; the first is 0, without holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A bus partition: the hash of (table, key) picks it. A pipeline has one unless its configuration says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

/// One record. A transaction's records stand together and in order; the last one says so.
#[derive(Clone, Debug)]
pub struct Record {
    pub origin: DatabaseName,
    pub position: Position,
    /// The position of the record of this origin before this one in this partition: a reader that took another one last
    /// has met a duplicate or a hole (invariant 3). None for the first of an origin. A snapshot row does not move the
    /// position: both are the last streamed one.
    pub previous: Option<Position>,
    /// The source's own name of the transaction (an xid, a GTID), on its first record only.
    pub transaction: Option<Arc<str>>,
    /// No record of this transaction follows: an applier may commit after this one.
    pub last: bool,
    /// Microseconds since 1970-01-01 UTC by the source's clock.
    pub commit_time: i64,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Change(Change),
    /// Precedes the first row that uses it. Not a part of any transaction: `position` and `previous` are the last
    /// streamed ones.
    Schema(Arc<Schema>),
    /// The end of a transaction whose last row was published before its end was known.
    Commit,
    /// A transaction of ours, in place of its rows.
    Marker(Echo),
    /// What the pipeline does from here on. Of no member, and with no position.
    Configuration(Arc<TwoWay>),
    /// A person's choice about a key that has a conflict on record. Of no member, and with no position.
    Decision(Decision),
    /// A person's word that a table goes on which the appliers have paused. Of no member, and with no position.
    Resume(TableName),
    /// The rows that every member had of a table at the pipeline's start are on the log, where they are merged. Of no
    /// member, and with no position.
    Seeded(TableName),
}

/// A version of nobody's, which takes effect only where the state that the person saw still stands.
#[derive(Clone, Debug)]
pub struct Decision {
    /// In the logical schema: a create with the row, or a delete with its key.
    pub change: Change,
    pub seen: Image,
}

impl Record {
    /// A record that is none of a member's: it has no place in any stream.
    pub fn of_nobody(commit_time: i64, body: Body) -> Self {
        let position = Position::Postgres(PostgresPosition { commit: Lsn(0), ordinal: 0 });
        let (previous, transaction, last) = (None, None, true);
        Self { origin: DatabaseName::new(""), position, previous, transaction, last, commit_time, body }
    }

    pub fn is_of_nobody(&self) -> bool {
        matches!(self.body, Body::Configuration(_) | Body::Decision(_) | Body::Resume(_) | Body::Seeded(_))
    }
}

/// A record as a subscription hands it out.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub offset: Offset,
    pub record: Record,
    /// The record's bytes as they stand on the bus.
    pub bytes: Bytes,
}

impl Delivered {
    pub fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.bytes)
    }
}
