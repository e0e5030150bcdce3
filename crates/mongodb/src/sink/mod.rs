//! Writing to MongoDB: a batch in one transaction, marker first, then its writes in as few commands as the server takes.
//!
//! An error in a transaction ends it. A batch that is refused is therefore tried again without the write at fault, row by
//! row in source order, until all that is left goes through; only what was at fault is parked (`attempt`). A batch of a
//! two-way pipeline looks at its documents before it writes any (`guard`).

mod attempt;
mod failure;
mod guard;
mod marker;
mod operation;
mod target;

use crate::client::{Client, first_of, within};
use crate::error::{Error, is_unknown_commit};
use crate::index;
use crate::own;
use async_trait::async_trait;
use attempt::{Attempt, Ended, Known, With, is_guarded};
use bson::rawdoc;
use guard::Look;
use marker::{Bookkeeping, Keys};
use mongodb::ClientSession;
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use sync_worker_core::change::Op;
use sync_worker_core::database::{Scope, TableAt};
use sync_worker_core::error::Result as CoreResult;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Progress, Sink, WriteBatch};
use sync_worker_core::types::Engine;
use target::Target;

/// How often a batch is tried when other clients' writes come in between.
const ATTEMPTS: u32 = 8;

/// How often a commit is asked for when no answer says what became of it.
const COMMITS: u32 = 5;

const PAUSE: Duration = Duration::from_millis(20);

pub struct MongodbSink {
    client: Client,
    bookkeeping: Bookkeeping,
    tables: HashMap<TableName, TableAt>,
    two_way: bool,
    targets: HashMap<SchemaId, Target>,
    looks: HashMap<SchemaId, Look>,
    /// The indexes of keys that are fields.
    keys: Vec<String>,
    /// By which columns of its source a document is found, one-way; the next transaction writes down what has changed of it.
    found_by: Keys,
    found_anew: bool,
    /// The schemas whose keys have been compared with those.
    compared: HashSet<SchemaId>,
    /// Of all transactions of this sink; the marker names it, so that the next holder can end what this one leaves.
    session: Option<ClientSession>,
}

impl MongodbSink {
    pub fn new(client: Client, name: &DatabaseName, scope: &Scope) -> Self {
        let tables = scope.tables.iter().map(|at| (at.table.clone(), at.clone())).collect();
        Self {
            client,
            bookkeeping: Bookkeeping::new(scope, name),
            tables,
            two_way: scope.two_way,
            targets: HashMap::new(),
            looks: HashMap::new(),
            keys: Vec::new(),
            found_by: Keys::new(),
            found_anew: false,
            compared: HashSet::new(),
            session: None,
        }
    }

    async fn prepare(&mut self, batch: &WriteBatch) -> Result<(), Error> {
        let guarded = is_guarded(batch);
        let mut emptied: Vec<&TableName> = Vec::new();
        let mut last = None;
        for write in &batch.writes {
            let schema = &write.change.schema;
            let is_truncate = write.change.op == Op::Truncate;
            // Changes come in runs of one table.
            if !is_truncate && last == Some(schema.id) {
                continue;
            }
            last = (!is_truncate).then_some(schema.id);
            if is_truncate {
                emptied.push(&schema.table);
            } else if !self.two_way && self.compared.insert(schema.id) && schema.engine != Engine::Mongodb {
                self.keeps_its_key(schema, emptied.contains(&&schema.table)).await?;
            }
            if self.targets.contains_key(&schema.id) && (!guarded || self.looks.contains_key(&schema.id)) {
                continue;
            }
            let at = self.tables.get(&schema.table);
            let at = at.ok_or_else(|| Error::Fatal(format!("table {} is not in the pipeline", schema.table)))?;
            self.targets.insert(schema.id, Target::new(at, schema)?);
            if guarded {
                self.looks.insert(schema.id, Look::new(at, schema)?);
            }
        }
        Ok(())
    }

