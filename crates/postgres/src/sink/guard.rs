//! The guard of two-way pipelines: a version is written only over a row that it may be written over.
//!
//! ```text
//! trusting: BEGIN, marker, deletes, updates and inserts that fail over another row; COMMIT    in a single round trip
//! looking:  BEGIN, marker, rows of the batch FOR UPDATE -> judge -> deletes, updates, inserts; parked rows; COMMIT
//! ```
//!
//! The rows are read and locked in the transaction that writes them, at read committed: a write that an application commits
//! before is seen, one after it waits and stands behind ours in the log. So a row that was left alone has been explained
//! by the member's own stream before the echo of this transaction comes. A key without a row can't be locked: where an
//! application inserts it in between, our insert meets its key, and the whole attempt is made again.
//!
//! Mostly the row is the one that the version was written over at its origin, and that is known in full. Then nothing is
//! looked at: the statement itself compares, and fails where another row is met; the same attempt is made again with a look,
//! and so are the next batches.
//!
//! Of each key only the newest version comes. Where a unique value has gone from one row to another and back, no order of
//! updates makes one set of rows of the other: then the rows go and come anew (see `exchange`).
//!
//! Where triggers fire, the rows are read once more before the commit: one that is not as it was written is refused.

use super::Attempt;
use super::encode::Array;
use super::exchange::make_anew;
use super::failure::Failure;
use super::items::{Builder, Missing, Order};
use super::marker::{ParkedKeys, ParkedRows};
use super::pipeline::{Pipeline, Reply, first_failure};
use super::plan::{NotEncoded, Plan};
use super::session::{Session, WATCHFUL};
use super::set_based::{Ready, count, finish, send};
use super::statement::{self, Kind};
use crate::codec::{self, Form};
use crate::error::Error;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::collapse::{Step, collapse};
use sync_worker_core::convert::Refusal;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::guard::{ALTERED, DIFFERS, DIFFERS_STILL, Image, Seen, Verdict, judge, keep_some};
use sync_worker_core::logical::Normalizer;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Refused, Write, WriteBatch};
use sync_worker_core::types::Engine;
use sync_worker_core::value::{Cell, Damaged, Value};
use tokio_postgres::Statement;
use tokio_postgres::types::{FromSql, Type};

/// Attempts before the batch is left to a new session: each one looks at the rows anew.
const ATTEMPTS: usize = 8;

/// No table is locked again for so long after one was in use.
const REST: Duration = Duration::from_secs(5);

/// How the rows of a table are read for a comparison.
pub struct Look {
    statement: Statement,
    columns: Vec<Printed>,
    normalizer: Normalizer,
}

#[derive(Clone, Copy)]
struct Printed {
    form: Form,
    /// As a record of this column.
    in_record: bool,
}

/// Memory that is used again for each row.
#[derive(Default)]
struct Room {
    builder: RowBuilder,
    bytes: Vec<u8>,
    text: String,
    field: Vec<u8>,
}

impl Look {
    async fn new(session: &Session, plan: &Plan, logical: &Arc<Schema>) -> Result<Self, Attempt> {
        let table = &plan.target.table;
        let there = |name: &str| table.column(name).map(|there| there.column.clone());
        let columns: Option<Vec<Column>> = plan.columns.iter().map(|column| there(&column.name)).collect();
        let columns = columns.ok_or(Damaged("a column that is not there"))?;
        let printed = columns.iter().zip(&plan.columns).map(|(column, planned)| Printed {
            form: Form::from(&column.kind),
            in_record: !statement::is_printed_alone(planned.element),
        });
        let printed = printed.collect();
        let here = Schema::new(logical.table.clone(), Engine::Postgres, columns, plan.key.clone());
        let normalizer = Normalizer::new(&here, logical.clone()).map_err(|(column, refusal)| {
            Error::Fatal(format!("target table {}: column {column} has no logical form: {refusal}", table.name))
        })?;
        let statement = session.client.prepare(&statement::look(plan)).await;
        let statement = statement.map_err(|error| Attempt::Failed(Failure::of(&error)))?;
        Ok(Self { statement, columns: printed, normalizer })
    }

