//! Dead letters: what a person decides about them, carried out a few at a time so that the stream goes on in between.

use std::collections::VecDeque;
use sync_worker_core::error::{Error, Result};
use sync_worker_core::record::Offset;
use sync_worker_core::store::{Deferred, Name, RetryQueue, TargetId};
use tokio::sync::oneshot;

/// Dead letters that one command acts on; who has more asks again.
const MOST: usize = 10_000;

/// Those of them that are decided about before the stream has its turn again: each is a transaction at the target, but two-way.
pub const AT_A_TIME: usize = 100;

type Reply = oneshot::Sender<std::result::Result<u64, String>>;

/// What a person asks of an applier.
pub enum Command {
    /// Try dead letters again at once: all, or the version at one offset. Replies with how many.
    Retry { offset: Option<Offset>, reply: Reply },
    /// Give dead letters up: the target keeps the row that it has.
    Drop { offset: Option<Offset>, reply: Reply },
}

/// A command that is being carried out.
pub struct Asked {
    /// Try again, else give up.
    pub again: bool,
    letters: VecDeque<(Name, Offset)>,
    count: u64,
    reply: Reply,
}

impl Asked {
    pub async fn begin(command: Command, queue: &dyn RetryQueue, target: &TargetId) -> Result<Self> {
        let (offset, reply, again) = match command {
            Command::Retry { offset, reply } => (offset, reply, true),
            Command::Drop { offset, reply } => (offset, reply, false),
        };
        let dead = queue.list(target, true, MOST).await?.into_iter();
        let dead = dead.filter(|dead| offset.is_none_or(|offset| offset == dead.offset));
        let letters = dead.map(|dead| ((dead.change.table().clone(), dead.key.detached()), dead.offset)).collect();
        Ok(Self { again, letters, count: 0, reply })
    }

    /// The next letter, as it is in the queue now; None where there is none left.
    pub async fn next(&mut self, queue: &dyn RetryQueue, target: &TargetId) -> Result<Option<Deferred>> {
        while let Some((name, offset)) = self.letters.pop_front() {
            let found = queue.get(target, &[name]).await?.pop();
            if let Some(letter) = found.filter(|found| found.dead && found.offset == offset) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    pub fn done(&mut self, letters: usize) {
        self.count += letters as u64;
    }

    /// Whoever asked may have gone; what was done stays done.
    pub fn answer(self, outcome: std::result::Result<(), &Error>) {
        let count = self.count;
        self.reply.send(outcome.map(|()| count).map_err(ToString::to_string)).unwrap_or_default();
    }
}
