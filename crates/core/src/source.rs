//! Reading a database's own change log.

use crate::change::Change;
use crate::echo::Echo;
use crate::error::Result;
use crate::position::{Checkpoint, Position};
use async_trait::async_trait;
use std::sync::Arc;

/// What an operator is told where a table's definition has changed under the stream.
pub const REDEFINED: &str = "the definition of a captured table has changed: what this made of rows that were there is in no change, \
                             and comes with their next one, or by `sync-worker verify --repair`";

/// A run of changes of one transaction, in order.
#[derive(Debug)]
pub struct TransactionPart {
    /// The source's own name of the transaction: an xid, a GTID.
    pub id: Arc<str>,
    /// Microseconds since 1970-01-01 UTC by the source's clock.
    pub commit_time: i64,
    /// The position of the first change of this part; the next ones count up its ordinal. The same change has the same
    /// position each time the source sends it: what capture drops as a duplicate rests on that.
    pub first: Position,
    pub changes: Vec<Change>,
    /// This part ends the transaction. Such a part may be empty.
    pub complete: bool,
    /// The transaction carries this pipeline's own marker, in a two-way pipeline: what this part shows of marker and parked
    /// rows. Its changes are ours and go nowhere; they are told for the windows of snapshots.
    pub echo: Option<Echo>,
}

/// Some of the stream, in commit order; transactions are never interleaved.
#[derive(Debug)]
pub struct SourceBatch {
    pub parts: Vec<TransactionPart>,
    /// Where to resume when everything in this batch and those before it is durable; None while the batch ends inside
    /// a transaction.
    pub checkpoint: Option<Checkpoint>,
    /// Everything that committed up to here has been returned, at the end of this batch. Moves on an idle source, too.
    pub reached: Position,
}

#[async_trait]
pub trait Source: Send {
    /// Waits for more of the stream. A batch holds what is there, up to a bound in bytes; it is empty apart from
    /// `reached` and `checkpoint` when only the position moved. Cancel safe: nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<SourceBatch>;

    /// Lets the server forget what is before this checkpoint. Invariant 1: the engine calls it only after all before
    /// it is durable on the bus and stored, never backwards.
    async fn confirm(&mut self, checkpoint: &Checkpoint) -> Result<()>;
}
