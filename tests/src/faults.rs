//! Faults that MongoDB servers have at random moments.

use crate::database::Database;
use crate::kind::Kind;
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    CommitReplyLost,
    ConnectionCut,
    PrimarySteppedDown,
    WriteConflict,
    TransactionTooOld,
}

impl Fault {
    const ALL: [Fault; 5] = [
        Fault::CommitReplyLost,
        Fault::ConnectionCut,
        Fault::PrimarySteppedDown,
        Fault::WriteConflict,
        Fault::TransactionTooOld,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Fault::CommitReplyLost => "commit reply lost",
            Fault::ConnectionCut => "connection cut",
            Fault::PrimarySteppedDown => "primary stepped down",
            Fault::WriteConflict => "write conflict",
            Fault::TransactionTooOld => "transaction too old",
        }
    }

    /// The command that makes a server have it, once. It strikes whoever comes first: source, sink or load.
    fn command(self, is_stand_in: bool) -> Document {
        let fail = |data: Document| doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
        let (commit, transient) = ("commitTransaction", "TransientTransactionError");
        match self {
            Fault::CommitReplyLost if is_stand_in => {
                fail(doc! { "failCommands": [commit], "closeConnection": true, "afterExecution": true })
            }
            // The nearest that a real server has: it commits, and says that it does not know for how long.
            Fault::CommitReplyLost => {
                let unknown = doc! { "code": 91, "errmsg": "Replication is being shut down" };
                fail(doc! { "failCommands": [commit], "writeConcernError": unknown })
            }
            Fault::ConnectionCut => {
                let commands = ["getMore", "aggregate", "find", "update", "bulkWrite", commit];
                fail(doc! { "failCommands": commands.to_vec(), "closeConnection": true })
            }
            Fault::PrimarySteppedDown => doc! { "replSetStepDown": 1, "force": true },
            Fault::WriteConflict => {
                fail(doc! { "failCommands": ["update", "bulkWrite"], "errorCode": 112, "errorLabels": [transient] })
            }
            Fault::TransactionTooOld => {
                fail(doc! { "failCommands": ["bulkWrite", commit], "errorCode": 251, "errorLabels": [transient] })
            }
        }
    }
}

/// How often each fault was set.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Fault, u32>);

impl Tally {
    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total() {
            0 => return f.write_str("no faults"),
            total => write!(f, "{total} faults")?,
        }
        for (at, (fault, times)) in self.0.iter().enumerate() {
            write!(f, "{} {} {times}", if at == 0 { ":" } else { "," }, fault.as_str())?;
        }
        Ok(())
    }
}

/// Of the MongoDB servers among some databases' that take fail points; elsewhere nothing happens.
pub struct Faults {
    servers: Vec<mongodb::Database>,
    random: StdRng,
    is_stand_in: bool,
    tally: Tally,
}

impl Faults {
    pub async fn at(databases: [&Database; 2], seed: u64) -> anyhow::Result<Self> {
        let (mut servers, mut addresses) = (Vec::new(), Vec::new());
        for database in databases.into_iter().filter(|database| database.kind == Kind::Mongodb) {
            if addresses.contains(&database.address()) {
                continue;
            }
            addresses.push(database.address());
            let admin = database.documents().await?.client().database("admin");
            // A server has them only where it was told so at its start.
            if admin.run_command(off()).await.is_ok() {
                servers.push(admin);
            }
        }
        let is_stand_in = std::env::var("SYNC_WORKER_TEST_MONGODB_IS").is_ok_and(|what| what == "stand-in");
        // Another sequence than that of the moments, which stay what they are with and without faults.
        let random = StdRng::seed_from_u64(seed ^ 0x6661_756c_7473);
        Ok(Self { servers, random, is_stand_in, tally: Tally::default() })
    }

    /// Lets some time pass; at a random moment in it each server gets a random fault.
    pub async fn during(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        if !self.servers.is_empty() {
            // The moments are random ones, not waits for something.
            tokio::time::sleep(self.random.random_range(Duration::ZERO..=time)).await;
        }
        for server in &self.servers {
            let fault = Fault::ALL[self.random.random_range(0..Fault::ALL.len())];
            server.run_command(fault.command(self.is_stand_in)).await?;
            *self.tally.0.entry(fault).or_default() += 1;
        }
        tokio::time::sleep_until(end).await;
        Ok(())
    }

    /// Nothing fails any more.
    pub async fn end(self) -> anyhow::Result<Tally> {
        for server in &self.servers {
            server.run_command(off()).await?;
        }
        Ok(self.tally)
    }
}

fn off() -> Document {
    doc! { "configureFailPoint": "failCommand", "mode": "off" }
}
