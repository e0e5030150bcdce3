//! A stand-in for a MongoDB replica set, for tests and benchmarks where no `mongod` can be had.
//!
//! It speaks the wire protocol to the official drivers and keeps everything in memory, with a journal on disk if it is
//! given a folder. What it does follows the server's documentation; it was never compared with a real `mongod`. The
//! suite in `tests/` runs on it and, with `SYNC_WORKER_TEST_MONGODB`, on a real replica set.
//!
//! ```text
//! driver -> server::connection -> command -> storage::Store -> journal, oplog
//!                                    \-> stream (change streams read the oplog)
//! ```
//!
//! Weaker than a real server: no sharding, rollback, compression, SCRAM-SHA-1, collations, `arrayFilters`, positional
//! operators, `$lookup` or `$jsonSchema`; reads use the index on `_id` only; a collection that a transaction creates is
//! there at once; a batch that was cut off while it waited for a transaction does not remember its first statements.
//!
//! Commands beyond the server's own, for tests only: `truncateOplog`, `dropConnections`, `killAllCursors`,
//! `stopMember`, `startMember`, `writeBehindOplog`, and `afterExecution` in the fail point `failCommand`.

mod command;
mod failure;
mod options;
mod query;
mod server;
mod storage;
mod stream;
mod update;
mod value;

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use options::{Options, Tls};
use server::shared::Server;
use storage::store::Store;

/// How often the clock is looked at: for transactions that are too old and elections that are over.
const TICK: std::time::Duration = std::time::Duration::from_millis(50);

/// A running stand-in. It ends when this is dropped.
pub struct StandIn {
    server: Arc<Server>,
    tasks: JoinSet<()>,
}

impl StandIn {
    pub async fn start(options: Options) -> Result<Self> {
        let tls = match &options.tls {
            Some(tls) => Some(server::tls::acceptor(&tls.certificate, &tls.key)?),
            None => None,
        };
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let store = Store::open(options.folder.as_deref(), options.oplog).context("the journal")?;
        let mut listeners = Vec::new();
        let mut members = Vec::new();
        for member in 0..options.members.max(1) {
            let port = if options.port == 0 { 0 } else { options.port + u16::try_from(member)? };
            let listener = TcpListener::bind(("127.0.0.1", port)).await.context("a port to listen on")?;
            members.push(format!("{host}:{}", listener.local_addr()?.port()));
            listeners.push(listener);
        }
        let server = Arc::new(Server::new(options, members, store));
        let mut tasks = JoinSet::new();
        for (member, listener) in listeners.into_iter().enumerate() {
            tasks.spawn(server::member::listen(server.clone(), member, listener, tls.clone()));
        }
        let ticking = server.clone();
        tasks.spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                ticking.with(|state| state.pass_time());
            }
        });
        Ok(Self { server, tasks })
    }

    /// Where a driver connects, without a user.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Ends it: nobody is served any more when this returns.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
        self.server.close();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.server.close();
    }
}
