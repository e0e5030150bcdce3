//! Our own transactions, as the change stream of the member that took them shows them (invariant 4).

use crate::guard::Seen;
use crate::name::TableName;
use crate::record::Offset;
use crate::row::Key;

/// What one of our transactions did to marker and parked rows. On the bus it stands for that transaction's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// The record up to which the member has been written to; None before the first, when the target was taken over.
    pub offset: Option<Offset>,
    /// In the order of the stream.
    pub parked: Vec<ParkedEcho>,
    pub unparked: Vec<UnparkedEcho>,
}

/// A key whose version the member has not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEcho {
    pub table: TableName,
    pub key: Key,
    /// The record that caused the send.
    pub offset: Offset,
    /// What stands there, which is no row that the version may be written over; None where the member refused the version,
    /// which waits for a retry.
    pub seen: Option<Seen>,
}

/// A key whose parked row has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnparkedEcho {
    pub table: TableName,
    pub key: Key,
    /// A retry has written the parked version; else it was superseded or given up.
    pub written: bool,
}

/// The reason that a parked row gets right before a retry that has written its version deletes it: so the stream tells
/// such a delete from that of a version which was never written.
pub const WRITTEN: &str = "written";
