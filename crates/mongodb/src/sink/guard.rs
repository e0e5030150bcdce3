//! The guard of two-way pipelines: a version is written only over a document that it may be written over.
//!
//! ```text
//! marker -> the batch's documents by key -> judge -> inserts, updates, deletes -> parked rows -> commit
//! ```
//!
//! The documents are read in the snapshot of the transaction that writes them: one that an application writes after it
//! makes the server refuse ours, and the whole attempt is made again. Of each key only the newest version comes: where a
//! unique value has gone from one row to another and back, no order of updates makes one set of documents of the other. So
//! once a unique value has been refused, all old documents go first, and come anew as the versions make them. Only the columns'
//! fields are written; those that the table has no column for stay.

use crate::catalog;
use crate::client::{Client, within};
use crate::codec::{self, Rows};
use crate::error::Error;
use crate::key::DocumentKey;
use crate::sink::attempt::{Attempt, Stop};
use crate::sink::operation::{self, Do};
use crate::sink::target::{Content, over, update, without_id};
use bson::{RawBsonRef, RawDocumentBuf, rawdoc};
use futures::StreamExt;
use mongodb::ClientSession;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::database::TableAt;
use sync_worker_core::document::Document;
use sync_worker_core::document::mapping::OtherFields;
use sync_worker_core::document::projection::Projection;
use sync_worker_core::document::write::Writer;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{DIFFERS_STILL, Image, Seen, Verdict, judge, keep_some};
use sync_worker_core::logical::{Normalizer, Unfit};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Refused, Write, WriteBatch};
use sync_worker_core::types::Engine;
use sync_worker_core::value::Damaged;

/// How often a batch is made again for documents that came up right after they were looked for.
pub const REPEATS: u32 = 5;

/// Keys of one command, and about how long it may get.
const KEYS: usize = 1000;
const BYTES: usize = 1 << 20;

/// Bytes of documents that are kept to come anew; beyond that they change in their place.
const WHOLE: usize = 64 << 20;

/// Documents of one answer, as far as they fit into it.
const BATCH: i32 = 10_000;

/// How the documents of a collection are looked for, and compared.
pub struct Look {
    collection: String,
    key: DocumentKey,
    /// The collection's own columns.
    own: Arc<Schema>,
    logical: Arc<Schema>,
    rows: Normalizer,
    /// Between documents and a table; None among collections.
    projection: Option<Projection>,
    /// Fields without a column stay.
    keeps_others: bool,
}

impl Look {
    pub fn new(at: &TableAt, logical: &Arc<Schema>) -> Result<Self, Error> {
        let rows = Normalizer::of_documents(logical.clone(), at.document.clone()).map_err(|(column, refusal)| {
            Error::Fatal(format!("table {} column {column} has no logical form: {refusal}", at.name))
        })?;
        let documents = logical.engine == Engine::Mongodb;
        let key = DocumentKey::new(&at.document);
        Ok(Self {
            collection: at.name.clone(),
            own: catalog::schema(&logical.table, &key),
            key,
            logical: logical.clone(),
            rows,
            projection: (!documents).then(|| Projection::new(logical, at.document.clone())),
            keeps_others: !documents && at.document.other_fields == OtherFields::Ignore,
        })
    }

    /// The keys that a document of this row may have; none where no document can have such a key.
    fn ids(&self, key: &Key) -> Result<Vec<Key>, Error> {
        let Some(projection) = &self.projection else { return Ok(vec![key.clone()]) };
        Ok(projection.ids_of_columns(key, &self.logical)?.unwrap_or_default())
    }
}

/// What stands under the key of a write.
#[derive(Clone)]
pub enum Found {
    Nothing,
    Document {
        /// In the collection's own form.
        key: Key,
        /// By its `_id`, whatever its key is.
        filter: RawDocumentBuf,
        image: Image,
        /// As all members see it; None where it has no such form.
        row: Option<Row>,
        /// As it stands, where that is asked for.
        whole: Option<RawDocumentBuf>,
    },
    /// Several documents that become the same row: none of them can be written over.
    Several(Image),
}

impl Found {
    fn image(&self) -> Image {
        match self {
            Found::Nothing => Image::Absent,
            Found::Document { image, .. } | Found::Several(image) => *image,
        }
    }

    fn seen(&self) -> Seen {
        let row = match self {
            Found::Document { row, .. } => row.clone(),
            Found::Nothing | Found::Several(_) => None,
        };
        Seen { image: self.image(), row }
    }
}

