//! The change stream of a database, resumed by its tokens.
//!
//! ```text
//! cursor -> pump -> fragments -> event -> assembly -> SourceBatch
//! ```
//!
//! One stream for all collections of a pipeline: two of them would not tell which of two writes came first. Nothing is
//! resumed here: an error ends the stream, and the engine opens it again after the last checkpoint.

mod assembly;
mod echo;
mod event;
mod fragments;
mod keyed;
mod pump;
mod token;

use crate::catalog;
use crate::client::{Client, same_epoch, within};
use crate::clock;
use crate::codec;
use crate::ddl;
use crate::error::Error;
use crate::index;
use crate::key::DocumentKey;
use crate::own::{self, PARKED, PROGRESS};
use assembly::Assembly;
use async_trait::async_trait;
use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocumentBuf, Timestamp, rawdoc};
use echo::Ours;
use event::{Collection, Tables};
use mongodb::raw_batch_cursor::RawBatchCursor;
use pump::Pump;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync_worker_core::database::{Scope, TableAt};
use sync_worker_core::error::Result;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::source::{Source, SourceBatch};
use token::Start;
use tokio::sync::mpsc::{self, Receiver};

/// How long the server holds back an answer when it has nothing to say. An idle stream moves its position that often, and
/// a transaction that nothing follows is known to be complete after it.
const AWAIT: Duration = Duration::from_millis(250);

/// "Change stream was configured to require a post-image": the update was made before there were any, or it is too old.
const NO_IMAGE: i32 = 47;

/// What the server sends of documents beside what changed in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Images {
    /// With an update the document after it, where there is one.
    Available,
    /// With an update the document after it, or the stream ends.
    Required,
    /// Two-way: with each change the documents before and after it, where they are. One that lacks them is told by the name
    /// of its collection, and another pipeline's marker may lack them.
    Both,
}

/// Of a two-way member: the events of one of our transactions would come from several shards, the marker's at any place.
pub const SHARDED: &str = "a sharded cluster can't be a member of a two-way pipeline";
pub const SHARDED_CURE: &str = "use a replica set, or make the pipeline one-way";

/// Batches between the pump and the engine.
const BATCHES: usize = 2;

/// Up to which time a pipeline's source has returned everything: a reader looks at that time, or at a later one.
#[derive(Default)]
pub struct Returned(Mutex<Option<Timestamp>>);

impl Returned {
    pub fn time(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, position: Position) {
        let Position::Mongodb(p) = position else { return };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Timestamp { time: p.seconds, increment: p.increment });
    }

    fn saw(&self, batch: &SourceBatch) {
        // A part of a transaction counts for the whole of it: a read sees all or nothing.
        self.store(batch.parts.last().map_or(batch.reached, |part| part.first.max(batch.reached)));
    }
}

pub struct MongodbSource {
    batches: Receiver<std::result::Result<SourceBatch, Error>>,
    returned: Arc<Returned>,
}

#[async_trait]
impl Source for MongodbSource {
    async fn next(&mut self) -> Result<SourceBatch> {
        match self.batches.recv().await {
            Some(Ok(batch)) => {
                self.returned.saw(&batch);
                Ok(batch)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(Error::Protocol("the stream has ended").into()),
        }
    }

    /// A server keeps its oplog by its own rules: there is nothing to tell it.
    async fn confirm(&mut self, _checkpoint: &Checkpoint) -> Result<()> {
        Ok(())
    }
}

/// Opens the stream after the checkpoint or from now on. Returns where it starts.
pub async fn open(
    client: Client,
    name: &DatabaseName,
    scope: &Scope,
    from: Option<&Checkpoint>,
    returned: Arc<Returned>,
) -> std::result::Result<(MongodbSource, Checkpoint), Error> {
    let table = |at: &TableAt| {
        let key = DocumentKey::new(&at.document);
        (at.name.clone(), Collection { schema: catalog::schema(&at.table, &key), key })
    };
    let tables: Tables = scope.tables.iter().map(table).collect();
    let mut names: Vec<&str> = tables.keys().map(String::as_str).collect();
    if scope.two_way {
        two_way(&client, &names).await?;
    }
    index::needed(&client, &scope.tables).await?;
    let epoch = client.epoch(&names).await?;
    let (checkpoint, start) = match from {
        Some(checkpoint) => {
            // invariant 8
            if !same_epoch(&checkpoint.epoch, &epoch) {
                return Err(Error::Gap(format!(
                    "the stored position belongs to {}, but this is {epoch}; point the url at the old replica set and database, or remove the pipeline's state and take a new snapshot",
                    checkpoint.epoch
                )));
            }
            let start = Start::parse(&checkpoint.resume)
                .filter(|_| matches!(checkpoint.position, Position::Mongodb(_)))
                .ok_or_else(|| unreadable(checkpoint))?;
            (checkpoint.clone(), start)
        }
        None => {
            let now = client.now().await?;
            let start = Start::At(clock::after(now));
            (Checkpoint { epoch, position: clock::end(now), resume: start.to_text() }, start)
        }
    };
    let found = catalog::collections(&client, &names).await?;
    lack_images(
        found.iter().filter(|one| tables.get(&one.name).is_some_and(|table| !table.key.is_id())),
        keyed::NEEDS,
    )?;
    let images = match found.len() == names.len() && found.iter().all(|collection| collection.images) {
        _ if scope.two_way => Images::Both,
        true => Images::Required,
        false => Images::Available,
    };
    if scope.two_way {
        names.extend([PROGRESS, PARKED]);
    }
    let before = before(&tables, images);
    let (cursor, images) = match watch(&client, &names, &start, images, before).await {
        // From before there were any, or from longer ago than they are kept.
        Err(error) if images == Images::Required && error.code() == Some(NO_IMAGE) => {
            tell_of_images(&client, &names);
            (watch(&client, &names, &start, Images::Available, before).await?, Images::Available)
        }
        opened => (opened?, images),
    };
    returned.store(checkpoint.position);
    let assembly = Assembly::new(checkpoint.epoch.clone(), checkpoint.position, start);
    let (sender, batches) = mpsc::channel(BATCHES);
    let ours = scope.two_way.then(|| Ours::new(scope, name));
    Pump::new(client, tables, ours, images, cursor, assembly, sender).start();
    Ok((MongodbSource { batches, returned }, checkpoint))
}

/// What a stream of a two-way pipeline rests on.
async fn two_way(client: &Client, names: &[&str]) -> std::result::Result<(), Error> {
    if client.sharded {
        return Err(Error::Fatal(format!("{SHARDED}; {SHARDED_CURE}")));
    }
    lack_images(&catalog::collections(client, names).await?, event::TWO_WAY)?;
    own::create(client, true).await
}

/// Refuses collections whose changes come without the documents before and after them.
fn lack_images<'a>(
    collections: impl IntoIterator<Item = &'a catalog::Collection>,
    needed_by: &str,
) -> std::result::Result<(), Error> {
    let lacking = collections.into_iter().filter(|one| !one.images).map(|one| ddl::post_images(&one.name));
    let lacking: Vec<String> = lacking.collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(Error::Fatal(format!(
            "{needed_by} needs the documents before and after each change; run: {}",
            lacking.join(" ")
        ))),
    }
}

