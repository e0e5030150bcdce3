//! Cursors: what is left of a read, or an open change stream.

use std::collections::{HashMap, VecDeque};

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

use super::dispatch::{Context, Reply};
use crate::failure::{Failure, Stop, code};
use crate::server::shared::State;
use crate::storage::clock::Time;
use crate::stream::cursor::ChangeStream;
use crate::value::read::{Read, whole};
use crate::value::{DOCUMENT_LIMIT, Shared};

const FIRST_BATCH: usize = 101;

#[derive(Debug, Default)]
pub struct Cursors {
    open: HashMap<i64, Cursor>,
    last: i64,
}

#[derive(Debug)]
struct Cursor {
    namespace: String,
    content: Content,
}

#[derive(Debug)]
pub enum Content {
    Documents(VecDeque<Shared>),
    Stream(Box<ChangeStream>),
}

impl Cursors {
    fn add(&mut self, cursor: Cursor) -> i64 {
        // Not from one: an id of before a restart must not be somebody else's after it.
        if self.last == 0 {
            self.last = rand::random_range(1 << 40..1 << 60);
        }
        self.last += 1;
        self.open.insert(self.last, cursor);
        self.last
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    pub fn kill_all(&mut self) {
        self.open.clear();
    }
}

impl Content {
    fn batch(&mut self, state: &mut State, limit: usize) -> Result<RawArrayBuf, Failure> {
        match self {
            Self::Stream(stream) => stream.batch(&mut state.store, limit),
            Self::Documents(rest) => {
                let (mut batch, mut bytes, mut count) = (RawArrayBuf::new(), 0, 0);
                while let Some(next) = rest.front().filter(|_| count < limit) {
                    bytes += next.as_bytes().len();
                    if bytes > DOCUMENT_LIMIT && count > 0 {
                        break;
                    }
                    batch.push(next.as_ref());
                    count += 1;
                    rest.pop_front();
                }
                Ok(batch)
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Documents(rest) => rest.is_empty(),
            Self::Stream(stream) => stream.is_over(),
        }
    }
}

/// The first batch of a read, and a cursor for the rest.
pub fn open(context: &mut Context<'_>, namespace: String, mut content: Content, time: Option<Time>) -> Reply {
    let request = context.request;
    let size =
        request.document("cursor").and_then(|options| options.number("batchSize")).or(request.number("batchSize"));
    let limit = size.map_or(FIRST_BATCH, |size| size.unsigned_abs() as usize);
    let batch = content.batch(context.state, limit)?;
    let mut reply = rawdoc! { "firstBatch": batch, "ns": namespace.as_str() };
    if let Content::Stream(stream) = &content {
        reply.append(cstr!("postBatchResumeToken"), stream.token());
    }
    if let Some(time) = time {
        reply.append(cstr!("atClusterTime"), time.timestamp());
    }
    let is_over = content.is_over() || request.is_set("singleBatch");
    let id = if is_over { 0 } else { context.state.cursors.add(Cursor { namespace, content }) };
    reply.append(cstr!("id"), id);
    Ok(rawdoc! { "cursor": reply })
}

pub fn get_more(context: &mut Context<'_>) -> Reply {
    let request = context.request;
    let id = request.number("getMore").ok_or_else(|| Failure::unparsable("getMore needs a cursor"))?;
    let was_primary = context.progress.was_primary.unwrap_or_else(|| context.is_primary());
    context.progress.was_primary = Some(was_primary);
    if was_primary && !context.is_primary() {
        context.state.cursors.open.remove(&id);
        return Err(Failure::new(11602, "operation was interrupted").into());
    }
    let mut cursor = context
        .state
        .cursors
        .open
        .remove(&id)
        .ok_or_else(|| Failure::new(code::CURSOR_NOT_FOUND, format!("cursor id {id} not found")))?;
    let limit = request.number("batchSize").filter(|size| *size > 0).map_or(usize::MAX, |size| size as usize);
    let batch = cursor.content.batch(context.state, limit)?; // a failed cursor is gone
    let is_stream = matches!(cursor.content, Content::Stream(_));
    if is_stream && batch.is_empty() && !cursor.content.is_over() && !context.progress.expired {
        context.state.cursors.open.insert(id, cursor);
        return Err(Stop::Waits);
    }
    let mut reply = rawdoc! { "nextBatch": batch, "ns": cursor.namespace.as_str() };
    if let Content::Stream(stream) = &cursor.content {
        reply.append(cstr!("postBatchResumeToken"), stream.token());
    }
    let is_over = cursor.content.is_over();
    reply.append(cstr!("id"), if is_over { 0 } else { id });
    if !is_over {
        context.state.cursors.open.insert(id, cursor);
    }
    Ok(rawdoc! { "cursor": reply })
}

pub fn kill_cursors(context: &mut Context<'_>) -> Reply {
    let (mut killed, mut unknown) = (RawArrayBuf::new(), RawArrayBuf::new());
    let ids = context.request.array("cursors").into_iter().flat_map(|ids| ids.into_iter().flatten()).filter_map(whole);
    for id in ids {
        let was_open = context.state.cursors.open.remove(&id).is_some();
        if was_open { killed.push(id) } else { unknown.push(id) }
    }
    context.state.store.changes += 1;
    let reply: RawDocumentBuf = rawdoc! {
        "cursorsKilled": killed, "cursorsNotFound": unknown, "cursorsAlive": [], "cursorsUnknown": [],
    };
    Ok(reply)
}
