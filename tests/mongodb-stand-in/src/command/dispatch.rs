//! From a command's name to what it does.

use bson::{RawDocumentBuf, rawdoc};

use super::progress::Progress;
use super::{
    aggregate, bulk_write, catalog, cursors, delete, diagnostics, find, find_and_modify, hello, indexes, insert,
    test_only, update,
};
use crate::failure::{Failure, Stop};
use crate::server::connection::Connection;
use crate::server::shared::{Server, State};
use crate::server::wire::Request;
use crate::storage::clock::Time;
use crate::storage::namespace::Namespace;
use crate::storage::transaction::Transaction;
use crate::value::read::Read;

/// What a command works on.
pub struct Context<'a> {
    pub server: &'a Server,
    pub state: &'a mut State,
    pub connection: &'a mut Connection,
    pub progress: &'a mut Progress,
    pub request: &'a Request,
}

pub type Reply = Result<RawDocumentBuf, Stop>;

impl Context<'_> {
    pub fn database(&self) -> &str {
        &self.request.database
    }

    /// The collection that the command names as its own argument.
    pub fn namespace(&self) -> Result<Namespace, Failure> {
        let collection = self.request.needed_text(&self.request.name)?;
        if collection.is_empty() || self.request.database.is_empty() {
            return Err(Failure::new(
                73,
                format!("Invalid namespace specified '{}.{collection}'", self.request.database),
            ));
        }
        Ok(Namespace::new(&self.request.database, collection))
    }

    pub fn is_primary(&self) -> bool {
        self.state.election.is_primary(self.connection.member)
    }

    /// The past time that a read outside of a transaction asks for.
    pub fn read_time(&mut self, namespace: &Namespace) -> Result<Option<Time>, Failure> {
        let Some(concern) = self.request.document("readConcern") else { return Ok(None) };
        if let Some(after) = concern.timestamp("afterClusterTime") {
            self.state.store.clock.observe(after.into());
        }
        if concern.text("level") != Some("snapshot") || self.request.value("txnNumber").is_some() {
            return Ok(None);
        }
        let time = concern.timestamp("atClusterTime").map_or(self.state.store.clock.last(), Time::from);
        self.state.store.check_readable(namespace, time)?;
        Ok(Some(time))
    }
}

pub fn ok() -> RawDocumentBuf {
    RawDocumentBuf::new()
}

/// Commands that a member answers whatever its role.
pub fn is_for_any_member(name: &str) -> bool {
    matches!(
        name,
        "hello"
            | "isMaster"
            | "ismaster"
            | "ping"
            | "buildInfo"
            | "buildinfo"
            | "endSessions"
            | "configureFailPoint"
            | "replSetGetStatus"
            | "replSetGetConfig"
            | "startMember"
            | "stopMember"
            | "saslStart"
            | "saslContinue"
            | "connectionStatus"
            | "getParameter"
            | "setParameter"
            | "serverStatus"
            | "killCursors"
            | "getMore"
    )
}

/// Reads that a secondary serves if a read preference comes with them.
pub fn is_read(name: &str) -> bool {
    matches!(
        name,
        "find"
            | "aggregate"
            | "count"
            | "distinct"
            | "listCollections"
            | "listIndexes"
            | "listDatabases"
            | "collStats"
            | "dbStats"
    )
}

/// What may be asked before logging in.
pub fn is_public(name: &str) -> bool {
    matches!(
        name,
        "hello"
            | "isMaster"
            | "ismaster"
            | "ping"
            | "buildInfo"
            | "buildinfo"
            | "saslStart"
            | "saslContinue"
            | "logout"
            | "connectionStatus"
            | "endSessions"
    )
}

pub fn dispatch(context: &mut Context<'_>, transaction: Option<&mut Transaction>) -> Reply {
    let request = context.request;
    match request.name.as_str() {
        "hello" | "isMaster" | "ismaster" => hello::hello(context),
        "ping" | "refreshSessions" | "fsync" | "replSetHeartbeat" => Ok(ok()),
        "saslStart" => Ok(context.connection.login.start(&context.server.users, request)?),
        "saslContinue" => Ok(context.connection.login.go_on(request)?),
        "logout" => {
            context.connection.login.log_out();
            Ok(ok())
        }

        "insert" => insert::insert(context, transaction),
        "update" => update::update(context, transaction),
        "delete" => delete::delete(context, transaction),
        "findAndModify" | "findandmodify" => find_and_modify::find_and_modify(context, transaction),
        "bulkWrite" => bulk_write::bulk_write(context, transaction),

        "find" => find::find(context, transaction.as_deref()),
        "count" => find::count(context, transaction.as_deref()),
        "distinct" => find::distinct(context, transaction.as_deref()),
        "aggregate" => aggregate::aggregate(context, transaction.as_deref()),
        "getMore" => cursors::get_more(context),
        "killCursors" => cursors::kill_cursors(context),

        "create" => catalog::create(context),
        "collMod" => catalog::modify(context),
        "drop" => catalog::drop_collection(context),
        "dropDatabase" => catalog::drop_database(context),
        "renameCollection" => catalog::rename(context),
        "listCollections" => catalog::list_collections(context),
        "listDatabases" => catalog::list_databases(context),
        "createIndexes" => indexes::create(context),
        "listIndexes" => indexes::list(context),
        "dropIndexes" => indexes::drop_indexes(context),
        "appendOplogNote" => {
            let empty = rawdoc! {};
            context.state.store.note(request.document("data").unwrap_or(&empty))?;
            Ok(ok())
        }

        "buildInfo" | "buildinfo" => Ok(diagnostics::build_info(context)),
        "serverStatus" => Ok(diagnostics::server_status(context)),
        "connectionStatus" => Ok(diagnostics::connection_status(context)),
        "getParameter" => Ok(diagnostics::get_parameter(context)),
        "setParameter" => diagnostics::set_parameter(context),
        "usersInfo" => Ok(diagnostics::users_info(context)),
        "replSetGetStatus" => Ok(diagnostics::replica_set_status(context)),
        "replSetGetConfig" => Ok(diagnostics::replica_set_config(context)),
        "collStats" => diagnostics::collection_statistics(context),
        "dbStats" => Ok(diagnostics::database_statistics(context)),

        "startSession" => Ok(rawdoc! { "id": { "id": bson::Binary::from(bson::Uuid::new()) }, "timeoutMinutes": 30 }),
        "endSessions" => {
            super::session::end(context);
            Ok(ok())
        }
        "killSessions" if request.array("killSessions").is_some_and(|ids| !ids.is_empty()) => {
            super::session::kill(context);
            Ok(ok())
        }
        "killSessions" | "killAllSessions" | "killAllSessionsByPattern" => {
            context.state.abort_transactions(|_| true);
            Ok(ok())
        }

        "replSetStepDown" => Ok(test_only::step_down(context)),
        "configureFailPoint" => test_only::configure_fail_point(context),
        "truncateOplog" => Ok(test_only::truncate_oplog(context)),
        "dropConnections" => Ok(test_only::drop_connections(context)),
        "killAllCursors" => Ok(test_only::kill_all_cursors(context)),
        "stopMember" => Ok(test_only::stop_member(context)),
        "startMember" => Ok(test_only::start_member(context)),
        "writeBehindOplog" => test_only::write_behind_oplog(context),

        other => Err(Failure::new(59, format!("no such command: '{other}'")).into()),
    }
}
