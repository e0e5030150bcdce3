//! From messages to batches of whole transactions, or of bounded parts of large ones.

use crate::error::Error;
use crate::recent::Recent;
use crate::source::pgoutput::{Message, Old, Tuple, streamed};
use crate::source::relation::{Relations, Scratch, Table, malformed};
use crate::source::spill::{Replay, Spill};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::echo::Echo;
use sync_worker_core::position::{Checkpoint, Epoch, Lsn, Position, PostgresPosition};
use sync_worker_core::row::Row;
use sync_worker_core::source::{SourceBatch, TransactionPart};
use tokio::time::Instant;

/// About how much a batch holds.
const BATCH_BYTES: usize = 1024 * 1024;

/// What a change costs beside its rows.
const CHANGE_BYTES: usize = 96;

/// How often an idle stream gives a place to resume at.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(10);

pub struct Assembly {
    epoch: Epoch,
    recent: Arc<Recent>,
    /// Transactions that committed before were taken before (the server may send them again).
    start: Lsn,
    /// Everything that commits before has been handed out, or is in `parts`.
    reached: Lsn,
    moved: bool,
    /// A place to resume at is wanted whatever the time.
    checkpoint_wanted: bool,
    checkpointed: Instant,
    open: Option<Transaction>,
    /// The transaction whose piece is being sent.
    streaming: Option<u32>,
    replay: Option<Replaying>,
    parts: Vec<TransactionPart>,
    xids: Vec<u32>,
    bytes: usize,
    scratch: Scratch,
}

/// A transaction whose changes are being taken.
struct Transaction {
    xid: u32,
    id: Arc<str>,
    commit: Lsn,
    commit_time: i64,
    /// The ordinal of the first change in `changes`.
    first: u64,
    changes: Vec<Change>,
    /// It is ours: what has been seen of marker and parked rows since the last part.
    echo: Option<Echo>,
    /// It was taken before.
    skipped: bool,
}

struct Replaying {
    replay: Replay,
    /// Its message has been read and not yet taken.
    loaded: bool,
    end: Lsn,
}

impl Transaction {
    fn new(xid: u32, commit: Lsn, commit_time: i64, skipped: bool) -> Self {
        let id = Arc::from(itoa::Buffer::new().format(xid));
        Self { xid, id, commit, commit_time, first: 0, changes: Vec::new(), echo: None, skipped }
    }

    fn part(&mut self, complete: bool) -> TransactionPart {
        let changes = std::mem::take(&mut self.changes);
        let first = Position::Postgres(PostgresPosition { commit: self.commit, ordinal: self.first });
        self.first += changes.len() as u64;
        // What goes on is still ours.
        let next = self.echo.as_ref().map(|echo| Echo { offset: echo.offset, ..Echo::default() });
        let echo = std::mem::replace(&mut self.echo, next);
        TransactionPart { id: self.id.clone(), commit_time: self.commit_time, first, changes, complete, echo }
    }
}

/// The position above everything that commits before `end`, and below all that commits at it or later.
pub fn before(end: Lsn) -> Position {
    Position::Postgres(PostgresPosition { commit: Lsn(end.0.saturating_sub(1)), ordinal: u64::MAX })
}

pub fn checkpoint(epoch: &Epoch, end: Lsn) -> Checkpoint {
    Checkpoint { epoch: epoch.clone(), position: before(end), resume: end.to_string() }
}

impl Assembly {
    pub fn new(epoch: Epoch, start: Lsn, recent: Arc<Recent>) -> Self {
        Self {
            epoch,
            recent,
            start,
            reached: start,
            moved: false,
            checkpoint_wanted: false,
            checkpointed: Instant::now(),
            open: None,
            streaming: None,
            replay: None,
            parts: Vec::new(),
            xids: Vec::new(),
            bytes: 0,
            scratch: Scratch::default(),
        }
    }

