//! An open change stream: where it stands in the oplog, and the next batch of its events.

use std::collections::VecDeque;

use bson::{RawArrayBuf, RawDocumentBuf};

use super::event;
use super::options::{Options, Start};
use super::split;
use super::token::Token;
use crate::failure::{Failure, NOT_RESUMABLE, code};
use crate::storage::clock::Time;
use crate::storage::oplog::Entry;
use crate::storage::store::Store;
use crate::value::read::Read;
use crate::value::{DOCUMENT_LIMIT, INTERNAL_LIMIT};

#[derive(Debug)]
pub struct ChangeStream {
    options: Options,
    /// Index of the next oplog entry to look at.
    next: u64,
    /// Entries before this time are not shown, even if they come later than the stream was opened.
    not_before: Time,
    /// The event of the entry at `next` was given; its invalidate may follow.
    event_given: bool,
    /// Fragments of the entry at `next` that a resumed reader has already.
    fragments_seen: usize,
    ready: VecDeque<RawDocumentBuf>,
    /// The last event's token, or a mark beyond it; it goes out with every batch.
    token: RawDocumentBuf,
    ended: bool,
}

impl ChangeStream {
    pub fn open(store: &mut Store, options: Options) -> Result<Self, Failure> {
        let mut stream = Self {
            next: store.oplog.end(),
            not_before: Time::ZERO,
            event_given: false,
            fragments_seen: 0,
            ready: VecDeque::new(),
            token: RawDocumentBuf::new(),
            ended: false,
            options,
        };
        match stream.options.start {
            Start::Now => stream.token = Token::Mark(store.clock.idle().next()).document(),
            Start::At(time) => {
                stream.start_at(store, time.into())?;
                stream.token = Token::Mark(time.into()).document();
            }
            Start::Resume(Token::Event { invalidate: true, .. }) => {
                return Err(Failure::new(
                    260,
                    "Attempting to resume a change stream using 'resumeAfter' is not allowed from an invalidate notification.",
                ));
            }
            Start::Resume(token) | Start::After(token) => stream.resume(store, token)?,
        }
        Ok(stream)
    }

    fn start_at(&mut self, store: &Store, time: Time) -> Result<(), Failure> {
        if store.oplog.has_lost(time) {
            return Err(lost());
        }
        self.next = store.oplog.first_at(time);
        self.not_before = time;
        Ok(())
    }

    fn resume(&mut self, store: &Store, token: Token) -> Result<(), Failure> {
        self.token = token.document();
        self.start_at(store, token.time())?;
        let Token::Event { time, ordinal, invalidate, fragment } = token else { return Ok(()) };
        let same_commit = |index: &u64| store.oplog.at(*index).is_some_and(|entry| entry.time == time);
        let place = (self.next..)
            .take_while(same_commit)
            .find(|index| store.oplog.at(*index).is_some_and(|entry| entry.ordinal == ordinal));
        self.next = place.ok_or_else(|| {
            let message =
                format!("cannot resume stream; the resume token was not found. {{_data: \"{}\"}}", token.data());
            Failure::new(280, message).labelled(NOT_RESUMABLE)
        })?;
        match fragment {
            _ if invalidate => self.next += 1,
            Some(fragment) => self.fragments_seen = fragment as usize + 1,
            None => self.event_given = true,
        }
        Ok(())
    }

    pub fn token(&self) -> &RawDocumentBuf {
        &self.token
    }

    /// Whether the invalidate event was given: the cursor is closed.
    pub fn is_over(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    /// The next events, at most `limit` and 16 MB of them.
    pub fn batch(&mut self, store: &mut Store, limit: usize) -> Result<RawArrayBuf, Failure> {
        let (mut batch, mut count, mut bytes) = (RawArrayBuf::new(), 0, 0);
        while count < limit {
            if let Some(event) = self.ready.front() {
                let size = event.as_bytes().len();
                if bytes + size > DOCUMENT_LIMIT && count > 0 {
                    return Ok(batch);
                }
                (bytes, count) = (bytes + size, count + 1);
                if let Some(token) = event.document("_id") {
                    self.token = token.to_owned();
                }
                batch.push(event);
                self.ready.pop_front();
            } else if self.ended {
                return Ok(batch);
            } else if !self.advance(store)? {
                self.mark(store);
                return Ok(batch);
            }
        }
        Ok(batch)
    }

    /// Looks at one entry; false at the end of the oplog.
    fn advance(&mut self, store: &Store) -> Result<bool, Failure> {
        if self.next < store.oplog.start() {
            return Err(lost());
        }
        let Some(entry) = store.oplog.at(self.next) else { return Ok(false) };
        if entry.time < self.not_before || !self.options.shows(entry) {
            self.pass();
        } else if !self.event_given {
            self.event_given = true;
            self.emit(store, entry)?;
        } else {
            if self.options.ends_with(entry) {
                self.ready.push_back(event::invalidate(entry));
                self.ended = true;
            }
            self.pass();
        }
        Ok(true)
    }

    fn pass(&mut self) {
        self.next += 1;
        self.event_given = false;
    }

    fn emit(&mut self, store: &Store, entry: &Entry) -> Result<(), Failure> {
        let mut event = event::render(store, &self.options, entry)?;
        for stage in &self.options.stages {
            match stage.apply_to_one(event)? {
                Some(changed) => event = changed,
                None => return Ok(()),
            }
        }
        if event.value("_id").is_none() {
            return Err(Failure::new(
                280,
                "Encountered an event whose _id field, which contains the resume token, was modified by the pipeline.",
            )
            .labelled(NOT_RESUMABLE));
        }
        let size = event.as_bytes().len();
        if self.options.split && (size > DOCUMENT_LIMIT || self.fragments_seen > 0) {
            let seen = std::mem::take(&mut self.fragments_seen);
            self.ready.extend(split::split(&event, entry)?.into_iter().skip(seen));
        } else if size > INTERNAL_LIMIT {
            let message = format!("BSONObj size: {size} is invalid. Size must be between 0 and {INTERNAL_LIMIT}(16MB)");
            return Err(Failure::new(code::OBJECT_TOO_LARGE, message).labelled(NOT_RESUMABLE));
        } else {
            self.ready.push_back(event);
        }
        Ok(())
    }

    /// At the end of the oplog the token moves on with the clock: one beyond the last time, or an event would come twice.
    fn mark(&mut self, store: &mut Store) {
        let mark = Token::Mark(store.clock.idle().next()).document();
        if mark.text("_data") > self.token.text("_data") {
            self.token = mark;
        }
    }
}

fn lost() -> Failure {
    Failure::new(286, "Resume of change stream was not possible, as the resume point may no longer be in the oplog.")
        .labelled(NOT_RESUMABLE)
}