/// An image that no row has.
fn of_both(one: Image, other: Image) -> Image {
    let mut both = [one.to_bytes(), other.to_bytes()];
    both.sort_unstable();
    Image::of(Some(&Row::from_bytes(both.concat().into())))
}

/// Reused from document to document.
#[derive(Default)]
struct Decoder {
    rows: Rows,
    builder: RowBuilder,
    scratch: String,
}

impl Decoder {
    fn found(&mut self, look: &Look, document: Document<'_>) -> Result<Found, Error> {
        let own = self.rows.whole(&look.key, document)?;
        let key = look.own.key_of(&own)?;
        let id = document.get("_id")?.ok_or(Damaged("a document without an _id"))?;
        let mut filter = Writer::default();
        filter.put(id.kind, id.name, id.bytes)?;
        let filter = codec::raw(filter.finish()?)?;
        let row = match look.rows.row(&own, &mut self.builder, &mut self.scratch) {
            Ok(row) => Some(row),
            Err(Unfit::Refused(..)) => None,
            Err(Unfit::Damaged(damaged)) => return Err(damaged.into()),
        };
        // A row that no version can be is an image of its own.
        Ok(Found::Document { key, filter, image: Image::of(Some(row.as_ref().unwrap_or(&own))), row, whole: None })
    }
}

/// Reads the documents of the batch and returns what each write finds. `whole`: documents that keep other fields with those.
pub async fn look(
    client: &Client,
    session: &mut ClientSession,
    looks: &HashMap<SchemaId, Look>,
    batch: &WriteBatch,
    whole: bool,
) -> Result<Vec<Found>, Error> {
    let mut found = vec![Found::Nothing; batch.writes.len()];
    let mut tables: Vec<(SchemaId, Vec<usize>)> = Vec::new();
    for (place, write) in batch.writes.iter().enumerate() {
        let id = write.change.schema.id;
        match tables.iter_mut().find(|(known, _)| *known == id) {
            Some((_, writes)) => writes.push(place),
            None => tables.push((id, vec![place])),
        }
    }
    let mut decoder = Decoder::default();
    let mut room = if whole { WHOLE } else { 0 };
    for (id, writes) in tables {
        let look = looks.get(&id).ok_or(Damaged("a table was not looked at"))?;
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(writes.len());
        let (mut keys, mut bytes) = (Vec::new(), 0);
        for (nth, &place) in writes.iter().enumerate() {
            let key = batch.writes[place].change.key()?.ok_or(Damaged("a guarded write without a key"))?;
            for key in look.ids(&key)? {
                bytes += key.as_bytes().len();
                keys.push(key.clone());
                places.insert(key, place);
            }
            let last = nth + 1 == writes.len();
            if keys.is_empty() || !last && keys.len() < KEYS && bytes < BYTES {
                continue;
            }
            let find = rawdoc! {
                "find": look.collection.as_str(),
                "filter": look.key.any_of(&keys)?,
                "batchSize": BATCH,
            };
            keys.clear();
            bytes = 0;
            read(client, session, find, |document| {
                let mut one = decoder.found(look, document)?;
                let Found::Document { key, image, whole: kept, .. } = &mut one else { return Ok(()) };
                if look.keeps_others && document.as_bytes().len() <= room {
                    room -= document.as_bytes().len();
                    *kept = Some(codec::raw(document.as_bytes().to_vec())?);
                }
                let Some(&place) = places.get(key) else { return Ok(()) };
                found[place] = match &found[place] {
                    Found::Nothing => one,
                    other => Found::Several(of_both(other.image(), *image)),
                };
                Ok(())
            })
            .await?;
        }
    }
    Ok(found)
}