    /// A row as the server prints it: the columns behind its place. One that has no logical form is like no other.
    fn seen(&self, row: &tokio_postgres::Row, room: &mut Room) -> Result<Seen, Error> {
        let strange = || strange(row, self.columns.len());
        room.builder.abandon();
        for (at, column) in self.columns.iter().enumerate() {
            let printed: Option<Text<'_>> = taken(row.try_get(at + 1))?;
            let text = match printed {
                Some(Text(record)) if column.in_record => match record_of_one(record, &mut room.field) {
                    Some(there) => there.then_some(&room.field[..]),
                    None => return strange(),
                },
                printed => printed.map(|Text(text)| text),
            };
            let Some(text) = text else {
                room.builder.push(Cell::Present(Value::Null));
                continue;
            };
            if codec::push(column.form, text, &mut room.bytes, &mut room.builder).is_err() {
                return strange();
            }
        }
        let printed = room.builder.finish();
        match self.normalizer.row(&printed, &mut room.builder, &mut room.text) {
            Ok(logical) => Ok(Seen::of(Some(logical))),
            Err(_) => strange(),
        }
    }
}

/// A row that has no logical form.
fn strange(row: &tokio_postgres::Row, columns: usize) -> Result<Seen, Error> {
    let mut digest = xxhash_rust::xxh3::Xxh3::new();
    for at in 1..=columns {
        let text: Option<Text<'_>> = taken(row.try_get(at))?;
        let text = text.map(|Text(text)| text);
        digest.update(&[u8::from(text.is_some())]);
        digest.update(&text.map_or(0, <[u8]>::len).to_be_bytes());
        digest.update(text.unwrap_or_default());
    }
    Ok(Seen { image: Image::Row(digest.digest128().to_be_bytes()), row: None })
}

/// A value as it is printed; whether it is UTF-8 shows where it is read.
struct Text<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Text<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Text(raw))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}

/// Takes a printed record of one field apart. False for NULL; None for what is no such record.
fn record_of_one(record: &[u8], text: &mut Vec<u8>) -> Option<bool> {
    let mut rest = record.strip_prefix(b"(")?;
    field(&mut rest, text)
}

/// Takes the next field of a printed record with the comma or parenthesis behind it. False for NULL; None where there is
/// none.
fn field(rest: &mut &[u8], text: &mut Vec<u8>) -> Option<bool> {
    text.clear();
    let (mut quoted, mut any) = (false, false);
    let mut at = 0;
    loop {
        match (*rest.get(at)?, quoted) {
            (b'"', true) if rest.get(at + 1) == Some(&b'"') => {
                text.push(b'"');
                at += 1;
            }
            (b'"', _) => (quoted, any) = (!quoted, true),
            (b'\\', _) => {
                at += 1;
                text.push(*rest.get(at)?);
            }
            (b',' | b')', false) => {
                *rest = &rest[at + 1..];
                return Some(any || !text.is_empty());
            }
            (byte, _) => text.push(byte),
        }
        at += 1;
    }
}

/// For each table the keys that are looked for, and the writes that they are of.
type Asked = Vec<(SchemaId, (Vec<Array>, Vec<usize>))>;

/// How a batch is written.
#[derive(Default)]
struct How {
    row_by_row: bool,
    /// Where only no row may be written over, none is taken to be there, without a look.
    trusts_absence: bool,
    /// Rows that are known in full are taken to be there.
    trusts_rows: bool,
    /// Tables whose rows go and come anew where they change. They are locked for that.
    anew: HashSet<SchemaId>,
    /// None does any more: a table is in use.
    in_place: bool,
    /// Without these writes, which triggers alter.
    altered: HashSet<usize>,
}

/// What a write is taken to meet.
#[derive(Clone, Copy)]
enum There<'a> {
    /// That takes a look.
    Unknown,
    Nothing,
    Row(&'a Row),
}