    /// A table with another key than the collection's documents were written by would leave those where they are and write over
    /// others'. An empty collection takes any, one that this batch has `emptied` too.
    async fn keeps_its_key(&mut self, schema: &Schema, emptied: bool) -> Result<(), Error> {
        let key: Vec<String> = schema.key.iter().map(|&at| schema.columns[at].name.clone()).collect();
        let known = self.found_by.get(&schema.table);
        if known == Some(&key) {
            return Ok(());
        }
        if let (Some(known), Some(at)) = (known, self.tables.get(&schema.table))
            && !emptied
            && !self.is_empty(&at.name).await?
        {
            return Err(Error::Fatal(format!(
                "the documents of collection {} are found by the key ({}) of table {}, which has the key ({}) now; empty the collection, \
                 and run `sync-worker verify --repair` once the applier goes on",
                at.name,
                known.join(", "),
                schema.table,
                key.join(", ")
            )));
        }
        self.found_by.insert(schema.table.clone(), key);
        self.found_anew = true;
        Ok(())
    }

    async fn is_empty(&self, collection: &str) -> Result<bool, Error> {
        let find = rawdoc! { "find": collection, "projection": { "_id": 1 }, "limit": 1, "singleBatch": true };
        Ok(first_of(&self.client.run("a look at a collection", find).await?).is_none())
    }

    async fn write(
        &self,
        session: &mut ClientSession,
        batch: &WriteBatch,
        parking: &dyn Parking,
    ) -> CoreResult<Applied> {
        let (mut known, mut tries) = (Known::default(), 1);
        let MongodbSink { client, bookkeeping, targets, keys, looks, found_by, found_anew, .. } = self;
        let found_by = found_anew.then_some(found_by);
        let with = With { client, bookkeeping, targets, keys, looks, found_by };
        loop {
            begin(session).await?;
            let error = match Attempt::new(with, batch, &known).run(session, parking).await {
                Ok(Ended::Written(applied)) => match commit(session).await {
                    Ok(()) => return Ok(applied),
                    Err(error) => error,
                },
                Ok(Ended::Refused(more)) => {
                    abort(session).await;
                    known.learn(more, attempt::is_guarded(batch));
                    continue;
                }
                Ok(Ended::RefusedWhole) => {
                    abort(session).await;
                    known.learn_whole();
                    continue;
                }
                Ok(Ended::Overtaken) => {
                    abort(session).await;
                    known.learn_overtaken();
                    continue;
                }
                Ok(Ended::NotDurable(error)) => {
                    abort(session).await;
                    return Err(error);
                }
                Err(error) => {
                    abort(session).await;
                    error
                }
            };
            if !error.repeats() || tries >= ATTEMPTS {
                return Err(error.into());
            }
            tokio::time::sleep(PAUSE * tries).await;
            tries += 1;
        }
    }
}

async fn begin(session: &mut ClientSession) -> Result<(), Error> {
    let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let start = session.start_transaction().read_concern(ReadConcern::snapshot()).write_concern(concern);
    within("the begin of a transaction", start.into_future()).await
}

/// A commit whose answer does not come may have happened; asked for again, it happens once.
async fn commit(session: &mut ClientSession) -> Result<(), Error> {
    let doing = "a commit";
    for _ in 0..COMMITS {
        let answer = tokio::time::timeout(Duration::from_secs(10), session.commit_transaction().into_future()).await;
        match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if !is_unknown_commit(&error) => return Err(Error::driver(doing, &error)),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let lost = Error::Lost { doing, problem: "no answer says what became of it".to_owned(), transient: false };
    Err(Error::CommitUnknown(Box::new(lost)))
}

/// An open transaction holds its documents until it is ended, or until the server's patience ends.
async fn abort(session: &mut ClientSession) {
    let ended = tokio::time::timeout(Duration::from_secs(5), session.abort_transaction().into_future()).await;
    // The server ends it by itself then.
    drop(ended);
}

#[async_trait]
impl Sink for MongodbSink {
    async fn take_over(&mut self, log: &str) -> CoreResult<Progress> {
        self.keys = index::needed(&self.client, self.tables.values()).await?;
        own::create(&self.client, self.two_way).await?;
        let started = self.client.driver.start_session();
        let session = within("the start of a session", started.into_future()).await?;
        let (progress, found_by) = self.bookkeeping.take_over(&self.client, log, session.id()).await?;
        self.found_by = found_by;
        self.session = Some(session);
        Ok(progress)
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> CoreResult<Applied> {
        self.prepare(batch).await?;
        let mut session = self.session.take().ok_or(Error::Protocol("a write before the target was taken over"))?;
        let outcome = self.write(&mut session, batch, parking).await;
        self.session = Some(session);
        self.found_anew &= outcome.is_err();
        outcome
    }
}
