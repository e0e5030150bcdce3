//! The sink: a batch, its parked rows and the marker in one transaction, by set-based statements.
//!
//! ```text
//! WriteBatch -> collapse -> items -> BEGIN, marker, one statement per table and kind, COMMIT
//!                                      |            in a single round trip
//!                                      +- an update found no row: again, looking at what was found before the commit
//!                                      +- a row was refused: again, row by row in source order, with savepoints
//! ```
//!
//! The marker moves first and by compare-and-set; where it does not stand as expected, its statement fails and with it
//! the transaction (invariant 2). So nothing has to be looked at before the commit, and the commit of a transaction that
//! has failed is a rollback. A repetition is a new transaction over the same marker.
//!
//! The session runs as `session_replication_role = replica` where it may, as native logical replication does: the
//! source's own triggers and cascades have already made the rows that we are sent, so only triggers that are marked
//! ALWAYS or REPLICA fire, and foreign keys, which the source has checked, are not checked again. Elsewhere deletes go
//! children first, inserts parents first.

mod encode;
mod exchange;
mod failure;
mod guard;
mod items;
mod marker;
mod numeric;
mod pipeline;
mod plan;
mod refusing;
mod row_by_row;
mod session;
mod set_based;
mod statement;
mod target;

use crate::config::Config;
use crate::error::Error;
use crate::own::Owner;
use crate::recent::Recent;
use async_trait::async_trait;
use failure::Failure;
use session::Session;
use std::sync::Arc;
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::sink::{Applied, Parking, Progress, Sink, WriteBatch};

/// Applies one partition of a pipeline to a PostgreSQL database.
pub struct PostgresSink {
    config: Config,
    scope: Scope,
    owner: Owner,
    recent: Arc<Recent>,
    /// Gone after an error: the connection is closed, and the server rolls back what was under way.
    session: Option<Session>,
}

impl PostgresSink {
    /// Connects and looks at the target's tables; one that is not there is Fatal. Changes nothing.
    pub async fn connect(
        config: &Config,
        name: &DatabaseName,
        scope: &Scope,
        recent: Arc<Recent>,
    ) -> Result<Self, Error> {
        let owner = Owner::of(scope, name);
        let session = Session::open(config, scope, &owner, recent.clone()).await?;
        Ok(Self { config: config.clone(), scope: scope.clone(), owner, recent, session: Some(session) })
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn take_over(&mut self, log: &str) -> Result<Progress> {
        let mut session = match self.session.take().filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.config, &self.scope, &self.owner, self.recent.clone()).await?,
        };
        let progress = session.take_over(&self.owner, log).await?;
        self.session = Some(session);
        Ok(progress)
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        let Some(mut session) = self.session.take() else {
            let problem = "an earlier write failed; the target must be taken over again".to_owned();
            return Err(Error::Lost { doing: "a write".to_owned(), problem }.into());
        };
        let applied = session.apply(batch, parking).await?;
        self.session = Some(session);
        Ok(applied)
    }
}

/// Why an attempt to write a batch came to nothing.
enum Attempt {
    /// The transaction has been rolled back; another way may do.
    Failed(Failure),
    /// Only row by row can it be done.
    RowByRow,
    /// Two-way: a row is not the one that was trusted to be there.
    Look,
    /// Two-way: triggers have made other rows of these writes.
    Altered(Vec<usize>),
    /// It can't be repeated on this connection.
    Stop(sync_worker_core::error::Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Attempt::Stop(error.into())
    }
}

impl From<sync_worker_core::error::Error> for Attempt {
    fn from(error: sync_worker_core::error::Error) -> Self {
        Attempt::Stop(error)
    }
}

impl From<sync_worker_core::value::Damaged> for Attempt {
    fn from(damaged: sync_worker_core::value::Damaged) -> Self {
        Attempt::Stop(Error::Damaged(damaged).into())
    }
}
