//! One transaction: the batch as sets and, where the server has refused that, row by row in source order without the
//! writes that are known to be at fault.
//!
//! A later version of a refused key is made over the refused one and tried in its place (invariant 5).

use crate::client::{Client, first_of};
use crate::error::Error;
use crate::sink::failure::{Fault, is_overtaken, sort};
use crate::sink::guard::{Look, REPEATS};
use crate::sink::marker::{Bookkeeping, Park};
use crate::sink::operation::{self, Do, Operation, Refused};
use crate::sink::target::{Content, Target};
use bson::{Document, RawDocumentBuf, rawdoc};
use mongodb::ClientSession;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Refusals, Step, Version, collapse};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::DIFFERS;
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{self, Applied, Parking, WriteBatch};
use sync_worker_core::value::Damaged;

/// How a batch is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    #[default]
    Sets,
    /// In source order, many to a command.
    RowByRow,
    /// In source order, each by a command of its own, since a command was refused as a whole.
    OneByOne,
}

/// What earlier attempts have taught.
#[derive(Default)]
pub struct Known {
    way: Way,
    /// Writes that are refused, by their index.
    faults: BTreeMap<usize, (ErrorClass, String)>,
    /// Two-way, a document had a unique value that another one was to have: old documents go first and come anew.
    anew: bool,
    /// But for those of these writes, which are refused as new documents for what may be no fault of an old one.
    in_place: BTreeSet<usize>,
    /// How often a document came up right after it was looked for.
    overtaken: u32,
}

impl Known {
    /// In a set the order of the rows was another than the source's, so the first refusal proves nothing yet. `guarded`: two-way.
    pub fn learn(&mut self, refused: Vec<(usize, Fault)>, guarded: bool) {
        let proves = self.way > Way::Sets;
        self.way = self.way.max(Way::RowByRow);
        if guarded && !self.anew && refused.iter().any(|(_, fault)| fault.taken) {
            self.anew = true;
        } else if proves {
            for (write, fault) in refused {
                if self.anew && !fault.taken && self.in_place.insert(write) {
                    continue;
                }
                self.faults.insert(write, (fault.class, fault.reason));
            }
        }
    }

    pub fn learn_overtaken(&mut self) {
        self.overtaken += 1;
    }

    /// A command of several writes was refused without a word on which of them.
    pub fn learn_whole(&mut self) {
        self.way = if self.way == Way::Sets { Way::RowByRow } else { Way::OneByOne };
    }
}

pub enum Ended {
    /// Everything but the commit.
    Written(Applied),
    /// Writes, and why they can't stand.
    Refused(Vec<(usize, Fault)>),
    /// A command of several writes.
    RefusedWhole,
    /// Two-way: a document has come up where none was.
    Overtaken,
    /// The retry queue did not take what was refused, or the batch's records were lost.
    NotDurable(sync_worker_core::error::Error),
}

/// Why an attempt ends before its end.
pub enum Stop {
    Refused(Vec<(usize, Fault)>),
    RefusedWhole,
    Overtaken,
    Error(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Error(error.into())
    }
}

/// What a batch is written with.
#[derive(Clone, Copy)]
pub struct With<'a> {
    pub client: &'a Client,
    pub bookkeeping: &'a Bookkeeping,
    pub targets: &'a HashMap<SchemaId, Target>,
    /// The indexes of keys that are fields.
    pub keys: &'a [String],
    /// Two-way: of every table of the batch.
    pub looks: &'a HashMap<SchemaId, Look>,
    /// By which columns documents are found, where that is not written down yet.
    pub found_by: Option<&'a super::marker::Keys>,
}

pub struct Attempt<'a> {
    pub(super) with: With<'a>,
    pub(super) batch: &'a WriteBatch,
    /// Two-way: its writes are made over what is expected.
    guarded: bool,
    known: &'a Known,
    /// Built and not sent yet.
    operations: Vec<Operation>,
    refusals: Refusals,
    pub(super) refused: HashMap<(TableName, Key), sink::Refused>,
    pub(super) unpark: Vec<(TableName, Key)>,
    emptied: Vec<TableName>,
    pub(super) applied: Applied,
}

