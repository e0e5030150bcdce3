//! What a two-way pipeline is configured to do, as a record on the bus: a decision depends on bus records alone
//! (invariant 6), so a change of the configuration takes effect at its offset, for every applier alike.

use crate::document::mapping::DocumentMapping;
use crate::name::DatabaseName;
use crate::schema::Schema;
use std::sync::Arc;

/// How a conflict is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The last write by commit time.
    Timestamp,
    /// The first write by commit time.
    FirstWrite,
    /// The member with the highest priority.
    Priority,
    /// The version that is held stays; the other one is a recorded loser.
    Reject,
    /// The same, and the conflict stays open for a person.
    Manual,
}

impl Strategy {
    pub const ALL: [Strategy; 5] =
        [Strategy::Timestamp, Strategy::FirstWrite, Strategy::Priority, Strategy::Reject, Strategy::Manual];

    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Timestamp => "timestamp",
            Strategy::FirstWrite => "first_write",
            Strategy::Priority => "priority",
            Strategy::Reject => "reject",
            Strategy::Manual => "manual",
        }
    }
}

/// What a delete is worth against an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDelete {
    DeleteWins,
    UpdateWins,
    ByStrategy,
}

impl OnDelete {
    pub const ALL: [OnDelete; 3] = [OnDelete::DeleteWins, OnDelete::UpdateWins, OnDelete::ByStrategy];

    pub fn as_str(self) -> &'static str {
        match self {
            OnDelete::DeleteWins => "delete_wins",
            OnDelete::UpdateWins => "update_wins",
            OnDelete::ByStrategy => "by_strategy",
        }
    }
}

/// How the rows of a table are merged column by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Columns that add up what each member added to them, by name.
    pub delta: Vec<String>,
    /// Columns that mean something together. None is in two of them, in `delta` or in the key.
    pub groups: Vec<ColumnGroup>,
}

/// Columns that are merged as one: each version of them was written by somebody as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnGroup {
    pub columns: Vec<String>,
    /// How they are decided where two members have changed any of them.
    pub strategy: Strategy,
}

impl Merge {
    /// How a contested column is decided, in a table with this strategy.
    pub fn strategy_of(&self, column: &str, strategy: Strategy) -> Strategy {
        self.group_of(column).map_or(strategy, |group| group.strategy)
    }

    /// The columns that are decided together with a contested one, itself among them.
    pub fn decided_with(&self, column: &str) -> Vec<String> {
        self.group_of(column).map_or_else(|| vec![column.to_owned()], |group| group.columns.clone())
    }

    fn group_of(&self, column: &str) -> Option<&ColumnGroup> {
        self.groups.iter().find(|group| group.columns.iter().any(|name| name == column))
    }
}

/// A table of a two-way pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// The columns that all members have, in the types that hold every member's values.
    pub schema: Arc<Schema>,
    pub strategy: Strategy,
    pub on_delete: OnDelete,
    pub merge: Option<Merge>,
    /// The column of the logical table whose time stands for that of a row's commit, where a row has one: what its writer
    /// calls the last change, by whatever clock.
    pub timestamp_column: Option<String>,
    /// How its rows are documents, at members of MongoDB.
    pub document: DocumentMapping,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoWayMember {
    pub name: DatabaseName,
    /// The higher one wins a tie; of equal ones the name that sorts first.
    pub priority: i64,
}

/// A pipeline's members and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoWay {
    /// In the order of their names.
    pub members: Vec<TwoWayMember>,
    pub tables: Vec<TableRules>,
    /// The rows that all members have at the start are copied to all others; what differs is decided.
    pub merged_seeds: bool,
}
