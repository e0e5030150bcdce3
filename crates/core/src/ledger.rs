//! The conflict ledger: every conflict and every drifted row, always, and the resolvers' checkpoints.

use crate::error::Result;
use crate::name::{DatabaseName, PipelineName, TableName};
use crate::record::{Offset, Partition};
use crate::row::{Key, Row};
use crate::schema::Schema;
use crate::store::TargetId;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// A version that took part in a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// The member whose priority it has; None for a person's, and where that is not on record.
    pub by: Option<DatabaseName>,
    /// Put together from versions of several members.
    pub merged: bool,
    /// Microseconds since 1970-01-01 UTC by the clock of its member.
    pub commit_time: i64,
    /// In the columns of [`Conflict::schema`]; None for a delete.
    pub row: Option<Row>,
}

/// The kind of an entry about a row that some member does not take. A person can only close it. With a column, the others
/// have no place for a row of the member: its winner is in that member's own columns. Without one, the member refuses a
/// version for good: its winner is what waits there as a dead letter.
pub const UNFIT: &str = "constraint";

/// The kind of an entry about members that undo each other's writes: the key stands still until a person decides.
pub const FLIP_FLOP: &str = "flip_flop";

/// The kind of an entry about rows that members had before all of theirs were copied to all others.
pub const SEED: &str = "seed";

/// Who closes an entry: a person, who has decided, or the worker, where its reason is gone.
pub const BY_PERSON: &str = "person";
pub const BY_WORKER: &str = "worker";

/// What decides where such a row meets a change: the change stays, whatever the rules.
pub const BY_CHANGE: &str = "change";

/// The commit time of a row that was copied and says nothing about its last change.
pub const NO_TIME: i64 = i64::MIN;

/// One entry of the ledger. (pipeline, partition, offset, table, key, column, kind, at) names it: what was recorded before is
/// not recorded again.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub pipeline: PipelineName,
    pub partition: Partition,
    /// The record at which it was decided.
    pub offset: Offset,
    pub table: TableName,
    pub key: Key,
    /// The contested column of a merged row; the one that has no place at others.
    pub column: Option<String>,
    /// `update_origin_differs`, `drift`: PostgreSQL 18's names and what they lack.
    pub kind: String,
    /// What decided: a strategy's name, or `on_delete`.
    pub strategy: String,
    pub winner: Contender,
    /// What a member held in place of a drifted row, where that is known. None for a row that has no place at others.
    pub loser: Option<Contender>,
    /// Whether the winner was held already when the loser came. None where there is no loser, and for entries from
    /// before this was recorded.
    pub incumbent_won: Option<bool>,
    /// The row that came of a contested column, with what people have decided about others of its columns since. None where
    /// the winner's row stands as it is, and for entries from before this was recorded.
    pub stands: Option<Row>,
    /// The member that held such a row.
    pub at: Option<DatabaseName>,
    /// The logical table as it was then.
    pub schema: Arc<Schema>,
    /// Microseconds since 1970-01-01 UTC: the commit time of the deciding record.
    pub time: i64,
    /// It waits for a person.
    pub open: bool,
}

impl Conflict {
    /// Bytes of its rows.
    pub fn size(&self) -> usize {
        let loser = self.loser.as_ref().and_then(|loser| loser.row.as_ref());
        let rows = [self.winner.row.as_ref(), loser, self.stands.as_ref()];
        rows.into_iter().flatten().map(|row| row.as_bytes().len()).sum()
    }

    /// Whether it is about a version that its member refuses.
    pub fn is_refusal(&self) -> bool {
        self.kind == UNFIT && self.column.is_none()
    }
}

/// A conflict as the ledger holds it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Grows with every entry of this store; what a person calls it by.
    pub id: i64,
    pub conflict: Conflict,
    /// Who closed it and when, in microseconds since 1970-01-01 UTC; None for one that nobody had to.
    pub decided: Option<(String, i64)>,
}

/// Which conflicts are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those that wait for a person.
    pub open_only: bool,
    pub table: Option<TableName>,
    /// Entries below this id.
    pub before: Option<i64>,
    pub limit: usize,
}

/// The open entries that an act of a person settles.
#[derive(Clone, Debug)]
pub enum Settled {
    /// All of a key but [`UNFIT`] ones, whose row may be another one with a key of the same bytes: that is their member's own.
    Key(Key),
    /// Those of a key about the whole row or about one of these columns. What is on record about others of the row that
    /// stood before stands with the new one from now on.
    Columns { key: Key, columns: Vec<String>, before: Row, stands: Row },
    /// The [`UNFIT`] ones of a key whose row has no place at others.
    Unfit(Key),
    /// Those of keys whose version a member refuses.
    Refused { keys: Vec<Key>, at: DatabaseName },
    /// Every [`FLIP_FLOP`] of the table.
    FlipFlops,
    /// The one with this number.
    Entry(i64),
}

#[async_trait]
pub trait Ledger: Send + Sync {
    /// Adds entries, all or none, leaving those that are there already as they are. Durable when it returns. Gives back
    /// those that were new, in their order.
    async fn record(&self, conflicts: Vec<Conflict>) -> Result<Vec<Conflict>>;

    /// Entries of a pipeline, the newest first.
    async fn conflicts(&self, pipeline: &PipelineName, wanted: &Wanted) -> Result<Vec<Recorded>>;

    async fn conflict(&self, pipeline: &PipelineName, id: i64) -> Result<Option<Recorded>>;

    /// Closes open entries of a table: `by` has decided. How many there were.
    async fn close(
        &self,
        pipeline: &PipelineName,
        table: &TableName,
        settled: &Settled,
        by: &str,
        time: i64,
    ) -> Result<usize>;
}

/// The state of a resolver after a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverCheckpoint {
    pub offset: Offset,
    /// The target's marker then: nothing between that and `offset` was sent to the target. A target whose marker is below
    /// has forgotten a transaction, and the checkpoint is of no use.
    pub rests_on: Option<Offset>,
    /// The identity of the log.
    pub log: String,
    pub state: Bytes,
}

#[async_trait]
pub trait ResolverStore: Send + Sync {
    /// All that are kept of a target, the lowest offset first.
    async fn resolver_checkpoints(&self, target: &TargetId) -> Result<Vec<ResolverCheckpoint>>;

    /// Adds one and removes all others but those at the offsets in `keep`. Durable when it returns.
    async fn save_resolver_checkpoint(
        &self,
        target: &TargetId,
        checkpoint: &ResolverCheckpoint,
        keep: &[Offset],
    ) -> Result<()>;
}
