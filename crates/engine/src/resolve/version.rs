//! Versions of a row, and what is under way of them.

use super::key::RowKey;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Row;

/// A database of the pipeline, by its place among the members in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub u8);

/// Who made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Member(Member),
    /// Put together from versions of several members: nobody holds it yet.
    Merge,
    Person,
}

/// Names a version on every applier alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionId {
    /// The version that this record brought.
    Record(Offset),
    /// What the columns of this record were merged into.
    Merged(Offset),
}

/// A state of a row that was accepted, or wants to be.
#[derive(Clone, Debug)]
pub struct Version {
    pub id: VersionId,
    pub key: RowKey,
    pub origin: Origin,
    /// Whose priority and name it has before a strategy: of the members that it was merged from, the one that comes first.
    /// None for a person's.
    pub by: Option<Member>,
    /// Microseconds since 1970-01-01 UTC by the clock of its origin, or as the table's `timestamp_column` says; of a merged
    /// version the latest.
    pub commit_time: i64,
    /// The logical row; None for a delete.
    pub row: Option<Row>,
    pub image: Image,
    /// A snapshot row.
    pub read: bool,
}

/// A change that a member's own stream shows.
#[derive(Clone, Debug)]
pub struct Event {
    pub version: Arc<Version>,
    /// The row that it was made over.
    pub before: Option<Row>,
    pub before_image: Image,
}

/// What a version may be written over: mostly one or two.
pub type Expectations = SmallVec<[Expected; 2]>;

/// What a member is to do about a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It has the version, or something newer of its own: whatever waits there has been superseded.
    Keep,
    Over(Expectations),
}

/// A version on its way.
#[derive(Clone, Debug)]
pub struct Send {
    pub version: Arc<Version>,
    /// What its origin has written it over. Mostly that is what others have, too, but no decision rests on it.
    pub before: Option<Row>,
    pub to: SmallVec<[(Member, Expectation); 2]>,
}

/// A send whose echo has not been seen.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub member: Member,
    /// The record that caused the send.
    pub sent: Offset,
    pub over: Images,
    /// Of `over`, what the applier of that member knows to be there or to have been there last: what it has handed out
    /// itself, and the member's own writes. A key that is written all the time has more states under way than `over`
    /// keeps; only these can be met. No decision rests on them (invariant 6): other appliers have none.
    pub near: SmallVec<[Image; 1]>,
    /// A write of the member has won since. Whether the send was written over an equal image all the same shows in its echo.
    pub unsure: bool,
}

/// States of a key that its member may be met with.
const MOST_NEAR: usize = 8;

impl UnderWay {
    /// The member holds this, or may.
    pub fn stands(&mut self, image: Image) {
        self.near.retain(|known| *known != image);
        if self.near.len() >= MOST_NEAR {
            self.near.remove(0);
        }
        self.near.push(image);
    }
}

/// What a send may be written over, without repetitions and bounded (invariant 9): the first few, which old sends may have
/// found, and the last ones.
#[derive(Clone, Debug, Default)]
pub struct Images {
    list: Expectations,
    /// Some are missing: a row that differs may be one of those.
    pub cut: bool,
}

const FIRST: usize = 4;

impl Images {
    pub fn one(expected: Expected) -> Self {
        Self { list: smallvec![expected], cut: false }
    }

    pub fn of(list: Vec<Expected>, cut: bool) -> Self {
        Self { list: list.into(), cut }
    }

    pub fn as_slice(&self) -> &[Expected] {
        &self.list
    }

    pub fn to_list(&self) -> Expectations {
        SmallVec::from_slice(&self.list)
    }

    pub fn push(&mut self, expected: Expected, limit: usize) {
        if self.list.contains(&expected) {
            return;
        }
        if self.list.len() >= limit {
            self.list.remove(FIRST.min(limit / 2));
            self.cut = true;
        }
        self.list.push(expected);
    }
}

/// A key of which a version is under way to somebody.
#[derive(Clone, Debug)]
pub struct Entry {
    pub version: Arc<Version>,
    pub under_way: SmallVec<[UnderWay; 1]>,
    /// Of the version's key, here so that looking for another one need not touch the version.
    hash: u64,
}

impl Entry {
    pub fn new(version: Arc<Version>, under_way: SmallVec<[UnderWay; 1]>) -> Self {
        Self { hash: version.key.hash(), version, under_way }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn is_of(&self, key: &RowKey) -> bool {
        self.hash == key.hash() && self.version.key == *key
    }

    pub fn of(&self, member: Member) -> Option<&UnderWay> {
        self.under_way.iter().find(|way| way.member == member)
    }

    pub fn of_mut(&mut self, member: Member) -> Option<&mut UnderWay> {
        self.under_way.iter_mut().find(|way| way.member == member)
    }

    /// A send is under way that the member will hold once it is written.
    pub fn is_pending(&self, member: Member) -> bool {
        self.of(member).is_some_and(|way| !way.unsure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_once_and_those_in_the_middle_go_first() {
        let image = |number: u8| Expected::Image(Image::Row([number; 16]));
        let mut images = Images::one(image(0));
        (0..8).for_each(|number| images.push(image(number), 8));
        assert!(!images.cut);
        (8..12).for_each(|number| images.push(image(number), 8));
        assert!(images.cut);
        let kept: Vec<_> = [0, 1, 2, 3, 8, 9, 10, 11].into_iter().map(image).collect();
        assert_eq!(images.as_slice(), kept);
    }
}
