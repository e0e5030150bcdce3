//! From events to batches of whole transactions, or of bounded parts of large ones.
//!
//! The events of one transaction share its cluster time and nobody else's events do (but for batched inserts of the
//! server's own, which are one commit, too). A stream has no event for a commit: a transaction ends where an event or a
//! token of a later time comes, or, at a replica set, where the stream has nothing more to say. An event of no
//! transaction is one by itself.

use crate::clock;
use crate::source::echo;
use crate::source::event::Event;
use crate::source::token::{Place, Start};
use bson::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::Change;
use sync_worker_core::echo::{Echo, UnparkedEcho};
use sync_worker_core::position::{Checkpoint, Epoch, Position};
use sync_worker_core::row::Key;
use sync_worker_core::source::{SourceBatch, TransactionPart};
use tokio::time::Instant;

/// About how much a batch holds.
const BATCH_BYTES: usize = 1 << 20;

/// What a change costs beside its rows.
const CHANGE_BYTES: usize = 96;

/// How often an idle stream gives a place to resume at.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(10);

struct Transaction {
    id: Arc<str>,
    time: Timestamp,
    commit_time: i64,
    /// The ordinal of the first of `changes`.
    first: u64,
    changes: Vec<Change>,
    /// It is ours: what has been seen of marker and parked rows since the last part.
    echo: Option<Echo>,
    /// A part of it has been handed out.
    parted: bool,
}

impl Transaction {
    fn part(&mut self, complete: bool) -> TransactionPart {
        let changes = std::mem::take(&mut self.changes);
        let first = clock::place(self.time, self.first);
        self.first += changes.len() as u64;
        self.parted = true;
        // What goes on is still ours.
        let next = self.echo.as_ref().map(|echo| Echo { offset: echo.offset, ..Echo::default() });
        let echo = std::mem::replace(&mut self.echo, next);
        TransactionPart { id: self.id.clone(), commit_time: self.commit_time, first, changes, complete, echo }
    }

    fn is_empty(&self) -> bool {
        let told = self.echo.as_ref().is_some_and(|echo| !echo.parked.is_empty() || !echo.unparked.is_empty());
        self.changes.is_empty() && !told
    }

    /// About what is held of it.
    fn bytes(&self) -> usize {
        let of = |key: &Key, size: usize| key.as_bytes().len() + size;
        let changes: usize = self.changes.iter().map(|change| change.size() + CHANGE_BYTES).sum();
        let echo = self.echo.iter().map(|echo| {
            let parked = echo.parked.iter().map(echo::size);
            let unparked = echo.unparked.iter().map(|one| of(&one.key, size_of::<UnparkedEcho>()));
            parked.chain(unparked).sum::<usize>()
        });
        changes + echo.sum::<usize>()
    }
}

pub struct Assembly {
    epoch: Epoch,
    open: Option<Transaction>,
    parts: Vec<TransactionPart>,
    bytes: usize,
    /// Where the next event of the newest time stands.
    next: (Timestamp, u64),
    /// Everything up to here has been handed out, or is in `parts`.
    reached: Position,
    /// Where to go on after all of that.
    resume: Start,
    /// Behind the newest event or mark that was taken, which may be inside of a transaction.
    newest: Start,
    moved: bool,
    checkpointed: Instant,
}

impl Assembly {
    /// Goes on after a checkpoint.
    pub fn new(epoch: Epoch, reached: Position, resume: Start) -> Self {
        let next = match reached {
            Position::Mongodb(p) => {
                (Timestamp { time: p.seconds, increment: p.increment }, p.ordinal.saturating_add(1))
            }
            Position::Postgres(_) | Position::Mysql(_) => (Timestamp { time: 0, increment: 0 }, 0),
        };
        Self {
            epoch,
            open: None,
            parts: Vec::new(),
            bytes: 0,
            next,
            reached,
            newest: resume.clone(),
            resume,
            moved: false,
            checkpointed: Instant::now(),
        }
    }