/// Hands out the documents of a `find`, byte for byte.
async fn read(
    client: &Client,
    session: &mut ClientSession,
    find: RawDocumentBuf,
    mut take: impl FnMut(Document<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let doing = "a look at a batch's documents";
    let mut cursor = within(doing, client.database.run_raw_cursor_command(find).session(&mut *session).batch()).await?;
    let mut replies = cursor.stream(session);
    while let Some(reply) = within(doing, async { replies.next().await.transpose() }).await? {
        let documents = reply.doc_slices().map_err(|_| Error::Protocol("an answer without its batch"))?;
        for document in documents {
            let Ok(RawBsonRef::Document(document)) = document else {
                return Err(Damaged("a row that is no document").into());
            };
            take(Document::new(document.as_bytes())?)?;
        }
    }
    Ok(())
}

impl Attempt<'_> {
    /// Writes what passes, deletes first, so that their unique values are free. `anew`: documents that change go with them and
    /// come again.
    pub(super) async fn write_guarded(&mut self, session: &mut ClientSession, anew: bool) -> Result<(), Stop> {
        let batch = self.batch;
        let found = look(self.with.client, session, self.with.looks, batch, anew).await?;
        let mut passed = Vec::with_capacity(batch.writes.len());
        for (place, (write, found)) in batch.writes.iter().zip(&found).enumerate() {
            let over = write.over.as_ref().ok_or(Damaged("a write without its images among guarded ones"))?;
            let key = write.change.key()?.ok_or(Damaged("a guarded write without a key"))?;
            match judge(found.image(), write.change.after.as_ref(), over) {
                Verdict::AsWanted => {
                    self.applied.equal.push(place);
                    if write.parked {
                        self.unpark.push((write.change.table().clone(), key));
                    }
                }
                Verdict::Write => passed.push((place, write, found, key)),
                Verdict::Differs if batch.retry => {
                    self.refuse_guarded(write, key, place, (ErrorClass::Dependency, DIFFERS_STILL.to_owned()));
                }
                Verdict::Differs => self.applied.differing.push((place, found.seen())),
            }
        }
        keep_some(self.applied.differing.iter_mut().map(|(_, seen)| seen));
        for (place, write, found, key) in passed {
            let refused = match self.known_fault(place) {
                Some(fault) => Some(fault),
                None => self.add_guarded(write, found, &key, place)?,
            };
            match refused {
                None => self.written(write.change.table(), &key, write.parked),
                Some(fault) => self.refuse_guarded(write, key, place, fault),
            }
        }
        self.deletes_first();
        self.flush(session).await
    }

    /// The operations of a version that passes; the reason where it is refused.
    fn add_guarded(
        &mut self,
        write: &Write,
        found: &Found,
        key: &Key,
        place: usize,
    ) -> Result<Option<(ErrorClass, String)>, Error> {
        let anew = self.comes_anew(place);
        let schema = &write.change.schema;
        let target = self.target(schema)?;
        let look = self.with.looks.get(&schema.id).ok_or(Damaged("a table was not looked at"))?;
        let poison = |reason: String| Ok(Some((ErrorClass::Poison, reason)));
        let there = match found {
            Found::Nothing => None,
            Found::Document { filter, row, whole, .. } => Some((filter.clone(), row, whole)),
            Found::Several(_) => return poison("several documents there become this row".to_owned()),
        };
        let mut old = None;
        let (filter, does) = match (&write.change.after, there) {
            // What is as wanted has been told apart before.
            (None, None) => return Ok(None),
            (None, Some((filter, ..))) => (filter, Do::Delete),
            (Some(row), Some((filter, there, whole))) if look.keeps_others => {
                let fields = match target.changes(row, there.as_ref())? {
                    Ok(fields) => fields,
                    Err(reason) => return poison(reason),
                };
                // What can't be put together changes in its place.
                match whole.as_ref().filter(|_| anew).and_then(|whole| over(whole, &fields).ok()) {
                    Some(document) => {
                        old = Some(filter);
                        (RawDocumentBuf::new(), Do::Insert(document))
                    }
                    None => (filter, Do::Update(update(fields))),
                }
            }
            (Some(row), there) => {
                let document = match target.content(row, key)? {
                    Content::Whole(document) => document,
                    Content::Refused(reason) => return poison(reason),
                    Content::Parts(_) => return Err(Damaged("a part of a row among guarded ones").into()),
                };
                // An upsert would write over a document that the look has not taken for this key: a number of another type.
                match there {
                    Some((filter, ..)) if anew => {
                        let document = over(&filter, &without_id(&document)?)?;
                        old = Some(filter);
                        (RawDocumentBuf::new(), Do::Insert(document))
                    }
                    // It keeps an `_id` of another type that becomes the same key.
                    Some((filter, ..)) if look.projection.is_some() => (filter, Do::Replace(without_id(&document)?)),
                    Some((filter, ..)) => (filter, Do::Replace(document)),
                    None => (RawDocumentBuf::new(), Do::Insert(document)),
                }
            }
        };
        if let Do::Replace(document) | Do::Insert(document) = &does
            && operation::is_too_large(&filter, document)
        {
            return poison(operation::TOO_LARGE.to_owned());
        }
        if let Some(old) = old {
            self.push(target, old, Do::Delete, place, false, false);
        }
        self.push(target, filter, does, place, false, false);
        Ok(None)
    }

    fn refuse_guarded(&mut self, write: &Write, key: Key, place: usize, (class, reason): (ErrorClass, String)) {
        let name = (write.change.table().clone(), key);
        self.refused.insert(name, Refused { write: place, class, reason });
    }
}