    /// The commit time of the transaction that came last, as far as it has one already.
    pub fn last_commit(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.commit_time)
    }

    pub fn reached(&self) -> Lsn {
        self.reached
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    pub fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Takes one message. A description that is new has not been taken: it is returned for the catalog to be asked.
    pub fn take<'a>(
        &mut self,
        data: &'a [u8],
        relations: &mut Relations,
        spill: &mut Spill,
    ) -> Result<Option<Message<'a>>, Error> {
        if let Some(xid) = self.streaming
            && data.first() != Some(&b'E')
        {
            let (tag, subtransaction, rest) = streamed(data).map_err(malformed)?;
            if !matches!(tag, b'O' | b'Y' | b'M') {
                spill.append(xid, subtransaction, tag, rest)?;
            }
            return Ok(None);
        }
        match Message::parse(data).map_err(malformed)? {
            Message::Begin { commit, commit_time, xid } => {
                self.open = Some(Transaction::new(xid, commit, commit_time, commit < self.start));
            }
            Message::Commit { end, .. } => {
                let open = self.open.take().ok_or(Error::Protocol("a commit without a begin"))?;
                self.committed(open, end);
            }
            Message::Relation(relation) if relations.knows(&relation) => {}
            relation @ Message::Relation(_) => return Ok(Some(relation)),
            Message::StreamStart { xid } => self.streaming = Some(xid),
            Message::StreamStop => self.streaming = None,
            Message::StreamAbort { xid, subtransaction } => spill.abort(xid, subtransaction),
            Message::StreamCommit { xid, commit, end, commit_time } => {
                let mut open = Transaction::new(xid, commit, commit_time, commit < self.start);
                if open.skipped {
                    spill.forget(xid);
                }
                match spill.replay(xid)? {
                    Some(replay) => {
                        self.replay = Some(Replaying { replay, loaded: false, end });
                        self.open = Some(open);
                    }
                    None => {
                        open.changes.clear();
                        self.committed(open, end);
                    }
                }
            }
            message => {
                let open = self.open.as_mut().ok_or(Error::Protocol("a change outside of a transaction"))?;
                if !open.skipped {
                    self.bytes += change(&message, open, relations, &mut self.scratch)?;
                }
            }
        }
        Ok(None)
    }

    /// Takes messages of a transaction that was kept in a file, until it ends or the batch is full. Cancel safe.
    pub async fn replay(&mut self, relations: &mut Relations) -> Result<(), Error> {
        let (Some(replaying), Some(open)) = (&mut self.replay, &mut self.open) else {
            return Err(Error::Protocol("a replay without a transaction"));
        };
        while self.bytes < BATCH_BYTES {
            if !replaying.loaded && !replaying.replay.advance()? {
                let end = replaying.end;
                self.replay = None;
                if let Some(open) = self.open.take() {
                    self.committed(open, end);
                }
                return Ok(());
            }
            replaying.loaded = true;
            match Message::parse(replaying.replay.message()).map_err(malformed)? {
                Message::Relation(relation) => {
                    if !relations.knows(&relation) {
                        relations.describe(&relation).await?;
                    }
                }
                message => self.bytes += change(&message, open, relations, &mut self.scratch)?,
            }
            replaying.loaded = false;
        }
        Ok(())
    }

    fn committed(&mut self, mut open: Transaction, end: Lsn) {
        if open.first > 0 || !open.changes.is_empty() || open.echo.is_some() {
            self.xids.push(open.xid);
            self.parts.push(open.part(true));
        }
        self.reached = self.reached.max(end);
        self.moved = true;
    }

    /// Everything that commits before `end` has been sent. Says nothing while a transaction is being sent.
    pub fn keepalive(&mut self, end: Lsn, reply: bool) {
        if self.open.is_none() && end > self.reached {
            self.reached = end;
            self.moved = true;
        }
        // A server that wants to stop waits until we have confirmed what it sent.
        self.checkpoint_wanted |= reply && self.open.is_none();
    }

    /// A batch that ends at a commit; None where nothing has come.
    pub fn whole(&mut self) -> Option<SourceBatch> {
        if self.parts.is_empty() && !self.moved {
            return None;
        }
        Some(self.batch(true))
    }

    /// A batch although the transaction goes on.
    pub fn part(&mut self) -> SourceBatch {
        let mut ends_inside = false;
        if let Some(open) = &mut self.open
            && !open.changes.is_empty()
        {
            self.xids.push(open.xid);
            self.parts.push(open.part(false));
            ends_inside = true;
        }
        self.batch(!ends_inside)
    }

    fn batch(&mut self, at_commit: bool) -> SourceBatch {
        self.recent.returned(&self.xids);
        self.xids.clear();
        self.moved = false;
        // What a transaction that goes on has taken so far stays behind.
        self.bytes = 0;
        let now = Instant::now();
        let due = !self.parts.is_empty()
            || self.checkpoint_wanted
            || now.duration_since(self.checkpointed) >= IDLE_CHECKPOINT;
        let checkpoint = (at_commit && due).then(|| {
            self.checkpointed = now;
            self.checkpoint_wanted = false;
            checkpoint(&self.epoch, self.reached)
        });
        SourceBatch { parts: std::mem::take(&mut self.parts), checkpoint, reached: before(self.reached) }
    }
}

