//! Rows that take unique values from each other.
//!
//! At its origin a value went from one row to another over NULL, over another value, or by a delete. Two-way, of all that only
//! the newest version of each key comes, and they may fit together in no order of updates; so may the rows of one statement
//! under a constraint that is deferrable there. So the old rows go first, all of them, then the new ones come. That is for tables
//! whose rows are known in full and for which nothing fires: neither triggers nor the actions of foreign keys.
//!
//! Whoever waits for a row that goes would find none after our commit, and not look for the new one. So the table is locked
//! against writers first: they wait for the table, and look at it as it is then.

use super::Attempt;
use super::failure::Failure;
use super::items::{Item, Missing, Order};
use super::plan::Plan;
use super::refusing::Refusing;
use super::row_by_row::{CHUNK, Encoded, Single, size_after};
use super::session::Session;
use std::collections::HashSet;
use sync_worker_core::collapse::{Effect, Step, Version};
use sync_worker_core::exchange::{Group, TRIES, Trials, by_table};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, WriteBatch};

/// How long writers of a table are waited for, and others wait behind us: long enough for a vacuum to give way.
const LOCK: &str = "1500ms";

/// The same where rows are locked already, of which others may wait for one: less than the server waits until it ends one of the two.
const LATE_LOCK: &str = "500ms";

/// Makes a delete and an insert of each update of these tables; returns how many.
pub fn make_anew(steps: &mut [Step], tables: &HashSet<SchemaId>) -> u64 {
    let mut made = 0;
    let sets = steps.iter_mut().flat_map(|step| match step {
        Step::Set(sets) => &mut sets[..],
        Step::Alone(_) => &mut [],
    });
    for set in sets.filter(|set| tables.contains(&set.schema.id)) {
        let versions = std::mem::take(&mut set.versions);
        let updates = versions.iter().filter(|version| changes(version));
        let deletes: Vec<Version> = updates.map(delete_of).collect();
        made += deletes.len() as u64;
        set.versions = deletes;
        set.versions.extend(versions.into_iter().map(insert_of));
    }
    made
}

impl Session {
    /// Whether a row of this table may go and come anew.
    fn comes_anew(&self, schema: &Schema) -> bool {
        let rests = |plan: &Plan| plan.is_whole && !plan.target.always_acts;
        self.plans.get(&schema.id).is_some_and(rests) && self.order == Order::Unique && !self.meets_triggers(schema)
    }

    /// The tables of a batch that a failure is about, as far as their rows may.
    pub fn come_anew(&self, batch: &WriteBatch, failure: &Failure) -> HashSet<SchemaId> {
        let schemas = batch.writes.iter().map(|write| &write.change.schema);
        let all: HashSet<SchemaId> = schemas.filter(|schema| self.comes_anew(schema)).map(|schema| schema.id).collect();
        let is_named = |id: &&SchemaId| {
            let name = self.plans.get(id).map(|plan| &plan.target.table.name);
            name.is_some_and(|name| failure.table() == Some((&*name.schema, &*name.table)))
        };
        let named: HashSet<SchemaId> = all.iter().filter(is_named).copied().collect();
        // Of a partition the server says its own name.
        if named.is_empty() { all } else { named }
    }

    /// Locks tables against writers, in the transaction that is open and has locked no row yet.
    pub async fn lock(&self, tables: impl Iterator<Item = &SchemaId>) -> Result<(), Failure> {
        self.lock_within(tables, LOCK).await
    }

    async fn lock_within(&self, tables: impl Iterator<Item = &SchemaId>, patience: &str) -> Result<(), Failure> {
        let mut names: Vec<&str> =
            tables.filter_map(|id| self.plans.get(id)).map(|plan| plan.target.sql_name.as_str()).collect();
        // In one order for everybody.
        names.sort_unstable();
        names.dedup();
        let sql = format!(
            "SET LOCAL lock_timeout = '{patience}'; LOCK TABLE {} IN EXCLUSIVE MODE; SET LOCAL lock_timeout TO DEFAULT",
            names.join(", ")
        );
        self.client.batch_execute(&sql).await.map_err(|error| Failure::of(&error))
    }

    /// Tries what has been refused for other rows once more, all of a table together. `locked`: two-way, the tables whose rows may
    /// go; else they are locked here.
    pub async fn exchange(
        &mut self,
        refusing: &mut Refusing,
        applied: &mut Applied,
        locked: Option<&HashSet<SchemaId>>,
    ) -> Result<(), Attempt> {
        let mut versions = Group::new();
        for (schema, version) in refusing.versions.values().filter(|(_, one)| refusing.taken.contains(&one.write)) {
            // Of a delete there is none.
            if let Some(row) = &version.row
                && !row.is_partial()?
            {
                versions.push((schema.clone(), version.clone()));
            }
        }
        for group in by_table(versions) {
            let Some((schema, _)) = group.first().cloned() else { continue };
            let may = match locked {
                Some(locked) => locked.contains(&schema.id),
                None => self.comes_anew(&schema),
            };
            let written = match may {
                true => self.anew(schema.id, group, locked.is_none()).await?,
                false => self.in_place(group).await?,
            };
            for (schema, version) in written {
                applied.rows += 1;
                refusing.written(&schema.table, &version.key);
            }
        }
        Ok(())
    }

