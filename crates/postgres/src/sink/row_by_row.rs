//! A batch row by row, in source order, so that only the rows that the target refuses are refused.
//!
//! Rows go in chunks of one round trip each. A chunk in which a row is refused is rolled back to its savepoint, written
//! again up to that row, and the rest follows as chunks of their own.

use super::Attempt;
use super::failure::Failure;
use super::items::{Item, KeyChange, Missing, Order};
use super::pipeline::{Pipeline, Reply, first_failure};
use super::refusing::Refusing;
use super::session::Session;
use super::set_based::{Ready, finish, send};
use super::statement::Kind;
use super::target::Target;
use crate::error::Error;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Refusals, Step, Version, collapse, coming_back, stands_alone};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Refused, Write, WriteBatch};
use sync_worker_core::value::Damaged;

pub const CHUNK: usize = 128;

/// A write as one statement.
pub struct Single {
    schema: Arc<Schema>,
    version: Version,
    /// None where nothing has to be done.
    pub item: Option<Item>,
}

pub enum Encoded {
    Single(Single),
    Refused(Arc<Schema>, Version, Refused),
}

impl Session {
    pub async fn row_by_row(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        // Deferrable constraints may be met by a later row; where they are not in the end, each row is checked at once.
        let (mut immediate, mut replanned) = (false, false);
        loop {
            match self.rows(batch, parking, immediate).await {
                Ok(applied) => return Ok(applied),
                Err(Attempt::Stop(error)) => return Err(error),
                Err(Attempt::Failed(failure)) if failure.is_of_row() && !immediate => immediate = true,
                Err(Attempt::Failed(failure)) if failure.is_stale() && !replanned => {
                    replanned = true;
                    self.plans.clear();
                    self.plan(&batch.writes).await?;
                }
                Err(Attempt::Failed(failure)) => return Err(self.error(failure, "the write of a batch").into()),
                Err(Attempt::RowByRow | Attempt::Look | Attempt::Altered(_)) => break,
            }
        }
        Err(Error::Protocol("a batch can't be written row by row").into())
    }

    async fn rows(&mut self, batch: &WriteBatch, parking: &dyn Parking, immediate: bool) -> Result<Applied, Attempt> {
        let mut pipeline = Pipeline::new(&self.client);
        self.begin_batch(&mut pipeline, batch).await?;
        pipeline.send(if immediate { "SET CONSTRAINTS ALL IMMEDIATE" } else { "SET CONSTRAINTS ALL DEFERRED" }).await;
        let mut replies = pipeline.finish().await;
        if let Some((_, failure)) = first_failure(&mut replies) {
            return Err(self.roll_back(failure.into()).await);
        }
        match self.all_rows(batch, parking).await {
            Ok(applied) => Ok(applied),
            Err(attempt) => Err(self.roll_back(attempt).await),
        }
    }

