//! What all connections share: the state behind one lock, and the bell that rings when it changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use tokio::sync::watch;

use super::authentication::Users;
use super::connections::Connections;
use super::election::Election;
use crate::command::cursors::Cursors;
use crate::command::fail_point::FailPoint;
use crate::options::Options;
use crate::storage::session::Phase;
use crate::storage::store::Store;

pub struct Server {
    pub options: Options,
    /// `host:port` of every member.
    pub members: Vec<String>,
    pub users: Users,
    pub connections: Connections,
    /// Tells this run of the stand-in from others: `topologyVersion.processId`.
    pub process: ObjectId,
    state: Mutex<State>,
    bell: watch::Sender<u64>,
    next_connection: AtomicI64,
}

pub struct State {
    pub store: Store,
    pub cursors: Cursors,
    pub election: Election,
    pub fail_point: Option<FailPoint>,
    /// The stand-in has ended: whoever still comes through is refused.
    pub closed: bool,
    /// `transactionLifetimeLimitSeconds`.
    pub transaction_lifetime: Duration,
    /// Other parameters that were set, given back as they came.
    pub parameters: HashMap<String, bson::RawBson>,
}

impl Server {
    pub fn new(options: Options, members: Vec<String>, store: Store) -> Self {
        let state = State {
            store,
            cursors: Cursors::default(),
            election: Election::new(members.len()),
            fail_point: None,
            closed: false,
            transaction_lifetime: Duration::from_secs(60),
            parameters: HashMap::new(),
        };
        Self {
            users: Users::new(&options.users),
            connections: Connections::default(),
            process: ObjectId::new(),
            state: Mutex::new(state),
            bell: watch::Sender::new(0),
            next_connection: AtomicI64::new(1),
            members,
            options,
        }
    }

    pub fn connection_id(&self) -> i64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    pub fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// Runs something on the state. What it wrote is in the journal before anybody sees it.
    pub fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.store.changes;
        let result = action(&mut state);
        if let Err(error) = state.store.write_journal() {
            tracing::error!(%error, "the journal can't be written; the stand-in ends");
            std::process::abort();
        }
        let after = state.store.changes;
        drop(state);
        if after != before {
            self.bell.send_replace(after);
        }
        result
    }

    /// Ends service. When this returns, nothing is written to the journal any more.
    pub fn close(&self) {
        self.connections.cut(None);
        self.with(|state| state.closed = true);
    }

    /// `mongodb://...` of all members.
    pub fn url(&self) -> String {
        let tls = if self.options.tls.is_some() { "&tls=true" } else { "" };
        format!("mongodb://{}/?replicaSet={}{tls}", self.members.join(","), self.options.replica_set)
    }
}

impl State {
    pub fn abort_transactions(&mut self, which: impl Fn(&crate::storage::transaction::Transaction) -> bool) {
        let mut aborted = Vec::new();
        for session in self.store.sessions.all() {
            if matches!(&session.phase, Phase::InTransaction(transaction) if which(transaction)) {
                aborted.extend(session.abort());
            }
        }
        aborted.iter().for_each(|transaction| self.store.abort_transaction(transaction));
    }

    /// What happens with time alone: transactions grow too old, a member becomes primary.
    pub fn pass_time(&mut self) {
        self.abort_expired();
        if self.election.has_changed() {
            self.store.changes += 1;
        }
    }

    fn abort_expired(&mut self) {
        let now = Instant::now();
        self.abort_transactions(|transaction| transaction.expires <= now);
    }

    /// A new primary: open transactions are lost, waiting reads are interrupted.
    pub fn after_election(&mut self) {
        self.abort_transactions(|_| true);
        self.election.has_changed();
        self.store.changes += 1;
    }
}
