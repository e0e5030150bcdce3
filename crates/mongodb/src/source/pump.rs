//! Reads the cursor and hands out batches, ahead of the engine by a few of them. The server makes the next answer while
//! the last one is decoded.

use crate::client::Client;
use crate::codec::Rows;
use crate::error::Error;
use crate::source::assembly::Assembly;
use crate::source::echo::Ours;
use crate::source::event::{self, Parts, Tables};
use crate::source::fragments::Fragments;
use crate::source::token;
use crate::source::{AWAIT, Images, NO_IMAGE, before, lost, tell_of_images, watch};
use bson::RawDocument;
use futures::StreamExt;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use std::time::Duration;
use sync_worker_core::document::Document;
use sync_worker_core::source::SourceBatch;
use sync_worker_core::value::Damaged;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

/// How much longer than it was asked to a server may hold back an answer before it is asked whether it is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it may say so. A scan of hours of other databases' changes takes its time.
const LOOKS: u32 = 60;

/// Answers that wait to be decoded, each of 16 MB at most.
const REPLIES: usize = 1;

type Reply = mongodb::error::Result<RawBatch>;

pub struct Pump {
    client: Client,
    tables: Tables,
    /// The pipeline is two-way.
    ours: Option<Ours>,
    images: Images,
    replies: Receiver<Reply>,
    /// What reads the cursor; it ends with the pump.
    reading: JoinSet<()>,
    assembly: Assembly,
    fragments: Fragments,
    rows: Rows,
    batches: Sender<Result<SourceBatch, Error>>,
}

/// Nobody wants more.
struct Stopped;

fn read(mut cursor: RawBatchCursor, reading: &mut JoinSet<()>) -> Receiver<Reply> {
    let (sender, replies) = mpsc::channel(REPLIES);
    reading.spawn(async move {
        while let Some(reply) = cursor.next().await {
            if sender.send(reply).await.is_err() {
                return;
            }
        }
    });
    replies
}

impl Pump {
    pub fn new(
        client: Client,
        tables: Tables,
        ours: Option<Ours>,
        images: Images,
        cursor: RawBatchCursor,
        assembly: Assembly,
        batches: Sender<Result<SourceBatch, Error>>,
    ) -> Self {
        let (fragments, rows) = (Fragments::default(), Rows::default());
        let mut reading = JoinSet::new();
        let replies = read(cursor, &mut reading);
        Self { client, tables, ours, images, replies, reading, assembly, fragments, rows, batches }
    }

    /// Runs until an error, which is the last thing that it hands on, or until nobody wants more.
    ///
    /// On a thread of its own: among the runtime's tasks whoever takes the batches would run on the thread that makes them,
    /// and only once it rests.
    pub fn start(self) {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let unwanted = self.batches.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = unwanted.closed() => {}
                    () = self.run() => {}
                }
            });
        });
    }

    async fn run(mut self) {
        loop {
            let step = self.step().await;
            match step {
                Ok(Ok(())) => {}
                Ok(Err(Stopped)) => return,
                Err(error) => {
                    // Whoever would have read it is gone otherwise.
                    self.batches.send(Err(error)).await.unwrap_or_default();
                    return;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Result<(), Stopped>, Error> {
        let doing = "the change stream";
        let reply = match self.reply().await? {
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                let error = Error::driver(doing, &error);
                return match error.code() {
                    Some(NO_IMAGE) if self.images == Images::Required => self.without_images().await.map(Ok),
                    _ => Err(lost(error)),
                };
            }
            None => return Err(Error::Protocol("the stream has ended")),
        };
        self.take(&reply).await
    }

    /// The next answer of the cursor. A server that is silent is asked over another connection.
    async fn reply(&mut self) -> Result<Option<Reply>, Error> {
        let limit = AWAIT + PATIENCE;
        for _ in 0..LOOKS {
            match tokio::time::timeout(limit, self.replies.recv()).await {
                Ok(reply) => return Ok(reply),
                Err(_) => self.client.now().await?,
            };
        }
        Err(Error::Silent { doing: "the change stream", seconds: u64::from(LOOKS) * limit.as_secs() })
    }

    /// Updates from before the images, or older than they are kept, are taken as what changed.
    async fn without_images(&mut self) -> Result<(), Error> {
        let names: Vec<&str> = self.tables.keys().map(String::as_str).collect();
        tell_of_images(&self.client, &names);
        self.images = Images::Available;
        let start = self.assembly.newest();
        let cursor = watch(&self.client, &names, &start, self.images, before(&self.tables, self.images)).await?;
        self.replies = read(cursor, &mut self.reading);
        Ok(())
    }

    async fn take(&mut self, reply: &RawBatch) -> Result<Result<(), Stopped>, Error> {
        let cursor = reply.as_raw_document().get_document("cursor").map_err(|_| Error::Protocol("no cursor"))?;
        let events = reply.doc_slices().map_err(|_| Error::Protocol("an answer without its batch"))?;
        let mut idle = true;
        for event in events.into_iter() {
            idle = false;
            let Ok(bson::RawBsonRef::Document(event)) = event else {
                return Err(Damaged("an event that is no document").into());
            };
            self.event(event)?;
            if self.assembly.is_full() {
                let batch = self.assembly.part();
                if self.batches.send(Ok(batch)).await.is_err() {
                    return Ok(Err(Stopped));
                }
            }
        }
        if !self.fragments.is_open() {
            let token = cursor.get_document("postBatchResumeToken");
            let token = token.map_err(|_| Error::Protocol("an answer without its token"))?;
            // Shards send at their own pace: with them only a later time tells that a transaction is complete.
            self.assembly.token(token::place(token)?, token.as_bytes(), idle && !self.client.sharded);
        }
        let Some(batch) = self.assembly.whole() else { return Ok(Ok(())) };
        Ok(self.batches.send(Ok(batch)).await.map_err(|_| Stopped))
    }

    fn event(&mut self, event: &RawDocument) -> Result<(), Error> {
        let event = Document::new(event.as_bytes())?;
        let parts = Parts::of(event)?;
        let Some(split) = parts.split else { return self.whole(parts) };
        match self.fragments.take(event, split)? {
            Some(joined) => self.whole(Parts::of(Document::new(&joined)?)?),
            None => Ok(()),
        }
    }

    fn whole(&mut self, event: Parts<'_>) -> Result<(), Error> {
        let token = event.token.ok_or(Damaged("an event without its token"))?;
        let decoded = event::decode(event, &self.tables, self.ours.as_ref(), &mut self.rows)?;
        self.assembly.take(decoded, token.as_bytes());
        Ok(())
    }
}
