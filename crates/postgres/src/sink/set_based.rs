//! A batch in one statement per table and kind.

use super::Attempt;
use super::items::{Builder, Item, Missing, Rows, join_truncates};
use super::marker::{ParkedKeys, ParkedRows};
use super::pipeline::{Pipeline, Reply, first_failure};
use super::plan::Plan;
use super::session::Session;
use super::statement::Kind;
use crate::error::Error;
use std::collections::HashMap;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Step, Version};
use sync_worker_core::convert::Refusal;
use sync_worker_core::schema::SchemaId;
use sync_worker_core::sink::{Applied, Parking, Refused, WriteBatch};
use sync_worker_core::value::Damaged;
use tokio_postgres::Statement;

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// An item with its statement; None for a truncate, whose text is made.
pub enum Ready {
    Rows(Rows, Statement),
    Truncate(String),
}

impl Session {
    pub fn builder(&self, missing: Missing) -> Builder<'_> {
        Builder {
            plans: &self.plans,
            missing,
            overwrite: self.overwriting > 0,
            order: self.order,
            ranks: &self.ranks,
            last: &self.last,
            there: &[],
            scratch: String::new(),
            refused: Vec::new(),
            needs_row_by_row: false,
            needs_look: false,
            idle: 0,
        }
    }

    pub async fn set_based(
        &mut self,
        batch: &WriteBatch,
        steps: &[Step],
        missing: Missing,
        parking: &dyn Parking,
    ) -> Result<Applied, Attempt> {
        let mut builder = self.builder(missing);
        let mut items = Vec::with_capacity(steps.len());
        for step in steps {
            let mut of_step = Vec::new();
            builder.step(step, &batch.writes, &mut of_step)?;
            items.push(of_step);
        }
        join_truncates(&mut items);
        let Builder { refused, needs_row_by_row, idle, .. } = builder;
        // What follows a refused version of a key in a later step is made over it.
        if needs_row_by_row || !refused.is_empty() && steps.len() > 1 {
            return Err(Attempt::RowByRow);
        }
        let mut applied = Applied { rows: idle, ..Applied::default() };
        match missing {
            Missing::Fails if refused.is_empty() => {
                let items = items.into_iter().flatten().collect();
                self.at_once(batch, steps, items, parking, &mut applied).await?;
            }
            Missing::Fails => return Box::pin(self.set_based(batch, steps, Missing::Told, parking)).await,
            Missing::Told => {
                applied.refused = refused;
                self.with_a_look(batch, steps, items, parking, &mut applied).await?;
            }
        }
        Ok(applied)
    }

    /// Everything in one round trip, the commit included where nothing has to be waited for.
    async fn at_once(
        &mut self,
        batch: &WriteBatch,
        steps: &[Step],
        items: Vec<Item>,
        parking: &dyn Parking,
        applied: &mut Applied,
    ) -> Result<(), Attempt> {
        let ready = self.ready(items).await?;
        let replans = self.replans();
        let mut pipeline = Pipeline::new(&self.client);
        if replans {
            pipeline.send("DISCARD PLANS").await;
        }
        self.begin_batch(&mut pipeline, batch).await?;
        let first = pipeline.len();
        send(&mut pipeline, &ready).await;
        self.settle(&mut pipeline, batch, steps, &[]).await?;
        finish(pipeline, first, &ready, parking.pending(batch), applied).await?;
        Ok(())
    }

    /// Step by step, looking at which updates found their row; those that did not are inserted or refused.
    async fn with_a_look(
        &mut self,
        batch: &WriteBatch,
        steps: &[Step],
        items: Vec<Vec<Item>>,
        parking: &dyn Parking,
        applied: &mut Applied,
    ) -> Result<(), Attempt> {
        let mut pipeline = Pipeline::new(&self.client);
        self.begin_batch(&mut pipeline, batch).await?;
        let mut replies = pipeline.finish().await;
        if let Some((_, failure)) = first_failure(&mut replies) {
            return Err(self.roll_back(failure.into()).await);
        }
        for (step, items) in steps.iter().zip(items) {
            let outcome = self.one_step(batch, step, items, applied).await;
            match outcome {
                Ok(()) => {}
                Err(attempt) => return Err(self.roll_back(attempt).await),
            }
            if steps.len() > 1 && !applied.refused.is_empty() {
                return Err(self.roll_back(Attempt::RowByRow).await);
            }
        }
        applied.refused.sort_by_key(|refused| refused.write);
        if !applied.refused.is_empty() {
            parking.park(batch, &applied.refused).await?; // invariant 2
        }
        let mut pipeline = Pipeline::new(&self.client);
        self.settle(&mut pipeline, batch, steps, &applied.refused).await?;
        finish(pipeline, 0, &[], parking.pending(batch), applied).await
    }

    async fn one_step(
        &mut self,
        batch: &WriteBatch,
        step: &Step,
        items: Vec<Item>,
        applied: &mut Applied,
    ) -> Result<(), Attempt> {
        let ready = self.ready(items).await?;
        let mut pipeline = Pipeline::new(&self.client);
        send(&mut pipeline, &ready).await;
        let mut replies = pipeline.finish().await;
        if let Some((_, failure)) = first_failure(&mut replies) {
            return Err(Attempt::Failed(failure));
        }
        let lost = count(&ready, &replies, applied);
        if lost.is_empty() {
            return Ok(());
        }
        // Rows that an update did not find.
        applied.missing += lost.len() as u64;
        applied.rows -= lost.len() as u64;
        let mut versions: HashMap<usize, Version> = HashMap::new();
        match step {
            Step::Set(sets) => {
                let all = sets.iter().flat_map(|set| &set.versions);
                versions.extend(all.map(|version| (version.write, version.clone())));
            }
            Step::Alone(index) => {
                let change = &batch.writes[*index].change;
                let key = change.key()?.ok_or(sync_worker_core::value::Damaged("a change without an image"))?;
                let row = change.after.clone();
                let effect = Effect::Upsert;
                versions.insert(*index, Version { effect, key, row, write: *index, fresh: false, parked: false });
            }
        }
        let mut builder = self.builder(Missing::Told);
        let mut groups = HashMap::new();
        for index in lost {
            let Some(version) = versions.get_mut(&index) else { continue };
            // A key that was changed may be there already under its new name; a row that was never there is new.
            if version.effect == Effect::Update {
                version.effect = Effect::Insert;
            }
            let schema = batch.writes[index].change.schema.id;
            builder.version(schema, version, groups.entry(schema).or_insert_with(Vec::new))?;
        }
        let refused = builder.refused;
        applied.refused.extend(refused);
        let mut items: Vec<Item> = groups.into_values().flatten().map(Item::Rows).collect();
        items.sort_by_key(|item| item.schema().and_then(|schema| self.ranks.get(&schema).copied()));
        let ready = self.ready(items).await?;
        let mut pipeline = Pipeline::new(&self.client);
        send(&mut pipeline, &ready).await;
        let mut replies = pipeline.finish().await;
        if let Some((_, failure)) = first_failure(&mut replies) {
            return Err(Attempt::Failed(failure));
        }
        count(&ready, &replies, applied);
        Ok(())
    }

    /// Sends the beginning of a batch's transaction: the marker moves first (invariant 2).
    pub async fn begin_batch<'a>(&'a self, pipeline: &mut Pipeline<'a>, batch: &WriteBatch) -> Result<(), Error> {
        pipeline.send(BEGIN).await;
        self.ledger()?.advance(pipeline, &batch.expected, &batch.marker).await;
        self.send_shapes(pipeline, &batch.writes).await;
        Ok(())
    }

    pub fn ledger(&self) -> Result<&super::marker::Ledger, Error> {
        let problem = || "the target has not been taken over".to_owned();
        self.ledger.as_ref().ok_or_else(|| Error::Lost { doing: "a write".to_owned(), problem: problem() })
    }

    /// Prepares what has not been prepared yet.
    pub async fn ready(&mut self, items: Vec<Item>) -> Result<Vec<Ready>, Attempt> {
        let mut ready = Vec::with_capacity(items.len());
        for item in items {
            ready.push(match item {
                Item::Rows(rows) => {
                    let plan = self.plans.get_mut(&rows.schema).ok_or(Damaged("a row without a schema"))?;
                    let statement = plan.statement(&self.client, rows.kind, &rows.mask).await;
                    let statement = statement.map_err(|error| Attempt::Failed(super::Failure::of(&error)))?;
                    Ready::Rows(rows, statement)
                }
                Item::Truncate(tables) => Ready::Truncate(self.truncate(&tables)),
            });
        }
        Ok(ready)
    }

    /// Sends what becomes of the parked rows. Whether it was sent in full, the caller learns from the pipeline.
    pub async fn settle(
        &self,
        pipeline: &mut Pipeline<'_>,
        batch: &WriteBatch,
        steps: &[Step],
        refused: &[Refused],
    ) -> Result<(), Attempt> {
        let (mut gone, mut truncated, mut parked) =
            (ParkedKeys::default(), ParkedRows::default(), ParkedRows::default());
        let too_large = |refusal: Refusal| Error::Fatal(format!("a key can't be parked: {refusal}"));
        let is_refused = |write: usize| refused.binary_search_by_key(&write, |refused| refused.write).is_ok();
        for step in steps {
            match step {
                Step::Set(sets) => {
                    for set in sets {
                        let written =
                            set.versions.iter().filter(|version| version.parked && !is_refused(version.write));
                        for version in written {
                            gone.push(&set.schema.table, &version.key).map_err(too_large)?;
                        }
                    }
                }
                Step::Alone(index) => {
                    let change = &batch.writes[*index].change;
                    if change.op == Op::Truncate {
                        truncated.push_table(change.table()).map_err(too_large)?;
                    }
                    // The old key's row has gone whatever waited for it.
                    for key in [change.old_key()?, change.key()?.filter(|_| !is_refused(*index))].into_iter().flatten()
                    {
                        gone.push(change.table(), &key).map_err(too_large)?;
                    }
                }
            }
        }
        for (table, key) in &batch.unpark {
            gone.push(table, key).map_err(too_large)?;
        }
        for refused in refused {
            let write = &batch.writes[refused.write];
            let Some(key) = write.change.key()? else { continue };
            parked.push(write.change.table(), &key, write.offset, &refused.reason, None).map_err(too_large)?;
        }
        let ledger = self.ledger()?;
        if !truncated.is_empty() {
            ledger.unpark_tables(pipeline, truncated).await;
        }
        if !gone.is_empty() {
            ledger.unpark(pipeline, gone).await;
        }
        if !parked.is_empty() {
            ledger.park(pipeline, parked).await;
        }
        Ok(())
    }

    /// One `TRUNCATE` of these tables where it is allowed and nobody else refers to them. Else each by itself, children
    /// first, and where that is not allowed every row.
    pub fn truncate(&self, schemas: &[SchemaId]) -> String {
        let mut plans: Vec<&Plan> = schemas.iter().filter_map(|schema| self.plans.get(schema)).collect();
        let oids: Vec<u32> = plans.iter().map(|plan| plan.target.table.oid).collect();
        let free = |plan: &&Plan, among: &[u32]| {
            plan.target.may_truncate && plan.target.referrers.iter().all(|oid| among.contains(oid))
        };
        if plans.iter().all(|plan| free(plan, &oids)) {
            let names: Vec<&str> = plans.iter().map(|plan| plan.target.sql_only.as_str()).collect();
            return format!("TRUNCATE {}", names.join(", "));
        }
        let rank = |plan: &&Plan| {
            let same = |schema: &&SchemaId| self.plans.get(schema).is_some_and(|other| std::ptr::eq(other, *plan));
            schemas.iter().find(same).and_then(|schema| self.ranks.get(schema)).copied()
        };
        plans.sort_by_key(|plan| std::cmp::Reverse(rank(plan)));
        let each = plans.iter().map(|plan| match free(plan, &[]) {
            true => format!("TRUNCATE {}", plan.target.sql_only),
            false => format!("DELETE FROM {}", plan.target.sql_only),
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// A connection that failed is not asked again; the server rolls back when it is closed.
    pub async fn roll_back(&self, attempt: Attempt) -> Attempt {
        if matches!(&attempt, Attempt::Failed(failure) if failure.is_connection()) {
            return attempt;
        }
        match self.client.batch_execute("ROLLBACK").await {
            Ok(()) => attempt,
            Err(error) => Attempt::Stop(Error::driver("a rollback", &error).into()),
        }
    }
}

impl From<super::Failure> for Attempt {
    fn from(failure: super::Failure) -> Self {
        Attempt::Failed(failure)
    }
}

pub async fn send<'a>(pipeline: &mut Pipeline<'a>, ready: &'a [Ready]) {
    for item in ready {
        match item {
            Ready::Rows(rows, statement) => match rows.kind {
                Kind::UpdateFound | Kind::UpdateKey => pipeline.query(statement, &rows.arrays).await,
                Kind::Insert
                | Kind::Upsert
                | Kind::UpdateAll
                | Kind::Delete
                | Kind::UpdateOver
                | Kind::DeleteOver
                | Kind::UpdateKeyAll => pipeline.execute(statement, &rows.arrays).await,
            },
            Ready::Truncate(sql) => pipeline.send(sql).await,
        }
    }
}

/// Sends the commit, as soon as the batch's records are durable, and waits for everything; `first` is the place of the
/// first item's reply.
pub async fn finish(
    mut pipeline: Pipeline<'_>,
    first: usize,
    ready: &[Ready],
    flush: Option<Flush>,
    applied: &mut Applied,
) -> Result<(), Attempt> {
    // Something that never left must not be committed without.
    let broken = pipeline.broken;
    if let Some(flush) = flush {
        flush.await?; // invariant 2
    }
    pipeline.send(if broken { "ROLLBACK" } else { "COMMIT" }).await;
    let mut replies = pipeline.finish().await;
    if let Some((_, failure)) = first_failure(&mut replies) {
        // The commit was under way with everything else.
        if !broken && failure.is_connection() {
            let lost = failure.into_error("a commit", "");
            return Err(Error::CommitUnknown(Box::new(lost)).into());
        }
        return Err(Attempt::Failed(failure));
    }
    if broken {
        return Err(Error::Protocol("a statement was not sent").into());
    }
    count(ready, &replies[first.min(replies.len())..], applied);
    Ok(())
}

/// Counts rows. Returns the indexes of the writes whose update found no row.
pub fn count(ready: &[Ready], replies: &[Result<Reply, super::Failure>], applied: &mut Applied) -> Vec<usize> {
    let mut lost = Vec::new();
    for (item, reply) in ready.iter().zip(replies) {
        let (Ready::Rows(rows, _), Ok(reply)) = (item, reply) else { continue };
        applied.rows += rows.writes.len() as u64;
        match (rows.kind, reply) {
            (Kind::Delete, Reply::Count(found)) => {
                applied.missing += (rows.writes.len() as u64).saturating_sub(*found).saturating_sub(rows.fresh);
            }
            (Kind::UpdateFound | Kind::UpdateKey, Reply::Rows(found)) => {
                let found: Vec<i64> = found.first().and_then(|row| row.try_get(0).ok().flatten()).unwrap_or_default();
                let mut there = vec![false; rows.writes.len()];
                for place in found {
                    let at = usize::try_from(place - 1).ok();
                    at.and_then(|at| there.get_mut(at)).into_iter().for_each(|there| *there = true);
                }
                lost.extend(rows.writes.iter().zip(there).filter(|(_, there)| !there).map(|(write, _)| *write));
            }
            (
                Kind::Insert
                | Kind::Upsert
                | Kind::UpdateAll
                | Kind::UpdateOver
                | Kind::DeleteOver
                | Kind::UpdateKeyAll,
                _,
            )
            | (Kind::Delete, Reply::Done | Reply::Rows(_))
            | (Kind::UpdateFound | Kind::UpdateKey, Reply::Done | Reply::Count(_)) => {}
        }
    }
    lost
}