    async fn all_rows(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied, Attempt> {
        let mut applied = self.each_row(batch, None).await?;
        if !applied.refused.is_empty() {
            parking.park(batch, &applied.refused).await?; // invariant 2
        }
        let steps = collapse(&batch.writes, 0..batch.writes.len(), &HashMap::new())?;
        let mut pipeline = Pipeline::new(&self.client);
        self.settle(&mut pipeline, batch, &steps, &applied.refused).await?;
        finish(pipeline, 0, &[], parking.pending(batch), &mut applied).await?;
        Ok(applied)
    }

    /// Writes the rows in the transaction that is open. Guarded ones are known to be there or not to be: none is written
    /// over a row that has come since; `guarded` names the tables whose rows may go and come anew.
    pub async fn each_row(
        &mut self,
        batch: &WriteBatch,
        guarded: Option<&HashSet<SchemaId>>,
    ) -> Result<Applied, Attempt> {
        self.exact = guarded.is_some();
        let mut applied = Applied { row_by_row: true, ..Applied::default() };
        let mut refusing = Refusing { coming_back: self.coming_back(&batch.writes)?, ..Refusing::default() };
        let (mut next, mut size) = (0, CHUNK);
        while next < batch.writes.len() {
            if batch.writes[next].change.op == Op::Truncate {
                next = self.truncates(batch, next, &mut refusing).await?;
            } else if stands_alone(&batch.writes[next].change)? {
                self.alone(batch, next, &mut refusing, &mut applied).await?;
                next += 1;
            } else {
                let end = batch.writes.len().min(next + size);
                let (stopped, is_refused) = self.chunk(&batch.writes[..end], next, &mut refusing, &mut applied).await?;
                (next, size) = (stopped, size_after(size, is_refused));
            }
        }
        self.exchange(&mut refusing, &mut applied, guarded).await?;
        let mut pipeline = Pipeline::new(&self.client);
        pipeline.send("SET CONSTRAINTS ALL IMMEDIATE").await;
        if let Some((_, failure)) = first_failure(&mut pipeline.finish().await) {
            return Err(failure.into());
        }
        applied.refused = refusing.reasons.into_values().collect();
        applied.refused.sort_by_key(|refused| refused.write);
        Ok(applied)
    }

    /// The deletes of rows that come again in the batch, where foreign keys would take others along.
    pub fn coming_back(&self, writes: &[Write]) -> Result<HashSet<usize>, Damaged> {
        let concerns = |schema: &Schema| {
            !self.exact && self.plans.get(&schema.id).is_some_and(|plan| self.takes_along(&plan.target))
        };
        coming_back(writes, concerns)
    }

    fn takes_along(&self, target: &Target) -> bool {
        target.deletes_act && (self.order == Order::ForeignKeys || target.always_acts)
    }

    /// Writes rows from `start` on and returns where it stopped, and whether that was for one that is refused.
    async fn chunk(
        &mut self,
        writes: &[Write],
        start: usize,
        refusing: &mut Refusing,
        applied: &mut Applied,
    ) -> Result<(usize, bool), Attempt> {
        let mut end = start;
        let mut singles: Vec<Single> = Vec::new();
        let mut refused = None;
        while end < writes.len() && !stands_alone(&writes[end].change)? {
            // What is made over a refused version must know how the write before it ended.
            let over_refused = self.is_refused(&writes[end], refusing)?;
            if over_refused && end > start {
                break;
            }
            match self.encode(writes, end, &refusing.versions)? {
                Encoded::Single(single) => {
                    let stays = refusing.coming_back.contains(&end);
                    singles.push(Single { item: single.item.filter(|_| !stays), ..single });
                }
                Encoded::Refused(schema, version, reason) => {
                    refused = Some((schema, version, reason));
                    end += 1;
                    break;
                }
            }
            end += 1;
            if over_refused {
                break;
            }
        }
        let written = self.run(&mut singles, refusing, applied).await?;
        if let Some(stopped) = written {
            return Ok((stopped, true));
        }
        if let Some((schema, version, Refused { class, reason, .. })) = refused {
            refusing.refuse(&schema, version, class, reason);
        }
        Ok((end, false))
    }

    /// Runs statements up to the first that is refused, and returns the index of the write after that one.
    async fn run(
        &mut self,
        singles: &mut [Single],
        refusing: &mut Refusing,
        applied: &mut Applied,
    ) -> Result<Option<usize>, Attempt> {
        let mut stopped = None;
        let mut items = Vec::new();
        let mut places = Vec::new();
        for (place, single) in singles.iter_mut().enumerate() {
            if let Some(item) = single.item.take() {
                items.push(item);
                places.push(place);
            }
        }
        let mut ready = self.ready(items).await?;
        let mut length = singles.len();
        let counts = loop {
            match self.attempt(&ready).await? {
                Ok(counts) => break counts,
                Err((at, failure)) => {
                    let place = places[at];
                    let Single { schema, version, .. } = &singles[place];
                    // Again an earlier one, where somebody has written in between.
                    stopped = Some((place, schema.clone(), version.clone(), failure));
                    // Written again without it and what follows.
                    ready.truncate(at);
                    places.truncate(at);
                    length = place;
                }
            }
        };
        let mut counts = places.iter().zip(counts).peekable();
        for (place, Single { schema, version, .. }) in singles[..length].iter().enumerate() {
            let found = counts.next_if(|(at, _)| **at == place).map(|(_, count)| count);
            let partial = version.effect == Effect::Update && found == Some(0);
            if found == Some(0) {
                applied.missing += u64::from(partial || version.effect == Effect::Delete && !version.fresh);
            }
            if partial {
                let reason = "the row is not there and the change lacks some of its columns".to_owned();
                refusing.refuse(schema, version.clone(), ErrorClass::Dependency, reason);
            } else {
                applied.rows += 1;
                refusing.written(&schema.table, &version.key);
            }
        }
        Ok(stopped.map(|(_, schema, version, failure)| {
            let next = version.write + 1;
            if failure.is_taken() {
                refusing.taken.insert(version.write);
            }
            let class = failure.class;
            refusing.refuse(&schema, version, class, failure.reason());
            next
        }))
    }

    /// Runs statements behind a savepoint: how many rows each met, or the first that was refused, all of them undone.
    pub async fn attempt(&self, ready: &[Ready]) -> Result<Result<Vec<u64>, (usize, Failure)>, Attempt> {
        let mut pipeline = Pipeline::new(&self.client);
        pipeline.send("SAVEPOINT attempt").await;
        send(&mut pipeline, ready).await;
        pipeline.send("RELEASE SAVEPOINT attempt").await;
        let broken = pipeline.broken;
        let mut replies = pipeline.finish().await;
        if broken {
            return Err(Error::Protocol("a statement was not sent").into());
        }
        let Some((at, failure)) = first_failure(&mut replies) else {
            let items = replies.into_iter().skip(1).take(ready.len());
            return Ok(Ok(items.map(|reply| reply.as_ref().map_or(0, found)).collect()));
        };
        if !failure.is_of_row() || at == 0 || at > ready.len() {
            return Err(failure.into());
        }
        let undone = self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt").await;
        undone.map_err(|error| Attempt::Failed(Failure::of(&error)))?;
        Ok(Err((at - 1, failure)))
    }

    fn is_refused(&self, write: &Write, refusing: &Refusing) -> Result<bool, Damaged> {
        if refusing.versions.is_empty() {
            return Ok(false);
        }
        let key = write.change.key()?.ok_or(Damaged("a change without an image"))?;
        Ok(refusing.versions.contains_key(&(write.change.table().clone(), key)))
    }

    /// One write, made over what was refused of its key.
    fn encode(&self, writes: &[Write], index: usize, refusals: &Refusals) -> Result<Encoded, Attempt> {
        let schema = writes[index].change.schema.clone();
        let mut steps = collapse(writes, index..index + 1, refusals)?;
        let version = match steps.pop() {
            Some(Step::Set(mut sets)) => sets.pop().and_then(|mut set| set.versions.pop()),
            Some(Step::Alone(_)) | None => None,
        };
        let version = version.ok_or(Damaged("a change without an image"))?;
        self.single(schema, version)
    }

    /// A complete image is written whether its row is there or not.
    pub fn single(&self, schema: Arc<Schema>, version: Version) -> Result<Encoded, Attempt> {
        let mut version = version;
        let complete = match &version.row {
            Some(row) => !row.is_partial()?,
            None => false,
        };
        if !self.exact && (version.effect == Effect::Update && complete || version.effect == Effect::Insert) {
            version.effect = Effect::Upsert;
        }
        let mut builder = self.builder(Missing::Told);
        let mut groups = Vec::new();
        builder.version(schema.id, &version, &mut groups)?;
        if let Some(refused) = builder.refused.pop() {
            return Ok(Encoded::Refused(schema, version, refused));
        }
        let item = groups.pop().map(Item::Rows);
        Ok(Encoded::Single(Single { schema, version, item }))
    }

    /// Truncates that follow one another, from `start` on. Returns where they end.
    async fn truncates(&mut self, batch: &WriteBatch, start: usize, refusing: &mut Refusing) -> Result<usize, Attempt> {
        let rest = batch.writes[start..].iter().map(|write| &write.change);
        let run: Vec<_> = rest.take_while(|change| change.op == Op::Truncate).collect();
        let schemas: Vec<_> = run.iter().map(|change| change.schema.id).collect();
        let ready = [Ready::Truncate(self.truncate(&schemas))];
        if let Err((_, failure)) = self.attempt(&ready).await? {
            let names: Vec<_> = run.iter().map(|change| change.table().to_string()).collect();
            let reason = failure.reason();
            return Err(Error::Fatal(format!("the truncate of {} is refused: {reason}", names.join(", "))).into());
        }
        run.iter().for_each(|change| refusing.truncated(change.table()));
        Ok(start + run.len())
    }

    /// A changed key.
    async fn alone(
        &mut self,
        batch: &WriteBatch,
        index: usize,
        refusing: &mut Refusing,
        applied: &mut Applied,
    ) -> Result<(), Attempt> {
        let write = &batch.writes[index];
        let change = &write.change;
        let table = change.table().clone();
        let (Some(old_key), Some(key), Some(row)) = (change.old_key()?, change.key()?, &change.after) else {
            return Err(Damaged("a changed key without both images").into());
        };
        let version = Version {
            effect: Effect::Upsert,
            key,
            row: Some(row.clone()),
            write: index,
            fresh: false,
            parked: write.parked,
        };
        // The version that waited for the old key waits no more.
        let version = match refusing.versions.remove(&(table.clone(), old_key.clone())) {
            Some((schema, Version { row: Some(old), .. })) => {
                let old = change.schema.row_of(&old, &schema)?;
                Version { row: Some(row.over(&old)?), ..version }
            }
            Some(_) | None => version,
        };
        refusing.reasons.remove(&(table.clone(), old_key.clone()));
        let outcome = self.key_change(&change.schema, &old_key, &version, applied).await?;
        match outcome {
            None => {
                applied.rows += 1;
                refusing.written(&table, &version.key);
            }
            Some((class, reason)) => {
                self.vacate(&change.schema, &old_key, &version).await?;
                refusing.refuse(&change.schema, version, class, reason);
            }
        }
        Ok(())
    }

    /// The row of a refused key change has left its old key, whatever becomes of it under the new one. It stays only where
    /// the target holds columns of it that the change lacks, or refuses its delete as well, or would take rows that refer to
    /// it along: nobody sends those again.
    async fn vacate(&mut self, schema: &Arc<Schema>, old_key: &Key, version: &Version) -> Result<(), Attempt> {
        let acts = self.order == Order::ForeignKeys && self.last.contains(&schema.id);
        if acts || version.row.as_ref().map(|row| row.is_partial()).transpose()?.unwrap_or(true) {
            return Ok(());
        }
        let delete = Version { effect: Effect::Delete, key: old_key.clone(), row: None, ..version.clone() };
        if let Encoded::Single(Single { item: Some(item), .. }) = self.single(schema.clone(), delete)? {
            let ready = self.ready(vec![item]).await?;
            // A foreign key may hold it: then it goes when the retry succeeds.
            let _held = self.attempt(&ready).await?.is_err();
        }
        Ok(())
    }

    /// Why it is refused, if it is.
    async fn key_change(
        &mut self,
        schema: &Arc<Schema>,
        old_key: &Key,
        version: &Version,
        applied: &mut Applied,
    ) -> Result<Option<(ErrorClass, String)>, Attempt> {
        let plan = self.plans.get(&schema.id).ok_or(Damaged("a row without a schema"))?;
        let row = version.row.as_ref().ok_or(Damaged("a changed key without both images"))?;
        let partial = row.is_partial()?;
        let lacking = || "the row is not there and the change lacks some of its columns".to_owned();
        if plan.key_is_fixed && partial {
            // The row would have to be made anew, and what the change lacks stands in the one under the old key only.
            return Ok(Some((ErrorClass::Dependency, lacking())));
        }
        let delete = |key: &Key| Version { effect: Effect::Delete, key: key.clone(), row: None, ..version.clone() };
        let mut in_the_way = false;
        // No row has a key that the table can't hold: then there is none that could move.
        if !plan.key_is_fixed && plan.holds_key(old_key)? {
            let ready = match self.moving(schema, old_key, version, row)? {
                Ok(items) => self.ready(items).await?,
                Err(refused) => return Ok(Some((refused.class, refused.reason))),
            };
            match self.attempt(&ready).await? {
                Ok(counts) if counts.first().is_some_and(|count| *count > 0) => return Ok(None),
                Ok(_) => applied.missing += 1,
                Err((_, failure)) => {
                    let plan = self.plans.get(&schema.id);
                    let on_key = failure.unique_index().zip(plan).is_some_and(|(name, plan)| plan.is_key_index(name));
                    if !on_key {
                        return Ok(Some((failure.class, failure.reason())));
                    }
                    in_the_way = true;
                }
            }
        }
        let mut items = Vec::new();
        if in_the_way && partial {
            // What the change lacks is to come from the old row, not from the one that it meets.
            let Encoded::Single(single) = self.single(schema.clone(), delete(&version.key))? else {
                return Ok(Some((ErrorClass::Dependency, lacking())));
            };
            items.extend(single.item);
            match self.moving(schema, old_key, version, row)? {
                Ok(moving) => items.extend(moving),
                Err(refused) => return Ok(Some((refused.class, refused.reason))),
            }
        } else {
            // The row is there under its new key already, or not at all, or its key can't be updated.
            let effect = if partial { Effect::Update } else { Effect::Upsert };
            for version in [delete(old_key), Version { effect, ..version.clone() }] {
                match self.single(schema.clone(), version)? {
                    Encoded::Single(single) => items.extend(single.item),
                    Encoded::Refused(_, _, refused) => return Ok(Some((refused.class, refused.reason))),
                }
            }
        }
        let ready = self.ready(items).await?;
        match self.attempt(&ready).await? {
            Err((_, failure)) => Ok(Some((failure.class, failure.reason()))),
            Ok(counts) if partial && counts.last() == Some(&0) => Ok(Some((ErrorClass::Dependency, lacking()))),
            Ok(_) => Ok(None),
        }
    }

    /// The update that moves a row to its new key; or why there is none.
    fn moving(
        &self,
        schema: &Arc<Schema>,
        old_key: &Key,
        version: &Version,
        row: &Row,
    ) -> Result<Result<Vec<Item>, Refused>, Attempt> {
        let mut builder = self.builder(Missing::Told);
        let mut items = Vec::new();
        let change = KeyChange { schema: schema.id, row, old_key, write: version.write };
        builder.key_change(&change, Kind::UpdateKey, &mut items)?;
        Ok(match builder.refused.pop() {
            Some(refused) => Err(refused),
            None => Ok(items),
        })
    }
}

/// What is sent at once is sent again without a row that is refused: less where many are.
pub fn size_after(size: usize, refused: bool) -> usize {
    if refused { (size / 2).max(1) } else { (size * 2).min(CHUNK) }
}

/// How many rows a statement met.
fn found(reply: &Reply) -> u64 {
    match reply {
        Reply::Done => 0,
        Reply::Count(count) => *count,
        Reply::Rows(rows) => {
            let places: Option<Vec<i64>> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
            places.map_or(0, |places| places.len() as u64)
        }
    }
}
