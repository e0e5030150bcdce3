//! `hello`: how a driver finds out what it talks to.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{DateTime, RawArrayBuf, RawDocumentBuf, rawdoc};

use super::dispatch::{Context, Reply};
use crate::failure::Stop;
use crate::server::wire::MESSAGE_SIZE_LIMIT;
use crate::value::DOCUMENT_LIMIT;
use crate::value::read::Read;

/// With the `topologyVersion` that the client knows it waits until there is news, as a driver's monitor wants it.
pub fn hello(context: &mut Context<'_>) -> Reply {
    let known = context.request.document("topologyVersion").and_then(|known| known.number("counter"));
    let awaits = context.request.value("maxAwaitTimeMS").is_some() && known == Some(context.state.election.version);
    if awaits && !context.progress.expired {
        return Err(Stop::Waits);
    }
    Ok(describe(context))
}

fn describe(context: &mut Context<'_>) -> RawDocumentBuf {
    let (server, member) = (context.server, context.connection.member);
    let is_primary = context.is_primary();
    let now = DateTime::now();
    let last = rawdoc! { "ts": context.state.store.clock.last().timestamp(), "t": context.state.election.term };
    let hosts: RawArrayBuf = server.members.iter().map(String::as_str).collect();
    let mut reply = rawdoc! {
        "helloOk": true,
        "isWritablePrimary": is_primary,
        "ismaster": is_primary,
        "secondary": !is_primary,
        "setName": server.options.replica_set.as_str(),
        "setVersion": 1,
        "hosts": hosts,
        "me": server.members[member].as_str(),
        "lastWrite": {
            "opTime": last.clone(), "lastWriteDate": now, "majorityOpTime": last, "majorityWriteDate": now,
        },
        "maxBsonObjectSize": DOCUMENT_LIMIT as i32,
        "maxMessageSizeBytes": MESSAGE_SIZE_LIMIT as i32,
        "maxWriteBatchSize": 100_000,
        "localTime": now,
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": context.connection.id as i32,
        "minWireVersion": 0,
        "maxWireVersion": server.options.wire_version,
        "readOnly": false,
        "topologyVersion": { "processId": server.process, "counter": context.state.election.version },
    };
    if let Some(primary) = context.state.election.primary() {
        reply.append(cstr!("primary"), server.members[primary].as_str());
    }
    if is_primary {
        // Ascending with the terms, so that a driver knows an old primary from the new one.
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        bytes[4..].copy_from_slice(&context.state.election.term.to_be_bytes());
        reply.append(cstr!("electionId"), ObjectId::from_bytes(bytes));
    }
    context.connection.login.greet(&server.users, context.request, &mut reply);
    reply
}
