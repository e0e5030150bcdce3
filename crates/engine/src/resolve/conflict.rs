//! What goes into the conflict ledger.

use super::version::{Event, Member, Version};
use std::sync::Arc;
use sync_worker_core::ledger::{FLIP_FLOP, SEED};
use sync_worker_core::record::Offset;

/// PostgreSQL 18's names of conflicts, and what they lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Both inserted the key.
    InsertExists,
    /// Both updated the row.
    UpdateOriginDiffers,
    /// An update of a row that was deleted elsewhere.
    UpdateDeleted,
    /// A delete of a row that was updated elsewhere.
    DeleteOriginDiffers,
    /// Both deleted the row.
    DeleteMissing,
    /// Members had different rows when all of theirs were copied to all others.
    Seed,
    /// A member holds a row that its own stream has never shown.
    Drift,
    /// Two members undo each other's writes.
    FlipFlop,
    /// The same as drift, where so much was under way that the row may be one of ours.
    Late,
}

impl Kind {
    /// Of an event that meets the version that is held.
    pub fn of(held: &Version, event: &Event) -> Self {
        match (&event.version.row, &held.row) {
            (None, None) => Kind::DeleteMissing,
            (None, Some(_)) => Kind::DeleteOriginDiffers,
            (Some(_), None) => Kind::UpdateDeleted,
            (Some(_), Some(_)) if event.before.is_none() => Kind::InsertExists,
            (Some(_), Some(_)) => Kind::UpdateOriginDiffers,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::InsertExists => "insert_exists",
            Kind::UpdateOriginDiffers => "update_origin_differs",
            Kind::UpdateDeleted => "update_deleted",
            Kind::DeleteOriginDiffers => "delete_origin_differs",
            Kind::DeleteMissing => "delete_missing",
            Kind::Seed => SEED,
            Kind::FlipFlop => FLIP_FLOP,
            Kind::Drift => "drift",
            Kind::Late => "late",
        }
    }
}

/// One entry of the ledger.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The record at which it was decided. With `column` and the key it names the entry.
    pub offset: Offset,
    pub kind: Kind,
    pub winner: Arc<Version>,
    /// None where no version lost: what a member held in place of a drifted row is not always known.
    pub loser: Option<Arc<Version>>,
    /// Whether the winner was the version that was held. None where no version lost.
    pub incumbent_won: Option<bool>,
    /// Where a single column of a merged row was contested.
    pub column: Option<usize>,
    /// Then the merged row.
    pub stands: Option<Arc<Version>>,
    /// The member that holds a drifted row.
    pub at: Option<Member>,
}