/// Whether documents before their changes are wanted.
fn before(tables: &Tables, images: Images) -> bool {
    images == Images::Both || tables.values().any(|table| !table.key.is_id())
}

fn unreadable(checkpoint: &Checkpoint) -> Error {
    Error::Gap(format!(
        "the stored position {} is not one of MongoDB; remove the pipeline's state and take a new snapshot",
        checkpoint.position
    ))
}

/// The server's cursor.
async fn watch(
    client: &Client,
    names: &[&str],
    start: &Start,
    images: Images,
    before: bool,
) -> std::result::Result<RawBatchCursor, Error> {
    let mut stage = rawdoc! {
        "fullDocument": if images == Images::Required { "required" } else { "whenAvailable" },
        "fullDocumentBeforeChange": if before { "whenAvailable" } else { "off" },
        "showExpandedEvents": true,
    };
    match start {
        Start::At(time) => stage.append(cstr!("startAtOperationTime"), *time),
        // Goes on after an invalidate, too, where `resumeAfter` does not.
        Start::After(token) => stage.append(cstr!("startAfter"), codec::raw(token.clone())?),
    }
    let list = |names: &[&str]| -> RawArrayBuf { names.iter().copied().collect() };
    let mut wanted = RawArrayBuf::new();
    wanted.push(rawdoc! { "ns.coll": { "$in": list(names) } });
    wanted.push(rawdoc! { "to.coll": { "$in": list(names) } });
    wanted.push(rawdoc! { "operationType": { "$in": list(&["dropDatabase", "invalidate"]) } });
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$changeStream": stage });
    pipeline.push(rawdoc! { "$match": { "$or": wanted } });
    pipeline.push(rawdoc! { "$changeStreamSplitLargeEvent": {} });
    let command: RawDocumentBuf = rawdoc! {
        "aggregate": 1,
        "pipeline": pipeline,
        // The first answer comes at once; else it would wait until the server has scanned its oplog for something to send.
        "cursor": { "batchSize": 0 },
        "readConcern": { "level": "majority" },
    };
    let doing = "opening the change stream";
    let opened = within(doing, client.database.run_raw_cursor_command(command).max_time(AWAIT).batch()).await;
    opened.map_err(lost)
}

/// Updates without images are taken as what changed.
fn tell_of_images(client: &Client, names: &[&str]) {
    let statements: Vec<String> = names.iter().map(|name| ddl::post_images(name)).collect();
    tracing::warn!(
        database = %client.name,
        "an update comes without the document after it; it is taken as what changed, which a relational target may refuse; post-images are on by: {}",
        statements.join(" ")
    );
}

/// A history that is gone is a GAP with a cure (invariant 8).
fn lost(error: Error) -> Error {
    match error.code() {
        Some(286) => Error::Gap(
            "the source's oplog no longer reaches back to the stored position; give it more room (replSetResizeOplog), then remove the pipeline's state and take a new snapshot"
                .to_owned(),
        ),
        Some(260 | 280) => Error::Gap(
            "the source does not know the stored position: its oplog is another one; remove the pipeline's state and take a new snapshot"
                .to_owned(),
        ),
        _ => error,
    }
}
