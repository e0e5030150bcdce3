//! What stands on the bus. The bytes of a record are the business of the `bus` crate.

use crate::change::Change;
use crate::name::DatabaseName;
use crate::position::Position;
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