    /// Where to go on with everything that was taken kept.
    pub fn newest(&self) -> Start {
        self.newest.clone()
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    /// Takes an event and the token behind it.
    pub fn take(&mut self, event: Event, token: &[u8]) {
        if self.open.as_ref().is_some_and(|open| open.time != event.time) {
            self.close();
        }
        if self.next.0 != event.time {
            self.next = (event.time, 0);
        }
        self.newest.move_to(token);
        let alone = event.transaction.is_none() && self.open.is_none();
        let (time, ordinal) = self.next;
        let open = self.open.get_or_insert_with(|| Transaction {
            id: event.transaction.unwrap_or_else(|| Arc::from(format!("{}.{}", time.time, time.increment))),
            time,
            commit_time: event.commit_time,
            first: ordinal,
            changes: Vec::new(),
            echo: None,
            parted: false,
        });
        if let Some(told) = event.told {
            self.bytes += told.add_to(&mut open.echo);
        }
        if let Some(change) = event.change {
            self.bytes += change.size() + CHANGE_BYTES;
            open.changes.push(change);
            self.next.1 += 1;
        }
        if alone {
            self.close();
        }
    }

    /// The token at the end of what the server sent; `idle`: it sent no event.
    pub fn token(&mut self, place: Place, token: &[u8], idle: bool) {
        // A server may also answer without an event while it passes over what is not ours, inside of a transaction, too:
        // its token moves then. One that stays has nothing more at present.
        let idle = idle && (self.newest.is_after(token) || place.mark);
        self.newest.move_to(token);
        let later = self.open.as_ref().is_some_and(|open| place.time > open.time || idle && place.time == open.time);
        if later {
            self.close();
        }
        if self.open.is_some() {
            return;
        }
        let reached = match place.mark {
            true => clock::end(clock::before(place.time)),
            // Nothing follows at this time: the events of one commit come out of one entry of the log.
            false if idle => clock::end(place.time),
            false => self.reached,
        };
        if reached > self.reached {
            self.reached = reached;
            self.moved = true;
        }
        self.resume.move_to(token);
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        self.resume.copy(&self.newest);
        // The ordinal after the last one is known here; what was not ours left none.
        let last = open.first + open.changes.len() as u64;
        // An echo stands at the first place of its time, changes or none.
        let last = if open.echo.is_some() { Some(last.saturating_sub(1)) } else { last.checked_sub(1) };
        if open.parted || !open.changes.is_empty() || open.echo.is_some() {
            self.parts.push(open.part(true));
        }
        if let Some(last) = last {
            self.reached = self.reached.max(clock::place(open.time, last));
        }
        self.moved = true;
    }

    /// A batch that ends at a commit; None where nothing has come.
    pub fn whole(&mut self) -> Option<SourceBatch> {
        if self.parts.is_empty() && !self.moved {
            return None;
        }
        Some(self.batch(self.open.as_ref().is_none_or(|open| !open.parted)))
    }

    /// A batch although a transaction goes on.
    pub fn part(&mut self) -> SourceBatch {
        if let Some(open) = &mut self.open
            && !open.is_empty()
        {
            self.parts.push(open.part(false));
        }
        self.batch(self.open.as_ref().is_none_or(|open| !open.parted))
    }

    fn batch(&mut self, at_commit: bool) -> SourceBatch {
        self.moved = false;
        // What an open transaction holds back still counts.
        self.bytes = self.open.as_ref().map_or(0, Transaction::bytes);
        let now = Instant::now();
        let due = !self.parts.is_empty() || now.duration_since(self.checkpointed) >= IDLE_CHECKPOINT;
        let checkpoint = (at_commit && due).then(|| {
            self.checkpointed = now;
            Checkpoint { epoch: self.epoch.clone(), position: self.reached, resume: self.resume.to_text() }
        });
        SourceBatch { parts: std::mem::take(&mut self.parts), checkpoint, reached: self.reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::key::DocumentKey;
    use crate::source::echo::Told;
    use bson::rawdoc;
    use sync_worker_core::change::Op;
    use sync_worker_core::record::Offset;

    fn time(increment: u32) -> Timestamp {
        Timestamp { time: 100, increment }
    }

    fn event(increment: u32, transaction: Option<&str>) -> Event {
        let change = Change {
            schema: catalog::schema(&"t".into(), &DocumentKey::Id),
            op: Op::Truncate,
            before: None,
            after: None,
        };
        let transaction = transaction.map(Arc::from);
        Event { time: time(increment), transaction, commit_time: 0, change: Some(change), told: None }
    }

    fn marker(increment: u32, transaction: Option<&str>) -> Event {
        let told = Some(Told::Marker(Some(Offset(7))));
        Event { change: None, told, ..event(increment, transaction) }
    }

    fn token(increment: u32) -> Vec<u8> {
        rawdoc! { "_data": format!("{increment:02X}") }.into_bytes()
    }

    fn assembly() -> Assembly {
        Assembly::new(Epoch("e".into()), clock::end(time(0)), Start::At(time(1)))
    }

    fn shown(batch: &SourceBatch) -> String {
        let part = |part: &TransactionPart| {
            format!("{}x{}{}", part.first, part.changes.len(), if part.complete { "" } else { ".." })
        };
        let parts: Vec<String> = batch.parts.iter().map(part).collect();
        format!("{} reached {}", parts.join(" "), batch.reached)
    }

    #[test]
    fn a_transaction_ends_where_another_time_comes_and_a_plain_write_at_once() {
        let mut assembly = assembly();
        assembly.take(event(1, Some("a")), &token(1));
        assembly.take(event(1, Some("a")), &token(2));
        assert!(assembly.whole().is_none(), "a transaction that may go on");
        assembly.take(event(2, None), &token(3));
        assert_eq!(shown(&assembly.whole().unwrap()), "@100.1+0x2 @100.2+0x1 reached @100.2+0");
        // Another event of the same commit.
        assembly.take(event(2, None), &token(4));
        let batch = assembly.whole().unwrap();
        assert_eq!(shown(&batch), "@100.2+1x1 reached @100.2+1");
        assert_eq!(batch.checkpoint.unwrap().resume, "04");
    }

    #[test]
    fn a_token_ends_a_transaction_when_it_is_later_or_the_stream_is_idle() {
        let mut assembly = assembly();
        let mark = |increment| Place { time: time(increment), mark: true };
        assembly.take(event(1, Some("a")), &token(1));
        assembly.token(Place { time: time(1), mark: false }, &token(1), false);
        assert!(assembly.whole().is_none());
        assembly.token(mark(5), &token(5), false);
        let batch = assembly.whole().unwrap();
        assert_eq!(shown(&batch), "@100.1+0x1 reached @100.4");
        assert_eq!(batch.checkpoint.unwrap().resume, "05");
        assembly.take(event(7, Some("b")), &token(7));
        assembly.token(Place { time: time(7), mark: false }, &token(7), true);
        assert_eq!(shown(&assembly.whole().unwrap()), "@100.7+0x1 reached @100.7");
    }

    #[test]
    fn each_part_of_our_own_transaction_says_so() {
        let mut assembly = assembly();
        // A take-over is one by itself.
        assembly.take(marker(1, None), &token(1));
        let batch = assembly.whole().unwrap();
        assert_eq!(shown(&batch), "@100.1+0x0 reached @100.1+0");
        assert!(batch.parts[0].echo.is_some() && batch.checkpoint.is_some());
        assembly.take(marker(2, Some("a")), &token(2));
        assembly.take(event(2, Some("a")), &token(3));
        let mut parts = assembly.part().parts;
        assembly.take(event(2, Some("a")), &token(4));
        assembly.take(event(3, None), &token(5));
        parts.extend(assembly.whole().unwrap().parts);
        let echoes = parts.iter().map(|part| (part.changes.len(), part.echo.as_ref().map(|echo| echo.offset)));
        let ours = Some(Some(Offset(7)));
        assert_eq!(echoes.collect::<Vec<_>>(), [(1, ours), (1, ours), (1, None)]);
    }

    #[test]
    fn a_large_transaction_comes_in_parts_and_gives_no_place_to_resume_inside() {
        let mut assembly = assembly();
        assembly.take(event(1, Some("a")), &token(1));
        let batch = assembly.part();
        assert_eq!(shown(&batch), "@100.1+0x1.. reached @100.0");
        assert!(batch.checkpoint.is_none());
        assembly.take(event(1, Some("a")), &token(2));
        assembly.take(event(2, None), &token(3));
        let batch = assembly.whole().unwrap();
        assert_eq!(shown(&batch), "@100.1+1x1 @100.2+0x1 reached @100.2+0");
        assert!(batch.checkpoint.is_some());
    }
}