    /// Returns what has been written of rows whose old ones have gone first.
    async fn anew(&mut self, table: SchemaId, group: Group, locks: bool) -> Result<Group, Attempt> {
        let (mut written, mut trials) = (Group::new(), Trials::new(group));
        while let Some(mut tried) = trials.take() {
            self.savepoint("SAVEPOINT exchange").await?;
            if locks && let Err(failure) = self.lock_within(std::iter::once(&table), LATE_LOCK).await {
                if failure.is_connection() {
                    return Err(Attempt::Failed(failure));
                }
                self.savepoint("ROLLBACK TO SAVEPOINT exchange; RELEASE SAVEPOINT exchange").await?;
                return Ok(written);
            }
            let refused = self.all_anew(&tried.group).await?;
            if refused.is_empty() {
                self.savepoint("RELEASE SAVEPOINT exchange").await?;
                written.append(&mut tried.group);
            } else {
                self.savepoint("ROLLBACK TO SAVEPOINT exchange; RELEASE SAVEPOINT exchange").await?;
                trials.refused(tried, &refused);
            }
        }
        Ok(written)
    }

    /// Returns what has been written of rows that stay where they are, as long as one makes room for another.
    async fn in_place(&mut self, mut group: Group) -> Result<Group, Attempt> {
        let (mut written, mut tries) = (Group::new(), TRIES.max(group.len()));
        loop {
            let before = group.len();
            if before == 0 || tries < before {
                return Ok(written);
            }
            tries -= before;
            for (schema, version) in std::mem::take(&mut group) {
                let encoded = self.single(schema.clone(), version.clone())?;
                let Encoded::Single(Single { item: Some(item), .. }) = encoded else { continue };
                let ready = self.ready(vec![item]).await?;
                let counts = self.attempt(&ready).await?;
                let is_written = counts.is_ok_and(|counts| counts != [0]);
                if is_written { &mut written } else { &mut group }.push((schema, version));
            }
            if group.len() == before {
                return Ok(written);
            }
        }
    }

    /// Returns the writes that are refused: where there are any, the caller rolls all of it back.
    async fn all_anew(&mut self, group: &Group) -> Result<HashSet<usize>, Attempt> {
        let all = || group.iter().map(|(_, version)| version.write).collect();
        let (mut builder, mut gone) = (self.builder(Missing::Told), Vec::new());
        for (schema, version) in group.iter().filter(|(_, version)| changes(version)) {
            builder.version(schema.id, &delete_of(version), &mut gone)?;
        }
        let deletes = self.ready(gone.into_iter().map(Item::Rows).collect()).await?;
        if self.attempt(&deletes).await?.is_err() {
            return Ok(all());
        }
        let mut refused = HashSet::new();
        let (mut next, mut size) = (0, CHUNK);
        while next < group.len() {
            let chunk = &group[next..group.len().min(next + size)];
            let mut items = Vec::with_capacity(chunk.len());
            // Of a chunk, up to the first that is refused.
            let mut stopped = None;
            for (at, (schema, version)) in chunk.iter().enumerate() {
                let version = insert_of(version.clone());
                let Encoded::Single(Single { item: Some(item), .. }) = self.single(schema.clone(), version)? else {
                    stopped = Some(at);
                    break;
                };
                items.push(item);
            }
            let mut ready = self.ready(items).await?;
            while let Err((at, _)) = self.attempt(&ready).await? {
                stopped = Some(at);
                ready.truncate(at);
            }
            refused.extend(stopped.map(|at| chunk[at].1.write));
            next += stopped.map_or(chunk.len(), |at| at + 1);
            size = size_after(size, stopped.is_some());
        }
        Ok(refused)
    }

    async fn savepoint(&self, sql: &str) -> Result<(), Attempt> {
        self.client.batch_execute(sql).await.map_err(|error| Attempt::Failed(Failure::of(&error)))
    }
}

fn delete_of(version: &Version) -> Version {
    Version { effect: Effect::Delete, row: None, ..version.clone() }
}

fn insert_of(version: Version) -> Version {
    let effect = if changes(&version) { Effect::Insert } else { version.effect };
    Version { effect, ..version }
}

/// A row may be there.
fn changes(version: &Version) -> bool {
    matches!(version.effect, Effect::Update | Effect::Upsert | Effect::Replace)
}
