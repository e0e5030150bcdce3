//! What drivers, tools and preflight checks ask about a server.

use bson::raw::CString;
use bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, rawdoc};

use super::dispatch::{Context, Reply, ok};
use crate::query::stage;
use crate::value::read::Read;

fn version(context: &Context<'_>) -> String {
    let [major, minor, patch, _] = context.server.options.server_version();
    format!("{major}.{minor}.{patch}")
}

pub fn build_info(context: &Context<'_>) -> RawDocumentBuf {
    let parts: RawArrayBuf = context.server.options.server_version().into_iter().collect();
    rawdoc! {
        "version": version(context),
        "versionArray": parts,
        "maxBsonObjectSize": crate::value::DOCUMENT_LIMIT as i32,
        "modules": ["stand-in"],
    }
}

pub fn server_status(context: &Context<'_>) -> RawDocumentBuf {
    let server = context.server;
    let oplog = &context.state.store.oplog;
    rawdoc! {
        "host": server.members[context.connection.member].as_str(),
        "version": version(context),
        "process": "mongodb-stand-in",
        "repl": { "setName": server.options.replica_set.as_str(), "isWritablePrimary": context.is_primary() },
        "connections": { "current": server.connections.count() as i32 },
        "metrics": { "cursor": { "open": { "total": context.state.cursors.count() as i64 } } },
        "oplog": { "entries": oplog.len() as i64, "cut": oplog.start() as i64 },
    }
}

pub fn connection_status(context: &Context<'_>) -> RawDocumentBuf {
    let (mut users, mut roles) = (RawArrayBuf::new(), RawArrayBuf::new());
    if let Some(user) = context.connection.login.user() {
        users.push(&rawdoc! { "user": user, "db": "admin" });
        roles.push(&rawdoc! { "role": "root", "db": "admin" });
    }
    rawdoc! { "authInfo": { "authenticatedUsers": users, "authenticatedUserRoles": roles } }
}

pub fn users_info(context: &Context<'_>) -> RawDocumentBuf {
    let mut users = RawArrayBuf::new();
    for name in context.server.users.names() {
        users.push(&rawdoc! {
            "_id": format!("admin.{name}"), "user": name, "db": "admin",
            "roles": [{ "role": "root", "db": "admin" }], "mechanisms": ["SCRAM-SHA-256"],
        });
    }
    rawdoc! { "users": users }
}

pub fn get_parameter(context: &Context<'_>) -> RawDocumentBuf {
    let [major, minor, ..] = context.server.options.server_version();
    let state = &context.state;
    let mut known: Vec<(String, RawBson)> = vec![
        ("featureCompatibilityVersion".to_owned(), rawdoc! { "version": format!("{major}.{minor}") }.into()),
        ("transactionLifetimeLimitSeconds".to_owned(), RawBson::Int32(state.transaction_lifetime.as_secs() as i32)),
    ];
    known.extend(state.parameters.iter().map(|(name, value)| (name.clone(), value.clone())));
    let all = matches!(context.request.value("getParameter"), Some(RawBsonRef::String("*")));
    let mut reply = ok();
    for (name, value) in known {
        if (all || context.request.value(&name).is_some())
            && let Ok(name) = CString::try_from(name)
        {
            reply.append(name, value);
        }
    }
    reply
}

pub fn set_parameter(context: &mut Context<'_>) -> Reply {
    for (name, value) in context.request.iter().flatten().skip(1) {
        match name.as_str() {
            "lsid" | "$db" | "$clusterTime" | "$readPreference" => {}
            "transactionLifetimeLimitSeconds" => {
                let seconds = context.request.number(name.as_str()).unwrap_or(60).max(1) as u64;
                context.state.transaction_lifetime = std::time::Duration::from_secs(seconds);
            }
            name => drop(context.state.parameters.insert(name.to_owned(), value.into())),
        }
    }
    Ok(ok())
}

fn members(context: &Context<'_>) -> RawArrayBuf {
    let election = &context.state.election;
    let mut members = RawArrayBuf::new();
    for (number, address) in context.server.members.iter().enumerate() {
        let (state, name) = match (election.is_stopped(number), election.is_primary(number)) {
            (true, _) => (8, "(not reachable/healthy)"),
            (false, true) => (1, "PRIMARY"),
            (false, false) => (2, "SECONDARY"),
        };
        members.push(&rawdoc! {
            "_id": number as i32, "name": address.as_str(), "host": address.as_str(),
            "health": if election.is_stopped(number) { 0.0 } else { 1.0 }, "state": state, "stateStr": name,
        });
    }
    members
}

pub fn replica_set_status(context: &Context<'_>) -> RawDocumentBuf {
    rawdoc! {
        "set": context.server.options.replica_set.as_str(),
        "myState": if context.is_primary() { 1 } else { 2 },
        "term": context.state.election.term,
        "members": members(context),
    }
}

pub fn replica_set_config(context: &Context<'_>) -> RawDocumentBuf {
    rawdoc! {
        "config": {
            "_id": context.server.options.replica_set.as_str(), "version": 1, "term": context.state.election.term,
            "members": members(context),
            "settings": { "replicaSetId": context.state.store.identity },
        }
    }
}

pub fn collection_statistics(context: &Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    let (count, bytes) = context.state.store.collection(&namespace).map_or((0, 0), |collection| {
        (collection.rows.len(), collection.rows.now().map(|(_, row)| row.as_bytes().len()).sum())
    });
    let mut reply = stage::collection_statistics(namespace.as_str(), count, bytes);
    reply.append(bson::raw::cstr!("size"), bytes as i64);
    Ok(reply)
}

pub fn database_statistics(context: &Context<'_>) -> RawDocumentBuf {
    let (mut collections, mut objects, mut bytes, mut indexes) = (0, 0, 0, 0);
    for collection in context.state.store.in_database(context.database()) {
        collections += 1;
        indexes += collection.indexes.len() + 1;
        objects += collection.rows.len();
        bytes += collection.rows.now().map(|(_, row)| row.as_bytes().len()).sum::<usize>();
    }
    rawdoc! {
        "db": context.database(), "collections": collections, "views": 0, "objects": objects as i64,
        "dataSize": bytes as i64, "storageSize": bytes as i64, "indexes": indexes as i32,
    }
}
