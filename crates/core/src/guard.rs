//! What a version may be written over in a two-way pipeline: images told apart by their values.

use crate::record::Offset;
use crate::row::Row;

/// What a member holds under a key: no row, or a row that has this digest.
///
/// The digest covers the values of the logical row, each at the coarsest precision of the members, so that equal rows have
/// equal images whichever engine they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Image {
    Absent,
    Row([u8; 16]),
}

impl Image {
    pub fn of(row: Option<&Row>) -> Self {
        row.map_or(Image::Absent, |row| Image::Row(xxhash_rust::xxh3::xxh3_128(row.as_bytes()).to_be_bytes()))
    }
}

/// One of the states that a version may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expected {
    Image(Image),
    /// What the member's parked row says was seen there when the send of this offset was left alone.
    Seen(Offset),
}