impl<'a> Attempt<'a> {
    pub fn new(with: With<'a>, batch: &'a WriteBatch, known: &'a Known) -> Self {
        Self {
            with,
            batch,
            guarded: is_guarded(batch),
            known,
            operations: Vec::new(),
            refusals: Refusals::new(),
            refused: HashMap::new(),
            unpark: batch.unpark.clone(),
            emptied: Vec::new(),
            applied: Applied::default(),
        }
    }

    pub async fn run(mut self, session: &mut ClientSession, parking: &dyn Parking) -> Result<Ended, Error> {
        // Invariant 2: the marker moves first.
        let moved = self.with.bookkeeping.move_marker(&self.batch.expected, &self.batch.marker, self.with.found_by);
        let reply = self.with.client.run_in(session, "moving the marker", moved).await?;
        if reply.get_i32("n").unwrap_or(0) != 1 {
            let text = "the marker at the target has moved: another worker has taken it over";
            return Err(Error::Superseded(text.to_owned()));
        }
        self.applied.row_by_row = self.known.way > Way::Sets;
        let written = match self.known.way {
            _ if self.guarded => self.write_guarded(session, self.known.anew).await,
            Way::Sets => self.write_sets(session).await,
            Way::RowByRow | Way::OneByOne => self.write_rows(session).await,
        };
        match written {
            Ok(()) => {}
            Err(Stop::Refused(refused)) => return Ok(Ended::Refused(refused)),
            Err(Stop::RefusedWhole) => return Ok(Ended::RefusedWhole),
            Err(Stop::Overtaken) => return Ok(Ended::Overtaken),
            Err(Stop::Error(error)) => return Err(error),
        }
        self.applied.refused = std::mem::take(&mut self.refused).into_values().collect();
        self.applied.refused.sort_by_key(|refused| refused.write);
        // Invariant 2: what is parked is durable in the retry queue before the commit.
        if !self.applied.refused.is_empty()
            && let Err(error) = parking.park(self.batch, &self.applied.refused).await
        {
            return Ok(Ended::NotDurable(error));
        }
        self.write_parked(session).await?;
        // Invariant 2: so are the batch's records on the bus.
        if let Some(flush) = parking.pending(self.batch)
            && let Err(error) = flush.await
        {
            return Ok(Ended::NotDurable(error));
        }
        Ok(Ended::Written(self.applied))
    }

    /// Deletes first, so that their unique values are free.
    async fn write_sets(&mut self, session: &mut ClientSession) -> Result<(), Stop> {
        for step in collapse(&self.batch.writes, 0..self.batch.writes.len(), &Refusals::new())? {
            match step {
                Step::Set(sets) => {
                    for deletes in [true, false] {
                        for set in &sets {
                            for version in &set.versions {
                                if (version.effect == Effect::Delete) == deletes {
                                    self.version(&set.schema, version)?;
                                    self.written(&set.schema.table, &version.key, version.parked);
                                }
                            }
                        }
                    }
                }
                Step::Alone(write) => self.alone(session, write).await?,
            }
        }
        self.flush(session).await
    }

    async fn write_rows(&mut self, session: &mut ClientSession) -> Result<(), Stop> {
        for write in 0..self.batch.writes.len() {
            for step in collapse(&self.batch.writes, write..write + 1, &self.refusals)? {
                match step {
                    Step::Set(sets) => {
                        for set in &sets {
                            for version in &set.versions {
                                self.row(&set.schema, version)?;
                            }
                        }
                    }
                    Step::Alone(write) => self.alone(session, write).await?,
                }
            }
        }
        self.flush(session).await
    }