/// What the guard has let through.
struct Passed {
    /// The writes that are to be made, as plain ones.
    batch: WriteBatch,
    /// For each of them its index in the batch that was asked for.
    places: Vec<usize>,
    /// For each of them the row that it must meet, where that was not looked at.
    there: Vec<Option<Row>>,
    /// The transaction has begun and the marker has moved.
    begun: bool,
    differing: Vec<(usize, Seen)>,
    equal: Vec<usize>,
    /// With indexes of the batch that was asked for.
    refused: Vec<Refused>,
}

impl Session {
    pub async fn guarded(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        // Retries come seldom, and must not all come in vain.
        let in_place = !batch.retry && self.in_use.is_some_and(|until| Instant::now() < until);
        let mut how = How { trusts_absence: true, trusts_rows: self.watchful == 0, in_place, ..How::default() };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let attempt = self.guarded_attempt(batch, parking, &how).await;
            let trusted = std::mem::take(&mut how.trusts_absence);
            let trusted_rows = std::mem::take(&mut how.trusts_rows);
            let failure = match attempt {
                Ok(applied) => {
                    self.watchful = self.watchful.saturating_sub(1);
                    return Ok(applied);
                }
                Err(Attempt::Stop(error)) => return Err(error),
                Err(Attempt::Look) => {
                    self.watchful = WATCHFUL + 1;
                    continue;
                }
                Err(Attempt::RowByRow) => {
                    how.row_by_row = true;
                    continue;
                }
                Err(Attempt::Altered(writes)) => {
                    how.altered.extend(writes);
                    continue;
                }
                Err(Attempt::Failed(failure)) => failure,
            };
            let taken = failure.is_taken() && !self.is_of_key(&failure) && !how.in_place && !how.row_by_row;
            let known = how.anew.len();
            if taken {
                how.anew.extend(self.come_anew(batch, &failure));
            }
            if how.anew.len() > known {
                // Once more, so.
            } else if failure.is_of_lock() && !how.anew.is_empty() {
                // Writers have waited behind us, too.
                self.in_use = Some(Instant::now() + REST);
                how.anew.clear();
                (how.in_place, how.row_by_row) = (true, true);
            } else if trusted && (failure.missing || failure.is_of_row()) {
                // A look tells whether it was for another row.
                if trusted_rows {
                    self.watchful = WATCHFUL + 1;
                }
            } else if failure.missing && self.triggers_meet(batch) {
                // A trigger that leaves rows out looks the same; each by itself, it shows which.
                how.row_by_row = true;
            } else if self.is_of_key(&failure) || failure.missing || failure.is_conflict() {
                // Somebody has written in between: the next look sees it.
            } else if failure.is_stale() {
                self.plans.clear();
                self.looks.clear();
            } else if failure.is_of_row() {
                how.row_by_row = true;
            } else {
                return Err(self.error(failure, "the write of a batch").into());
            }
            last = Some(failure);
        }
        let problem = last.map_or_else(|| "nothing was written".to_owned(), |failure| failure.reason());
        Err(Error::Lost { doing: "the write of a batch".to_owned(), problem }.into())
    }

    async fn guarded_attempt(
        &mut self,
        batch: &WriteBatch,
        parking: &dyn Parking,
        how: &How,
    ) -> Result<Applied, Attempt> {
        self.plan(&batch.writes).await?;
        let outcome = self.guarded_transaction(batch, parking, how).await;
        match outcome {
            Ok(applied) => Ok(applied),
            Err(attempt) => Err(self.roll_back(attempt).await),
        }
    }

    async fn guarded_transaction(
        &mut self,
        batch: &WriteBatch,
        parking: &dyn Parking,
        how: &How,
    ) -> Result<Applied, Attempt> {
        let passed = self.look(batch, how).await?;
        let Passed { batch: plain, places, there, begun, differing, equal, refused: mut unfit } = passed;
        let mut applied = Applied { row_by_row: how.row_by_row, differing, equal, ..Applied::default() };
        if how.row_by_row {
            // A constraint that is deferred has a row to blame only now.
            let immediate = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
            immediate.map_err(|error| Attempt::Failed(Failure::of(&error)))?;
            let written = self.each_row(&plain, Some(&how.anew)).await?;
            applied.rows = written.rows;
            unfit.extend(written.refused.into_iter().map(|one| Refused { write: places[one.write], ..one }));
            let ready = Vec::new();
            return self.finish_guarded(batch, unfit, ready, parking, applied).await;
        }
        let mut steps = collapse(&plain.writes, 0..plain.writes.len(), &HashMap::new())?;
        let anew = make_anew(&mut steps, &how.anew);
        let mut builder = Builder { there: &there, ..self.builder(Missing::Fails) };
        let mut items = Vec::new();
        for step in &steps {
            if let Step::Alone(_) = step {
                return Err(Damaged("a guarded write is about one key").into());
            }
            builder.step(step, &plain.writes, &mut items)?;
        }
        if builder.needs_look {
            return Err(Attempt::Look);
        }
        if anew > 0 && !builder.refused.is_empty() {
            // Its old row must stay.
            return Err(Attempt::RowByRow);
        }
        applied.rows = builder.idle;
        unfit.extend(builder.refused.into_iter().map(|one| Refused { write: places[one.write], ..one }));
        let ready = self.ready(items).await?;
        if !begun && unfit.is_empty() && !self.triggers_meet(batch) {
            return self.guarded_at_once(batch, &ready, parking, applied).await;
        }
        if !begun {
            self.begin(batch, how).await?;
        }
        let mut applied = self.finish_guarded(batch, unfit, ready, parking, applied).await?;
        // They have been counted twice. Rows have been looked at before any comes anew.
        applied.rows -= anew;
        Ok(applied)
    }

    /// The start of the batch's transaction: the marker moves first. Tables whose rows may go and come anew are locked before any
    /// row is.
    async fn begun(&self, batch: &WriteBatch, how: &How) -> Result<Pipeline<'_>, Attempt> {
        let mut pipeline = Pipeline::new(&self.client);
        self.begin_batch(&mut pipeline, batch).await?;
        if !how.anew.is_empty() {
            let locked = first_failure(&mut pipeline.finish().await).map(|(_, failure)| failure);
            if let Some(failure) = locked {
                return Err(failure.into());
            }
            self.lock(how.anew.iter()).await.map_err(Attempt::Failed)?;
            pipeline = Pipeline::new(&self.client);
        }
        Ok(pipeline)
    }

    async fn begin(&self, batch: &WriteBatch, how: &How) -> Result<(), Attempt> {
        match first_failure(&mut self.begun(batch, how).await?.finish().await) {
            Some((_, failure)) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Everything in one round trip: each statement fails where it meets another row than the one that it is to meet.
    async fn guarded_at_once(
        &self,
        batch: &WriteBatch,
        ready: &[Ready],
        parking: &dyn Parking,
        mut applied: Applied,
    ) -> Result<Applied, Attempt> {
        let mut pipeline = self.begun(batch, &How::default()).await?;
        let first = pipeline.len();
        send(&mut pipeline, ready).await;
        self.settle_guarded(&mut pipeline, batch, &applied).await?;
        finish(pipeline, first, ready, parking.pending(batch), &mut applied).await?;
        Ok(applied)
    }

    /// Writes what is ready and what becomes of the parked rows, and commits.
    async fn finish_guarded(
        &mut self,
        batch: &WriteBatch,
        mut refused: Vec<Refused>,
        mut ready: Vec<Ready>,
        parking: &dyn Parking,
        mut applied: Applied,
    ) -> Result<Applied, Attempt> {
        refused.sort_by_key(|refused| refused.write);
        applied.refused = refused;
        if self.triggers_meet(batch) {
            let mut pipeline = Pipeline::new(&self.client);
            send(&mut pipeline, &ready).await;
            let mut replies = pipeline.finish().await;
            if let Some((_, failure)) = first_failure(&mut replies) {
                return Err(failure.into());
            }
            count(&ready, &replies, &mut applied);
            ready.clear();
            let altered = self.altered(batch, &applied).await?;
            if !altered.is_empty() {
                return Err(Attempt::Altered(altered));
            }
        }
        if !applied.refused.is_empty() {
            parking.park(batch, &applied.refused).await?; // invariant 2
        }
        let mut pipeline = Pipeline::new(&self.client);
        send(&mut pipeline, &ready).await;
        self.settle_guarded(&mut pipeline, batch, &applied).await?;
        finish(pipeline, 0, &ready, parking.pending(batch), &mut applied).await?;
        Ok(applied)
    }

    /// Whether something that is written to this table fires triggers.
    pub fn meets_triggers(&self, schema: &Schema) -> bool {
        let as_origin = self.order == Order::ForeignKeys;
        let fires = |plan: &Plan| plan.target.table.triggers.iter().any(|trigger| trigger.fires(as_origin));
        self.plans.get(&schema.id).is_some_and(fires)
    }

    fn triggers_meet(&self, batch: &WriteBatch) -> bool {
        batch.writes.iter().any(|write| self.meets_triggers(&write.change.schema))
    }

    /// The writes that have been made and whose row is another one now.
    async fn altered(&self, batch: &WriteBatch, applied: &Applied) -> Result<Vec<usize>, Attempt> {
        let left = applied.refused.iter().map(|refused| refused.write);
        let left = left.chain(applied.differing.iter().map(|(write, _)| *write)).chain(applied.equal.iter().copied());
        let left: HashSet<usize> = left.collect();
        let written = (0..batch.writes.len())
            .filter(|index| !left.contains(index) && self.meets_triggers(&batch.writes[*index].change.schema));
        let asked = self.keys(batch, written, &mut Vec::new())?;
        let found = self.found(Pipeline::new(&self.client), batch, &asked).await?;
        let written = asked.iter().flat_map(|(_, (_, writes))| writes);
        let is_other = |write: &&usize| found[**write].image != Image::of(batch.writes[**write].change.after.as_ref());
        Ok(written.filter(is_other).copied().collect())
    }

    /// The keys of some writes. Those that the table can't hold are refused.
    fn keys(
        &self,
        batch: &WriteBatch,
        writes: impl Iterator<Item = usize>,
        refused: &mut Vec<Refused>,
    ) -> Result<Asked, Attempt> {
        let mut of_table: HashMap<SchemaId, (Vec<Array>, Vec<usize>)> = HashMap::new();
        let mut scratch = String::new();
        for index in writes {
            let write = &batch.writes[index];
            let schema = write.change.schema.id;
            let plan = self.plans.get(&schema).ok_or(Damaged("a row without a schema"))?;
            let key = write.change.key()?.ok_or(Damaged("a guarded write without a key"))?;
            let (arrays, writes) =
                of_table.entry(schema).or_insert_with(|| (plan.arrays(Kind::Delete, &None), Vec::new()));
            match plan.push_key(&key, arrays, &mut scratch) {
                Ok(()) => writes.push(index),
                // No row has a key that the table can't hold.
                Err(NotEncoded::Refused(_)) if write.change.op == Op::Delete => {}
                Err(NotEncoded::Refused(reason)) => {
                    refused.push(Refused { write: index, class: ErrorClass::Poison, reason });
                }
                Err(NotEncoded::Damaged(damaged)) => return Err(damaged.into()),
            }
        }
        Ok(of_table.into_iter().filter(|(_, (_, writes))| !writes.is_empty()).collect())
    }

    fn there<'a>(&self, write: &'a Write, how: &How) -> There<'a> {
        let over = write.over.as_deref().unwrap_or_default();
        let Change { before, after, schema, .. } = &write.change;
        if how.trusts_absence && after.is_some() && over == [Image::Absent] {
            return There::Nothing;
        }
        let Some(before) = before.as_ref().filter(|_| how.trusts_rows) else { return There::Unknown };
        let there = Image::of(Some(before));
        // What is as wanted already is not written.
        let changes = after.as_ref().is_none_or(|after| Image::of(Some(after)) != there);
        let compares = self.plans.get(&schema.id).is_some_and(|plan| plan.compares);
        if compares && changes && over.contains(&there) { There::Row(before) } else { There::Unknown }
    }

    /// What may be written. Where what some writes meet is unknown, and row by row, begins the transaction, moves the marker,
    /// and reads and locks those rows.
    async fn look(&mut self, batch: &WriteBatch, how: &How) -> Result<Passed, Attempt> {
        for write in &batch.writes {
            let logical = &write.change.schema;
            if !self.looks.contains_key(&logical.id) {
                let plan = self.plans.get(&logical.id).ok_or(Damaged("a row without a schema"))?;
                let look = Look::new(self, plan, logical).await?;
                self.looks.insert(logical.id, look);
            }
        }
        let met: Vec<There<'_>> = batch.writes.iter().map(|write| self.there(write, how)).collect();
        let mut refused = Vec::new();
        let wanted = (0..batch.writes.len()).filter(|index| matches!(met[*index], There::Unknown));
        let asked = self.keys(batch, wanted, &mut refused)?;
        let begun = how.row_by_row || !asked.is_empty();
        let mut found = vec![Seen::NOTHING; batch.writes.len()];
        if begun {
            found = self.found(self.begun(batch, how).await?, batch, &asked).await?;
        }
        // An insert can be in the stream and not visible yet, and unlike a row that is there it can't be waited for by its
        // lock: what we would do to such a row, its member would take for having been done before it.
        let unseen = |place: &usize| {
            let over = batch.writes[*place].over.as_deref().unwrap_or_default();
            found[*place].image == Image::Absent
                && (batch.writes[*place].change.after.is_none() || !over.contains(&Image::Absent))
        };
        if asked.iter().any(|(_, (_, writes))| writes.iter().any(unseen)) {
            self.recent.clone().wait_visible(&self.client).await?;
            found = self.found(Pipeline::new(&self.client), batch, &asked).await?;
        }
        let (places, there, differing, equal) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut passed = Passed { batch: without_writes(batch), places, there, begun, differing, equal, refused };
        let unfit: HashSet<usize> = passed.refused.iter().map(|refused| refused.write).collect();
        for ((index, write), met) in batch.writes.iter().enumerate().zip(met) {
            if unfit.contains(&index) {
                continue;
            }
            let (verdict, is_there) = match met {
                There::Nothing => (Verdict::Write, false),
                There::Row(_) => (Verdict::Write, true),
                There::Unknown => {
                    let image = found[index].image;
                    let over = write.over.as_deref().unwrap_or_default();
                    (judge(image, write.change.after.as_ref(), over), image != Image::Absent)
                }
            };
            match verdict {
                Verdict::AsWanted => passed.equal.push(index),
                Verdict::Write if how.altered.contains(&index) => {
                    let (class, reason) = (ErrorClass::Poison, ALTERED.to_owned());
                    passed.refused.push(Refused { write: index, class, reason });
                }
                Verdict::Write => {
                    let op = match (&write.change.after, is_there) {
                        (None, _) => Op::Delete,
                        (Some(_), false) => Op::Create,
                        (Some(_), true) => Op::Update,
                    };
                    let before = if op == Op::Delete { write.change.before.clone() } else { None };
                    let change = Change { op, before, ..write.change.clone() };
                    passed.batch.writes.push(Write { change, offset: write.offset, parked: false, over: None });
                    passed.places.push(index);
                    passed.there.push(match met {
                        There::Row(row) => Some(row.clone()),
                        There::Nothing | There::Unknown => None,
                    });
                }
                Verdict::Differs if batch.retry => {
                    let (class, reason) = (ErrorClass::Dependency, DIFFERS_STILL.to_owned());
                    passed.refused.push(Refused { write: index, class, reason });
                }
                Verdict::Differs => passed.differing.push((index, found[index].clone())),
            }
        }
        keep_some(passed.differing.iter_mut().map(|(_, seen)| seen));
        Ok(passed)
    }

    /// Reads and locks rows, behind what is in the pipeline already: for each write what is there, and the row where it may
    /// not be written over.
    async fn found<'a>(
        &'a self,
        mut pipeline: Pipeline<'a>,
        batch: &WriteBatch,
        asked: &'a Asked,
    ) -> Result<Vec<Seen>, Attempt> {
        let first = pipeline.len();
        for (schema, (arrays, _)) in asked {
            let look = self.looks.get(schema).ok_or(Damaged("a row without a schema"))?;
            pipeline.query(&look.statement, arrays).await;
        }
        let mut replies = pipeline.finish().await;
        if let Some((_, failure)) = first_failure(&mut replies) {
            return Err(failure.into());
        }
        let (mut found, mut room) = (vec![Seen::NOTHING; batch.writes.len()], Room::default());
        for ((schema, (_, writes)), reply) in asked.iter().zip(replies.into_iter().skip(first)) {
            let look = self.looks.get(schema).ok_or(Damaged("a row without a schema"))?;
            let Ok(Reply::Rows(rows)) = reply else { continue };
            for row in rows {
                let place: i64 = taken(row.try_get(0))?;
                let place = usize::try_from(place - 1).ok().and_then(|place| writes.get(place));
                let &write = place.ok_or(Error::Protocol("a row that was not asked for"))?;
                let Seen { image, row } = look.seen(&row, &mut room)?;
                found[write] = Seen::by(&batch.writes[write], image, row.as_ref());
            }
        }
        Ok(found)
    }

    /// Sends what becomes of the parked rows. Whether it was sent in full, the caller learns from the pipeline.
    async fn settle_guarded(
        &self,
        pipeline: &mut Pipeline<'_>,
        batch: &WriteBatch,
        applied: &Applied,
    ) -> Result<(), Attempt> {
        let too_large = |refusal: Refusal| Error::Fatal(format!("a key can't be parked: {refusal}"));
        let (mut gone, mut parked) = (ParkedKeys::default(), ParkedRows::default());
        let (mut refused, mut differing) = (applied.refused.iter().peekable(), applied.differing.iter().peekable());
        for (index, write) in batch.writes.iter().enumerate() {
            let table = write.change.table();
            let key = || write.change.key()?.ok_or(Damaged("a guarded write without a key"));
            if let Some(refused) = refused.next_if(|refused| refused.write == index) {
                parked.push(table, &key()?, write.offset, &refused.reason, None).map_err(too_large)?;
            } else if let Some((_, seen)) = differing.next_if(|(differing, _)| *differing == index) {
                parked.push(table, &key()?, write.offset, DIFFERS, Some(seen)).map_err(too_large)?;
            } else if write.parked {
                gone.push(table, &key()?).map_err(too_large)?;
            }
        }
        let ledger = self.ledger()?;
        if batch.retry && !gone.is_empty() {
            ledger.mark_written(pipeline, &gone).await;
        }
        for (table, key) in &batch.unpark {
            gone.push(table, key).map_err(too_large)?;
        }
        if !gone.is_empty() {
            ledger.unpark(pipeline, gone).await;
        }
        if !parked.is_empty() {
            ledger.park(pipeline, parked).await;
        }
        Ok(())
    }
}

fn without_writes(batch: &WriteBatch) -> WriteBatch {
    WriteBatch {
        expected: batch.expected.clone(),
        marker: batch.marker.clone(),
        writes: Vec::new(),
        unpark: Vec::new(),
        retry: batch.retry,
    }
}

fn taken<T>(value: Result<T, tokio_postgres::Error>) -> Result<T, Error> {
    value.map_err(|_| Error::Protocol("a row in an unexpected form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_records_are_taken_apart() {
        let mut rest = &br#"1,,"","a ""b\\ ,)",t)"#[..];
        let mut text = Vec::new();
        let mut fields = Vec::new();
        while let Some(there) = field(&mut rest, &mut text) {
            fields.push(there.then(|| String::from_utf8(text.clone()).unwrap()));
        }
        let expected = [Some("1"), None, Some(""), Some(r#"a "b\ ,)"#), Some("t")];
        assert_eq!(fields, expected.map(|field| field.map(str::to_owned)));
    }
}
