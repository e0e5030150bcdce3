//! One command from its arrival to its reply: fail points, waiting, error labels, cluster time.

use std::time::{Duration, Instant};

use bson::raw::cstr;
use bson::{Binary, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use super::dispatch::{Context, Reply, is_for_any_member, is_public, is_read};
use super::fail_point::Fault;
use super::progress::Progress;
use super::session;
use crate::failure::{self, Failure, RESUMABLE, RETRYABLE_WRITE, Stop, TRANSIENT, code};
use crate::server::connection::Connection;
use crate::server::shared::{Server, State};
use crate::server::wire::Request;
use crate::value::read::Read;

/// How long a waiting `getMore` on a change stream waits without `maxTimeMS`.
const AWAIT: Duration = Duration::from_secs(1);

/// The reply, or `None` if the connection is to be closed without one.
pub async fn execute(server: &Server, connection: &mut Connection, request: &Request) -> Option<RawDocumentBuf> {
    let fault = server.with(|state| state.fault_of(request));
    if let Some(fault) = fault.as_ref().filter(|fault| !fault.after_execution)
        && let Some(outcome) = suffer(server, request, fault).await
    {
        return outcome;
    }
    let reply = run(server, connection, request).await;
    if let Some(fault) = fault {
        if fault.after_execution
            && let Some(outcome) = suffer(server, request, &fault).await
        {
            return outcome;
        }
        if let Some(error) = fault.write_concern_error {
            let mut reply = reply;
            reply.append(cstr!("writeConcernError"), error);
            return Some(reply);
        }
    }
    Some(reply)
}

/// Waits as long as the fault says; then `Some` if it ends the command: with a reply or by closing the connection.
async fn suffer(server: &Server, request: &Request, fault: &Fault) -> Option<Option<RawDocumentBuf>> {
    if let Some(time) = fault.block {
        tokio::time::sleep(time).await;
    }
    if fault.close_connection {
        return Some(None);
    }
    let code = fault.error?;
    let mut failure = Failure::new(code, "Failing command via 'failCommand' failpoint");
    match &fault.labels {
        Some(labels) => failure.labels = labels.clone(),
        None => label(&mut failure, request),
    }
    Some(Some(server.with(|state| finish(state, failure.reply()))))
}

async fn run(server: &Server, connection: &mut Connection, request: &Request) -> RawDocumentBuf {
    let limit = request.number("maxTimeMS").or(request.number("maxAwaitTimeMS"));
    let wait = limit.map(|limit| Duration::from_millis(limit.max(0) as u64));
    let mut progress = Progress::new(wait.or((request.name == "getMore").then_some(AWAIT)));
    let mut bell = server.bell();
    loop {
        bell.borrow_and_update();
        let reply = server.with(|state| attempt(server, state, connection, request, &mut progress));
        if let Some(reply) = reply {
            return reply;
        }
        // Whichever comes first; the next attempt finds out which.
        let _either = tokio::time::timeout_at(progress.deadline.into(), bell.changed()).await;
    }
}

/// `None`: the command waits.
fn attempt(
    server: &Server,
    state: &mut State,
    connection: &mut Connection,
    request: &Request,
    progress: &mut Progress,
) -> Option<RawDocumentBuf> {
    progress.expired = Instant::now() >= progress.deadline;
    let outcome = guarded(Context { server, state, connection, progress, request });
    let failure = match outcome {
        Ok(mut reply) => {
            reply.append(cstr!("ok"), 1.0);
            return Some(finish(state, reply));
        }
        Err(Stop::Waits) if !progress.expired => return None,
        Err(Stop::Waits) => Failure::new(50, "operation exceeded time limit"),
        Err(Stop::Failed(failure)) => *failure,
    };
    let mut failure = failure;
    label(&mut failure, request);
    Some(finish(state, failure.reply()))
}

fn guarded(mut context: Context<'_>) -> Reply {
    let request = context.request;
    request.check()?;
    if context.state.closed {
        return Err(Failure::new(code::SHUTDOWN_IN_PROGRESS, "the stand-in has ended").into());
    }
    let name = request.name.as_str();
    if context.server.users.are_asked() && context.connection.login.user().is_none() && !is_public(name) {
        return Err(Failure::new(code::UNAUTHORIZED, format!("Command {name} requires authentication")).into());
    }
    if !context.is_primary() && !is_for_any_member(name) {
        if !is_read(name) {
            return Err(Failure::new(code::NOT_WRITABLE_PRIMARY, "not primary").into());
        }
        let preference = request.document("$readPreference").and_then(|preference| preference.text("mode"));
        if matches!(preference, None | Some("primary")) {
            return Err(Failure::new(13435, "not primary and secondaryOk=false").into());
        }
    }
    if let Some(time) = request.document("$clusterTime").and_then(|gossip| gossip.timestamp("clusterTime")) {
        context.state.store.clock.observe(time.into());
    }
    session::run(&mut context)
}

/// The labels by which drivers decide what to do again.
fn label(failure: &mut Failure, request: &Request) {
    let add = |failure: &mut Failure, label: &str| *failure = failure.clone().labelled(label);
    let in_transaction = request.value("autocommit").is_some();
    let ends_transaction = matches!(request.name.as_str(), "commitTransaction" | "abortTransaction");
    let is_retryable_write = request.value("txnNumber").is_some() && (!in_transaction || ends_transaction);
    if is_retryable_write && failure::is_retryable(failure.code) {
        add(failure, RETRYABLE_WRITE);
    }
    if in_transaction && failure::is_transient(failure.code, ends_transaction) {
        add(failure, TRANSIENT);
    }
    let reads_stream = matches!(request.name.as_str(), "aggregate" | "getMore");
    if reads_stream && failure::is_resumable(failure.code) {
        add(failure, RESUMABLE);
    }
}

fn finish(state: &State, mut reply: RawDocumentBuf) -> RawDocumentBuf {
    let time = state.store.clock.last().timestamp();
    let hash = Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 20] };
    let signature = rawdoc! { "hash": hash, "keyId": 0i64 };
    reply.append(cstr!("$clusterTime"), rawdoc! { "clusterTime": time, "signature": signature });
    reply.append(cstr!("operationTime"), time);
    reply
}