/// Takes a row change or a truncate of the pipeline's tables. Returns about how many bytes it holds.
fn change(
    message: &Message<'_>,
    open: &mut Transaction,
    relations: &mut Relations,
    scratch: &mut Scratch,
) -> Result<usize, Error> {
    let change = match message {
        // Rows of ours are told by their marker. Only a read that is under way wants to know which they were.
        Message::Insert { relation, new } if open.echo.is_some() => {
            let Some(table) = relations.get(*relation)? else {
                return own(open, relations, *relation, None, Some(*new));
            };
            touched(&table, table.key_after(*new, None, scratch)?)
        }
        Message::Update { relation, old, new } if open.echo.is_some() => {
            let Some(table) = relations.get(*relation)? else {
                return own(open, relations, *relation, old.as_ref(), Some(*new));
            };
            touched(&table, table.key_after(*new, old.as_ref(), scratch)?)
        }
        Message::Insert { relation, new } => {
            let Some(table) = relations.get(*relation)? else {
                return own(open, relations, *relation, None, Some(*new));
            };
            let after = Some(table.after(*new, None, scratch)?);
            Change { schema: table.schema.clone(), op: Op::Create, before: None, after }
        }
        Message::Update { relation, old, new } => {
            let Some(table) = relations.get(*relation)? else {
                return own(open, relations, *relation, old.as_ref(), Some(*new));
            };
            let before = old.as_ref().map(|old| table.before(old, scratch)).transpose()?;
            let after = Some(table.after(*new, old.as_ref(), scratch)?);
            Change { schema: table.schema.clone(), op: Op::Update, before, after }
        }
        Message::Delete { relation, old } => {
            let Some(table) = relations.get(*relation)? else {
                return own(open, relations, *relation, Some(old), None);
            };
            let before = Some(table.before(old, scratch)?);
            Change { schema: table.schema.clone(), op: Op::Delete, before, after: None }
        }
        Message::Truncate { relations: truncated } => {
            let mut bytes = 0;
            for relation in truncated.iter() {
                let Some(table) = relations.get(relation)? else { continue };
                let schema = table.schema.clone();
                open.changes.push(Change { schema, op: Op::Truncate, before: None, after: None });
                bytes += CHANGE_BYTES;
            }
            return Ok(bytes);
        }
        Message::Other => return Ok(0),
        Message::Begin { .. }
        | Message::Commit { .. }
        | Message::Relation(_)
        | Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit { .. }
        | Message::StreamAbort { .. } => return Err(Error::Protocol("a message inside of a transaction")),
    };
    let bytes = change.size() + CHANGE_BYTES;
    open.changes.push(change);
    Ok(bytes)
}

/// A row of ours by its key alone. Nobody changes keys in a transaction of ours.
fn touched(table: &Table, key: Row) -> Change {
    Change { schema: table.schema.clone(), op: Op::Delete, before: Some(key), after: None }
}

/// Follows marker and parked rows; a change of any other table is none of ours.
fn own(
    open: &mut Transaction,
    relations: &Relations,
    relation: u32,
    old: Option<&Old<'_>>,
    new: Option<Tuple<'_>>,
) -> Result<usize, Error> {
    match relations.own(relation) {
        Some((owner, table)) => table.follow(owner, old, new, &mut open.echo),
        None => Ok(0),
    }
}