    /// Writes or refuses a version. What is seen to be refused here costs no attempt of its own.
    fn row(&mut self, schema: &Arc<Schema>, version: &Version) -> Result<(), Stop> {
        if let Some((class, reason)) = self.known.faults.get(&version.write) {
            self.refuse(schema, version, *class, reason.clone());
            return Ok(());
        }
        match self.version(schema, version) {
            Ok(()) => self.written(&schema.table, &version.key, version.parked),
            Err(Stop::Refused(refused)) => {
                for (_, fault) in refused {
                    self.refuse(schema, version, fault.class, fault.reason);
                }
            }
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    pub(super) fn target(&self, schema: &Schema) -> Result<&'a Target, Error> {
        Ok(self.with.targets.get(&schema.id).ok_or(Damaged("a table was not looked at"))?)
    }

    /// The operations of one version; none where it is refused.
    fn version(&mut self, schema: &Schema, version: &Version) -> Result<(), Stop> {
        let target = self.target(schema)?;
        let poison = |reason: String| {
            Stop::Refused(vec![(version.write, Fault { class: ErrorClass::Poison, reason, taken: false })])
        };
        let filter = match target.filter(&version.key)? {
            Ok(filter) => filter,
            // The target can't hold such a key, so there is no such document.
            Err(_) if version.effect == Effect::Delete => {
                self.applied.missing += u64::from(!version.fresh);
                return Ok(());
            }
            Err(reason) => return Err(poison(reason)),
        };
        if version.effect == Effect::Delete {
            self.push(target, filter, Do::Delete, version.write, version.fresh, false);
            return Ok(());
        }
        let row = version.row.as_ref().ok_or(Damaged("a version without a row"))?;
        match target.content(row, &version.key)? {
            Content::Refused(reason) => return Err(poison(reason)),
            Content::Whole(document) if operation::is_too_large(&filter, &document) => {
                return Err(poison(operation::TOO_LARGE.to_owned()));
            }
            Content::Whole(document) => {
                let new = version.effect != Effect::Update;
                self.push(target, filter, Do::Replace(document), version.write, false, new);
            }
            Content::Parts(updates) => {
                for update in updates {
                    self.push(target, filter.clone(), Do::Update(update), version.write, false, false);
                }
            }
        }
        Ok(())
    }

    pub(super) fn push(
        &mut self,
        target: &Target,
        filter: RawDocumentBuf,
        does: Do,
        write: usize,
        fresh: bool,
        new: bool,
    ) {
        self.operations.push(Operation { collection: target.collection.clone(), filter, does, write, fresh, new });
    }

    pub(super) fn deletes_first(&mut self) {
        self.operations.sort_by_key(|operation| !matches!(operation.does, Do::Delete));
    }

    /// A truncate, or a change of a key: the old document goes and the new one comes.
    async fn alone(&mut self, session: &mut ClientSession, write: usize) -> Result<(), Stop> {
        let batch = self.batch;
        let change = &batch.writes[write].change;
        let (schema, table) = (&change.schema, change.table());
        let target = self.target(schema)?;
        if change.op == Op::Truncate {
            if let Some((_, reason)) = self.known.faults.get(&write) {
                // A truncate has no key to be parked under.
                let text = format!("the target refuses to empty {}: {reason}", target.collection);
                return Err(Error::Fatal(text).into());
            }
            self.push(target, rawdoc! {}, Do::Clear, write, true, false);
            self.refusals.retain(|(name, _), _| name != table);
            self.refused.retain(|(name, _), _| name != table);
            self.emptied.push(table.clone());
            self.applied.rows += 1;
            return Ok(());
        }
        let (Some(old), Some(key), Some(after)) = (change.old_key()?, change.key()?, &change.after) else {
            return Err(Damaged("a change that is no change of a key").into());
        };
        let waiting = self.refusal_of(table, &old).is_some();
        let row = match self.refusal_of(table, &old).and_then(|version| version.row.clone()) {
            Some(refused) => after.over(&refused)?,
            None => after.clone(),
        };
        let parked = batch.writes[write].parked;
        let content = match row.is_partial()? {
            false => target.content(&row, &key)?,
            true => match self.older(session, target, &old).await? {
                Some(older) => target.completed(&row, &key, older.as_bytes())?,
                None => {
                    let reason = "the row is missing at the target and the source sent only a part of it";
                    self.moved_nowhere(schema, &key, row, write, parked, ErrorClass::Dependency, reason.to_owned());
                    return Ok(());
                }
            },
        };
        let fault = self.known.faults.get(&write).cloned();
        let (document, fault) = match (content, fault) {
            (Content::Whole(document), fault) => (Some(document), fault),
            (Content::Refused(reason), _) => (None, Some((ErrorClass::Poison, reason))),
            (Content::Parts(_), _) => return Err(Damaged("a part of a document under a new key").into()),
        };
        if let Ok(filter) = target.filter(&old)? {
            self.push(target, filter, Do::Delete, write, waiting, false);
        }
        self.forgive(table, &old);
        self.unpark.push((table.clone(), old));
        match (document, fault) {
            (Some(document), None) => {
                let filter = target.filter(&key)?;
                let filter = filter.map_err(|_| Damaged("a key that was written before"))?;
                self.push(target, filter, Do::Replace(document), write, false, true);
                self.written(table, &key, parked);
            }
            (_, fault) => {
                let (class, reason) = fault.unwrap_or((ErrorClass::Poison, "the key is not accepted".to_owned()));
                self.moved_nowhere(schema, &key, row, write, parked, class, reason);
            }
        }
        Ok(())
    }

    /// A row that could not come under its new key.
    #[allow(clippy::too_many_arguments)]
    fn moved_nowhere(
        &mut self,
        schema: &Arc<Schema>,
        key: &Key,
        row: Row,
        write: usize,
        parked: bool,
        class: ErrorClass,
        reason: String,
    ) {
        let version = Version { effect: Effect::Upsert, key: key.clone(), row: Some(row), write, fresh: false, parked };
        self.refuse(schema, &version, class, reason);
    }

    /// The document as this transaction sees it, its own writes included.
    async fn older(
        &mut self,
        session: &mut ClientSession,
        target: &Target,
        key: &Key,
    ) -> Result<Option<RawDocumentBuf>, Stop> {
        let Ok(filter) = target.filter(key)? else { return Ok(None) };
        self.flush(session).await?;
        let find = rawdoc! { "find": target.collection.as_str(), "filter": filter, "limit": 1, "singleBatch": true };
        let reply = self.with.client.run_in(session, "a look at a document", find).await?;
        let found: Option<Document> = first_of(&reply);
        let bytes = found.map(|found| RawDocumentBuf::try_from(&found)).transpose();
        Ok(bytes.map_err(|_| Damaged("a document that can't be read"))?)
    }

    /// Sends what has been built.
    pub(super) async fn flush(&mut self, session: &mut ClientSession) -> Result<(), Stop> {
        let operations = std::mem::take(&mut self.operations);
        if operations.is_empty() {
            return Ok(());
        }
        let writes: Vec<usize> = operations.iter().map(|operation| operation.write).collect();
        let careful = self.known.way > Way::Sets;
        let most = if self.known.way == Way::OneByOne { 1 } else { usize::MAX };
        let outcome = match operation::run(self.with.client, session, operations, careful, most).await? {
            Ok(outcome) => outcome,
            Err(Refused { error, .. })
                if self.guarded && is_overtaken(&error, self.with.keys) && self.known.overtaken < REPEATS =>
            {
                return Err(Stop::Overtaken);
            }
            Err(Refused { at, error }) => {
                let write = at.map(|at| writes.get(at));
                return match (sort(&error), write) {
                    (Some(fault), Some(Some(write))) => Err(Stop::Refused(vec![(*write, fault)])),
                    (Some(_), None) => Err(Stop::RefusedWhole),
                    _ => Err(Error::Server { doing: "writing a batch", source: error }.into()),
                };
            }
        };
        if careful && outcome.lacks && outcome.lacking.is_empty() {
            // Nothing would be learned from it, and the batch tried for ever.
            return Err(Error::Protocol("a document was missing and no word on which").into());
        }
        if outcome.lacks {
            let reason = "the row is missing at the target and the source sent only a part of it";
            let fault = || Fault { class: ErrorClass::Dependency, reason: reason.to_owned(), taken: false };
            let lacking = outcome.lacking.iter().filter_map(|at| writes.get(*at));
            return Err(Stop::Refused(lacking.map(|write| (*write, fault())).collect()));
        }
        self.applied.missing += outcome.missing;
        Ok(())
    }

    /// Whether a document that changes may go and come anew.
    pub(super) fn comes_anew(&self, write: usize) -> bool {
        self.known.anew && !self.known.in_place.contains(&write)
    }

    /// Why a write is refused, as an earlier attempt has shown.
    pub(super) fn known_fault(&self, write: usize) -> Option<(ErrorClass, String)> {
        self.known.faults.get(&write).cloned()
    }

    pub(super) fn written(&mut self, table: &TableName, key: &Key, parked: bool) {
        self.applied.rows += 1;
        self.forgive(table, key);
        if parked {
            self.unpark.push((table.clone(), key.clone()));
        }
    }

    fn forgive(&mut self, table: &TableName, key: &Key) {
        if !self.refusals.is_empty() {
            let name = (table.clone(), key.clone());
            self.refusals.remove(&name);
            self.refused.remove(&name);
        }
    }

    fn refusal_of(&self, table: &TableName, key: &Key) -> Option<&Version> {
        self.refusals.get(&(table.clone(), key.clone())).map(|(_, version)| version)
    }

    fn refuse(&mut self, schema: &Arc<Schema>, version: &Version, class: ErrorClass, reason: String) {
        let name = (schema.table.clone(), version.key.clone());
        self.refused.insert(name.clone(), sink::Refused { write: version.write, class, reason });
        self.refusals.insert(name, (schema.clone(), version.clone()));
    }

    /// The parked rows, in the same transaction as the marker.
    async fn write_parked(&mut self, session: &mut ClientSession) -> Result<(), Error> {
        let Applied { refused, differing, .. } = &self.applied;
        let refused = refused.iter().map(|refused| (refused.write, refused.reason.as_str(), None));
        let differing = differing.iter().map(|(write, seen)| (*write, DIFFERS, Some(seen)));
        let mut rows = Vec::new();
        for (write, reason, seen) in refused.chain(differing) {
            let write = &self.batch.writes[write];
            let key = write.change.key()?.ok_or(Damaged("a parked write without a key"))?;
            rows.push(Park { table: write.change.table(), key, offset: write.offset, reason, seen });
        }
        // Those of the batch itself come first, and go without a write.
        let retried = if self.guarded && self.batch.retry { self.batch.unpark.len() } else { self.unpark.len() };
        let bookkeeping = self.with.bookkeeping;
        let commands = [
            bookkeeping.mark_written(self.unpark.get(retried..).unwrap_or_default()),
            bookkeeping.unpark(&self.emptied, &self.unpark),
            bookkeeping.park(&rows),
        ];
        for command in commands.into_iter().flatten() {
            let reply = self.with.client.run_in(session, "writing the parked rows", command).await?;
            if reply.contains_key("writeErrors") {
                return Err(Error::Fatal("the parked rows can't be written".to_owned()));
            }
        }
        Ok(())
    }
}

/// Whether a batch is one of a two-way pipeline: all of its writes are then.
pub fn is_guarded(batch: &WriteBatch) -> bool {
    batch.writes.first().is_some_and(|write| write.over.is_some())
}
