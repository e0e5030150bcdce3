//! What tests do to a server. `replSetStepDown` and `configureFailPoint` are the server's own, the others are not.

use std::time::Duration;

use bson::{RawDocumentBuf, rawdoc};

use super::dispatch::{Context, Reply, ok};
use super::fail_point::FailPoint;
use crate::failure::Failure;
use crate::storage::namespace::Namespace;
use crate::storage::validation;
use crate::update::with_id;
use crate::value::order::Key;
use crate::value::read::Read;

/// How long several members are without a primary, unless `electionMillis` says otherwise.
const ELECTION: Duration = Duration::from_millis(300);

fn election_time(context: &Context<'_>) -> Duration {
    context.request.number("electionMillis").map_or(ELECTION, |time| Duration::from_millis(time.max(0) as u64))
}

/// One member is back after the given seconds; of several the next running one takes over after the election.
pub fn step_down(context: &mut Context<'_>) -> RawDocumentBuf {
    let seconds = context.request.number("replSetStepDown").unwrap_or(1).max(0) as u64;
    let alone = context.server.members.len() == 1;
    let gap = if alone { Duration::from_secs(seconds) } else { election_time(context) };
    context.state.election.step_down(gap);
    context.state.after_election();
    ok()
}

fn member(context: &Context<'_>) -> usize {
    context.request.number(&context.request.name).unwrap_or(0).max(0) as usize
}

/// `{stopMember: n}`: it accepts nobody and drops its connections.
pub fn stop_member(context: &mut Context<'_>) -> RawDocumentBuf {
    let (member, gap) = (member(context), election_time(context));
    if context.state.election.stop(member, gap) {
        context.state.after_election();
    }
    context.server.connections.cut(Some(member));
    ok()
}

pub fn start_member(context: &mut Context<'_>) -> RawDocumentBuf {
    let member = member(context);
    context.state.election.start(member);
    ok()
}

pub fn configure_fail_point(context: &mut Context<'_>) -> Reply {
    let name = context.request.needed_text("configureFailPoint")?;
    if name != "failCommand" {
        return Err(Failure::bad_value(format!("the stand-in knows no fail point '{name}'")).into());
    }
    context.state.fail_point = FailPoint::parse(context.request)?;
    Ok(ok())
}

/// `{truncateOplog: 1, keep: n}`: history before the last n entries is lost.
pub fn truncate_oplog(context: &mut Context<'_>) -> RawDocumentBuf {
    let keep = context.request.number("keep").unwrap_or(0).max(0) as usize;
    context.state.store.truncate_oplog(keep);
    let oplog = &context.state.store.oplog;
    rawdoc! { "base": oplog.start() as i64, "kept": oplog.len() as i64 }
}

/// `{dropConnections: 1}`: all of them, this one too.
pub fn drop_connections(context: &mut Context<'_>) -> RawDocumentBuf {
    context.server.connections.cut(None);
    ok()
}

/// `{killAllCursors: 1}`: without a word to those who read from them.
pub fn kill_all_cursors(context: &mut Context<'_>) -> RawDocumentBuf {
    context.state.cursors.kill_all();
    context.state.store.changes += 1;
    ok()
}

/// `{writeBehindOplog: collection, documents: [..], deletes: [{_id: ..}, ..]}`: rows written or deleted by `_id`
/// without an oplog entry, so that no change stream tells about them.
pub fn write_behind_oplog(context: &mut Context<'_>) -> Reply {
    let namespace: Namespace = context.namespace()?;
    context.state.store.ensure(&namespace)?;
    let (documents, deletes) = (context.request.documents("documents"), context.request.documents("deletes"));
    for document in &documents {
        let document = with_id(document);
        let key = validation::check_insert(&document)?;
        context.state.store.write_behind(&namespace, key, Some(&document))?;
    }
    for delete in &deletes {
        let id = delete.value("_id").ok_or_else(|| Failure::bad_value("a delete behind the oplog names an _id"))?;
        context.state.store.write_behind(&namespace, Key::of(id), None)?;
    }
    Ok(rawdoc! { "n": (documents.len() + deletes.len()) as i32 })
}
