//! Seeds: whose rows members begin with. The end of merged ones: the log is told of each table when the rows of all members are
//! on it.
//!
//! Nothing is stored of that. Every start tells it again of the tables that have been copied before, which changes nothing
//! where it was told already, and makes up for a crash in between.

use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::failure::FAILED_RETRY;
use crate::snapshot::Copied;
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_worker_core::bus::Bus;
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::record::{Body, Offset, Record};
use tokio::sync::watch;

/// Whose rows are copied to the others on the first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    Member(DatabaseName),
    /// Every member's, to all others.
    Merge,
    /// The members are taken to be equal.
    None,
}

impl Seed {
    pub fn is_of(&self, member: &DatabaseName) -> bool {
        match self {
            Seed::Member(name) => name == member,
            Seed::Merge => true,
            Seed::None => false,
        }
    }
}

pub struct Seeding {
    pub pipeline: PipelineName,
    pub members: Vec<DatabaseName>,
    /// The configuration is on the log: a table is none of the pipeline's before.
    pub begun: watch::Receiver<bool>,
    pub copied: watch::Sender<Copied>,
    /// Told of the tables of which the log has been told.
    pub seeded: watch::Sender<BTreeSet<TableName>>,
    pub bus: Arc<dyn Bus>,
}

impl Seeding {
    pub async fn run(mut self) {
        let mut copied = self.copied.subscribe();
        if self.begun.wait_for(|begun| *begun).await.is_err() {
            return;
        }
        loop {
            let complete = self.complete(&copied.borrow_and_update());
            for table in complete {
                self.tell(table).await;
            }
            // It does not end before this does.
            if copied.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tables of which all members' rows are there, and of which the log was not told.
    fn complete(&self, copied: &Copied) -> Vec<TableName> {
        let tables: BTreeSet<&TableName> = copied.iter().map(|(table, _)| table).collect();
        let all = |table: &TableName| self.members.iter().all(|name| copied.contains(&(table.clone(), name.clone())));
        let seeded = self.seeded.borrow();
        tables.into_iter().filter(|table| all(table) && !seeded.contains(*table)).cloned().collect()
    }

    async fn tell(&self, table: TableName) {
        loop {
            match self.publish(&table).await {
                Ok(offset) => {
                    tracing::info!(pipeline = %self.pipeline, %table, offset = offset.0, "the rows of all members are on the log");
                    self.seeded.send_if_modified(|seeded| seeded.insert(table));
                    return;
                }
                Err(error) => {
                    tracing::warn!(pipeline = %self.pipeline, %table, %error, again_in = ?FAILED_RETRY, "the log can't be told that a table's rows are there");
                    tokio::time::sleep(FAILED_RETRY).await;
                }
            }
        }
    }

    async fn publish(&self, table: &TableName) -> Result<Offset> {
        let record = Record::of_nobody(now_micros(), Body::Seeded(table.clone()));
        self.bus.publish(PARTITION, vec![record]).await?.await
    }
}
