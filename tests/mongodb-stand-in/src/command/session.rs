//! Sessions around a command: transactions, and retryable writes that are executed once.

use std::time::Instant;

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::dispatch::{Context, Reply, dispatch, ok};
use crate::failure::{Failure, Stop, TRANSIENT, code};
use crate::storage::oplog::TransactionId;
use crate::storage::session::{Phase, SessionId};
use crate::storage::transaction::Transaction;
use crate::value::read::{Read, documents};

pub fn run(context: &mut Context<'_>) -> Reply {
    let request = context.request;
    let session = request.document("lsid").and_then(id_of);
    let (Some(session), Some(number)) = (session, request.number("txnNumber")) else {
        return dispatch(context, None);
    };
    let last = context.state.store.sessions.get(&session).number;
    if number < last {
        let message = format!(
            "Cannot start transaction {number} on session because a newer transaction {last} has already started on this session."
        );
        return Err(Failure::new(225, message).into());
    }
    if request.value("autocommit").is_none() {
        return retryable_write(context, &session, number);
    }
    match request.name.as_str() {
        "commitTransaction" => commit(context, &session, number),
        "abortTransaction" => abort(context, &session, number),
        _ => in_transaction(context, &session, number),
    }
}

fn id_of(lsid: &RawDocument) -> Option<SessionId> {
    match lsid.value("id")? {
        RawBsonRef::Binary(id) => Some(id.bytes.to_vec()),
        _ => None,
    }
}

fn retryable_write(context: &mut Context<'_>, session: &[u8], number: i64) -> Reply {
    let known = context.state.store.sessions.get(session);
    if known.number == number
        && let Phase::Written(reply) = &known.phase
    {
        return Ok(reply.clone());
    }
    end_open_transaction(context, session);
    let reply = dispatch(context, None)?;
    context.state.store.remember(session, number, &reply);
    Ok(reply)
}

fn in_transaction(context: &mut Context<'_>, session: &[u8], number: i64) -> Reply {
    if context.request.is_set("startTransaction") {
        start(context, session, number)?;
    }
    let mut transaction = take(context, session, number)?;
    if context.state.store.oplog.has_lost(transaction.read_at) {
        context.state.store.abort_transaction(&transaction);
        return Err(Failure::new(239, "the transaction's snapshot is too old").into());
    }
    let reply = dispatch(context, Some(&mut transaction));
    let has_failed = match &reply {
        Ok(reply) => reply.value("writeErrors").is_some() || reply.number("nErrors").is_some_and(|errors| errors > 0),
        Err(_) => true,
    };
    if has_failed {
        context.state.store.abort_transaction(&transaction);
    } else {
        context.state.store.sessions.get(session).phase = Phase::InTransaction(transaction);
    }
    reply
}

fn start(context: &mut Context<'_>, session: &[u8], number: i64) -> Result<(), Stop> {
    let known = context.state.store.sessions.get(session);
    if known.number == number && !matches!(known.phase, Phase::Aborted) {
        return Err(Failure::new(263, "Cannot start a transaction at the given transaction number twice").into());
    }
    end_open_transaction(context, session);
    let mut id = RawDocumentBuf::new();
    id.append(cstr!("id"), bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: session.to_vec() });
    id.append(cstr!("uid"), context.connection.login.digest());
    if let Some(after) =
        context.request.document("readConcern").and_then(|concern| concern.timestamp("afterClusterTime"))
    {
        context.state.store.clock.observe(after.into());
    }
    let read_at = context.state.store.clock.last();
    let expires = Instant::now() + context.state.transaction_lifetime;
    let transaction = Transaction::new(TransactionId { session: id, number }, read_at, expires);
    let known = context.state.store.sessions.get(session);
    known.number = number;
    known.phase = Phase::InTransaction(Box::new(transaction));
    Ok(())
}

/// Takes the open transaction out of its session; it counts as aborted until it is put back.
fn take(context: &mut Context<'_>, session: &[u8], number: i64) -> Result<Box<Transaction>, Stop> {
    let known = context.state.store.sessions.get(session);
    if known.number != number {
        return Err(no_such(number).into());
    }
    if matches!(known.phase, Phase::Committed) {
        return Err(Failure::new(256, format!("Transaction {number} has been committed.")).into());
    }
    known.abort().ok_or_else(|| no_such(number).into())
}

fn commit(context: &mut Context<'_>, session: &[u8], number: i64) -> Reply {
    let known = context.state.store.sessions.get(session);
    if known.number == number && matches!(known.phase, Phase::Committed) {
        return Ok(ok()); // again, after the first reply was lost
    }
    let mut transaction = take(context, session, number)?;
    let committed = context.state.store.commit_transaction(&mut transaction);
    if let Err(failure) = committed {
        context.state.store.abort_transaction(&transaction);
        return Err(failure.labelled(TRANSIENT).into());
    }
    context.state.store.sessions.get(session).phase = Phase::Committed;
    Ok(ok())
}

fn abort(context: &mut Context<'_>, session: &[u8], number: i64) -> Reply {
    let transaction = take(context, session, number)?;
    context.state.store.abort_transaction(&transaction);
    Ok(ok())
}

fn end_open_transaction(context: &mut Context<'_>, session: &[u8]) {
    if let Some(transaction) = context.state.store.sessions.get(session).abort() {
        context.state.store.abort_transaction(&transaction);
    }
}

pub fn end(context: &mut Context<'_>) {
    let ended = context.request.array("endSessions").into_iter().flat_map(documents).filter_map(id_of);
    for session in ended {
        if context.state.store.sessions.find(&session).is_some() {
            end_open_transaction(context, &session);
            context.state.store.sessions.end(&session);
        }
    }
}

/// `killSessions`: their transactions are over, whoever began them.
pub fn kill(context: &mut Context<'_>) {
    let killed = context.request.array("killSessions").into_iter().flat_map(documents).filter_map(id_of);
    for session in killed {
        if context.state.store.sessions.find(&session).is_some() {
            end_open_transaction(context, &session);
        }
    }
}

fn no_such(number: i64) -> Failure {
    Failure::new(
        code::NO_SUCH_TRANSACTION,
        format!("Given transaction number {number} does not match any in-progress transactions."),
    )
}
