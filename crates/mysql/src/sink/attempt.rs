//! One transaction: the whole batch as sets and, where the server refuses that, narrowed down by halves.
//!
//! The halves stay in source order: the first is written, or its refused rows are known, before the second is tried, so
//! whatever order of changes the source's constraints allowed is allowed here too. A later version of a refused key is
//! made over the refused one and tried in its place (invariant 5).

use crate::error::Error;
use crate::sink::MysqlSink;
use crate::sink::failure::{DUPLICATE, Failure, NO_PARENT, met_in, sort};
use crate::sink::guard::{self, Judged};
use crate::sink::progress::commit;
use crate::sink::script::{Answer, Outcome, Script, Statement, What};
use crate::sink::statement::{FILL_USES, OVERLAP_USES, TableWriter, by_effect, update_of_row};
use crate::sink::target::{Rendered, TargetTable};
use mysql_async::prelude::Queryable;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Refusals, Step, TableSet, Version, collapse, coming_back};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{DIFFERS, Seen};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Refused, Write, WriteBatch};
use sync_worker_core::value::Damaged;

const DOING: &str = "writing a batch";

/// Why a batch was not committed.
pub enum Failed {
    Here(Error),
    /// The retry queue did not take what was refused, or the batch's records were lost.
    Parking(sync_worker_core::error::Error),
    /// Two-way: triggers have made other rows of these writes.
    Altered(Vec<usize>),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed::Here(error.into())
    }
}

/// Why some writes did not go as one set, where a smaller set may.
pub struct Reason {
    pub class: ErrorClass,
    pub text: String,
    pub code: u16,
}

pub struct Attempt<'a> {
    pub(super) sink: &'a mut MysqlSink,
    pub(super) batch: &'a WriteBatch,
    begun: bool,
    /// Something after the savepoint has failed: it must go before anything else.
    dirty: bool,
    pub(super) refusals: Refusals,
    refused: HashMap<(TableName, Key), Refused>,
    /// Of the writes, those refused for what another row has.
    pub(super) taken: HashSet<usize>,
    /// Tables whose rows were refused for a parent that is not there: with the parents' tables where they are written before
    /// those.
    pub(super) going_first: HashMap<TableName, Option<Vec<TableName>>>,
    /// Of the writes, deletes of rows that come again: foreign keys rest meanwhile.
    pub(super) coming_back: HashSet<usize>,
    unpark: Vec<(TableName, Key)>,
    emptied: Vec<TableName>,
    /// Two-way: the batch as it came, and what has been decided about it; `batch` is what is left of it.
    guard: Option<(&'a WriteBatch, &'a Judged)>,
    pub(super) applied: Applied,
}

impl<'a> Attempt<'a> {
    pub fn new(sink: &'a mut MysqlSink, batch: &'a WriteBatch) -> Self {
        Self {
            sink,
            batch,
            begun: false,
            dirty: false,
            refusals: Refusals::new(),
            refused: HashMap::new(),
            taken: HashSet::new(),
            going_first: HashMap::new(),
            coming_back: HashSet::new(),
            unpark: batch.unpark.clone(),
            emptied: Vec::new(),
            guard: None,
            applied: Applied::default(),
        }
    }

    /// Goes on where [`Attempt::begin`] has begun, once the rows of the batch have been looked at.
    pub fn guarded(sink: &'a mut MysqlSink, whole: &'a WriteBatch, judged: &'a Judged) -> Self {
        let mut attempt = Self::new(sink, &judged.batch);
        attempt.begun = true;
        attempt.guard = Some((whole, judged));
        attempt.unpark.extend(judged.as_wanted.iter().cloned());
        attempt.applied.differing = judged.differing.clone();
        attempt.applied.equal = judged.equal.clone();
        attempt
    }

    /// Opens the transaction and moves the marker.
    pub async fn begin(mut self) -> Result<(), Error> {
        let script = self.open_script();
        let outcome = self.send(script).await;
        match self.judge(outcome)? {
            Ok(_) => Ok(()),
            Err((reason, _)) => Err(Error::Fatal(format!("the marker can't be written: {}", reason.text))),
        }
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    pub async fn run(mut self, parking: &dyn Parking) -> Result<Applied, Failed> {
        let all = 0..self.batch.writes.len();
        if !self.is_guarded() {
            let targets = &self.sink.targets;
            let concerns = |schema: &Schema| targets.get(&schema.id).is_some_and(TargetTable::acts);
            self.coming_back = coming_back(&self.batch.writes, concerns)?;
        }
        // The marker of a batch without writes has to move all the same.
        let mut waiting = if self.begun && all.is_empty() { Vec::new() } else { vec![all] };
        while let Some(range) = waiting.pop() {
            let Err(reason) = self.write_set(range.clone()).await? else { continue };
            if range.len() == 1 {
                self.write_alone(range.start, reason).await?;
                continue;
            }
            self.applied.row_by_row = true;
            let middle = range.start + range.len() / 2;
            waiting.push(middle..range.end);
            waiting.push(range.start..middle);
        }
        self.exchange().await?;
        if let Some((whole, judged)) = self.guard
            && self.sink.targets.values().any(|target| target.has_triggers)
        {
            let refused: HashSet<usize> = self.refused.values().map(|refused| refused.write).collect();
            let written = judged.places.iter().enumerate().filter(|(at, _)| !refused.contains(at));
            let written: HashSet<usize> = written.map(|(_, place)| *place).collect();
            if self.dirty {
                // What has failed since must not be seen.
                let script = self.open_script();
                if let Some((_, error)) = self.send(script).await.failed {
                    return Err(error.into());
                }
            }
            let altered = guard::altered(self.sink, whole, &written).await?;
            if !altered.is_empty() {
                return Err(Failed::Altered(altered));
            }
        }
        self.applied.refused = std::mem::take(&mut self.refused).into_values().collect();
        if let Some((_, judged)) = self.guard {
            self.applied.refused.iter_mut().for_each(|refused| refused.write = judged.places[refused.write]);
            self.applied.refused.extend(judged.refused.iter().cloned());
        }
        let whole = self.whole();
        self.applied.refused.sort_by_key(|refused| refused.write);
        // Invariant 2: what is parked is durable in the retry queue before the commit.
        if !self.applied.refused.is_empty() {
            parking.park(whole, &self.applied.refused).await.map_err(Failed::Parking)?;
        }
        self.write_parked().await?;
        // Invariant 2: so are the batch's records on the bus.
        if let Some(flush) = parking.pending(whole) {
            flush.await.map_err(Failed::Parking)?;
        }
        commit(&mut self.sink.client).await?;
        Ok(self.applied)
    }

    /// The batch as it came.
    fn whole(&self) -> &'a WriteBatch {
        self.guard.map_or(self.batch, |(whole, _)| whole)
    }

    /// Writes a range of the batch as sets, or nothing of it.
    async fn write_set(&mut self, range: Range<usize>) -> Result<Result<(), Reason>, Error> {
        let (single, whole) = (range.len() == 1, range.len() == self.batch.writes.len());
        let steps = collapse(&self.batch.writes, range, &self.refusals)?;
        self.count_uses(&steps)?;
        // Two-way, rows that change go and come anew. Of a part of the batch they may want what another part has.
        let mut anew = false;
        loop {
            let mut script = self.open_script();
            let mut unwritten = Vec::new();
            let mut never_there = 0;
            for step in &steps {
                match step {
                    Step::Set(sets) => never_there += self.add_sets(&mut script, sets, anew, &mut unwritten)?,
                    Step::Alone(write) => {
                        if let Some(reason) = self.add_alone(&mut script, *write)? {
                            return Ok(Err(reason));
                        }
                    }
                }
            }
            // A later step may be about a key that is refused here; and what comes anew must not go for nothing.
            if !unwritten.is_empty() && (steps.len() > 1 || anew) && !single {
                let (_, _, text) = unwritten.swap_remove(0);
                return Ok(Err(Reason { class: ErrorClass::Poison, text, code: 0 }));
            }
            let outcome = self.send(script).await;
            match self.judge(outcome)? {
                Ok(missing) => {
                    self.applied.missing += missing + never_there;
                    self.settle(&steps, unwritten)?;
                    return Ok(Ok(()));
                }
                Err((reason, statement)) => {
                    self.dirty = true;
                    if self.is_guarded() && reason.code == DUPLICATE && !anew && whole && !single {
                        anew = true;
                    } else if reason.code == NO_PARENT
                        && let Some(table) = statement.as_ref().and_then(|statement| statement.table.clone())
                    {
                        if !self.may_go_first(&table).await? {
                            return Ok(Err(reason));
                        }
                    } else if !self.try_otherwise(statement) {
                        return Ok(Err(reason));
                    }
                }
            }
        }
    }

    /// Once for each table and not for each set of it: what a script was made again with must hold for all of the script.
    fn count_uses(&mut self, steps: &[Step]) -> Result<(), Error> {
        let sets = steps.iter().flat_map(|step| match step {
            Step::Set(sets) => &sets[..],
            Step::Alone(_) => &[],
        });
        let tables: HashSet<SchemaId> = sets.map(|set| set.schema.id).collect();
        for id in tables {
            let target = self.sink.targets.get_mut(&id).ok_or(Damaged("a table was not looked at"))?;
            target.fill = target.fill.saturating_sub(1);
            target.overlap = target.overlap.saturating_sub(1);
        }
        Ok(())
    }

    /// After an update that did not find all its rows, or an insert of rows that are there: whether the statements that
    /// do both are worth a try.
    fn try_otherwise(&mut self, statement: Option<Statement>) -> bool {
        if self.is_guarded() {
            return false;
        }
        let Some(Statement { what, table: Some(table), .. }) = statement else { return false };
        // It may be of any of the schemas that the table has in the batch.
        let schemas = self.batch.writes.iter().map(|write| &write.change.schema);
        let ids: HashSet<SchemaId> = schemas.filter(|schema| schema.table == table).map(|schema| schema.id).collect();
        let mut fresh = false;
        for id in ids {
            let Some(target) = self.sink.targets.get_mut(&id) else { continue };
            let (uses, most) = match what {
                What::Update => (&mut target.fill, FILL_USES),
                What::InsertFirst => (&mut target.overlap, OVERLAP_USES),
                _ => return false,
            };
            fresh |= *uses == 0;
            *uses = most;
        }
        fresh
    }

    /// The newest schema of a table in the batch.
    pub(super) fn schema_of(&self, table: &TableName) -> Option<&'a Schema> {
        let mut schemas = self.batch.writes.iter().map(|write| &*write.change.schema);
        schemas.rfind(|schema| schema.table == *table)
    }

    /// Deletes first, so that their unique values are free, children before parents; then, parents before children,
    /// updates before inserts for the same reason. Deletes that act on rows of tables that are written come last. Returns
    /// how many deletes are about keys that the target can't hold.
    fn add_sets<'v>(
        &mut self,
        script: &mut Script,
        sets: &'v [TableSet],
        anew: bool,
        unwritten: &mut Vec<(Arc<Schema>, &'v Version, String)>,
    ) -> Result<u64, Error> {
        let guarded = self.is_guarded();
        let mut never_there = 0;
        let mut tables = Vec::with_capacity(sets.len());
        for set in sets {
            let target = self.target(&set.schema)?;
            let [deletes, updates, upserts, inserts] =
                by_effect(&set.versions, target.acts() && !guarded, anew && target.comes_anew());
            let (back, gone): (Vec<&Version>, Vec<&Version>) =
                deletes.into_iter().partition(|version| self.coming_back.contains(&version.write));
            tables.push((set, target, [back, gone, updates, upserts, inserts]));
        }
        tables.sort_by_key(|(_, target, _)| target.level);
        let mut delete = |script: &mut Script, acting: bool| -> Result<(), Error> {
            for (set, target, [back, gone, ..]) in tables.iter().rev() {
                let mut writer = TableWriter { table: &set.schema.table, target, script, guarded, unchecked: true };
                if !acting {
                    never_there += writer.deletes_one_by_one(back)?.len() as u64;
                }
                if !gone.is_empty() && acting == (target.deletes_act && !guarded) {
                    writer.unchecked = false;
                    never_there += writer.deletes(gone)?.len() as u64;
                }
            }
            Ok(())
        };
        delete(script, false)?;
        for (set, target, [_, _, updates, upserts, inserts]) in &tables {
            let goes_first = self.goes_first(&set.schema.table);
            let mut writer = TableWriter { table: &set.schema.table, target, script, guarded, unchecked: goes_first };
            let mut refused = writer.updates(updates)?;
            let (copied, others): (Vec<&Version>, Vec<&Version>) =
                upserts.iter().copied().partition(|version| self.is_copied(version));
            writer.unchecked = true;
            refused.extend(writer.upserts(&copied)?);
            writer.unchecked = goes_first;
            refused.extend(writer.upserts(&others)?);
            refused.extend(writer.inserts(inserts)?);
            unwritten.extend(refused.into_iter().map(|(version, text)| (set.schema.clone(), version, text)));
        }
        // At the source a row that refers to a deleted one may have been given another parent before.
        delete(script, true)?;
        Ok(never_there)
    }

    /// Whether the newest of a version is a row that was read, and not changed since.
    pub(super) fn is_copied(&self, version: &Version) -> bool {
        self.batch.writes[version.write].change.op == Op::Read
    }

    /// A changed key or a truncate among sets. What is more than one plain statement is left to `row_by_row`.
    fn add_alone(&mut self, script: &mut Script, write: usize) -> Result<Option<Reason>, Error> {
        let careful = |text: &str| Ok(Some(Reason { class: ErrorClass::Poison, text: text.to_owned(), code: 0 }));
        let change = &self.batch.writes[write].change;
        let target = self.target(&change.schema)?;
        if change.op == Op::Truncate {
            for target in self.emptied(write)? {
                // TRUNCATE would end the transaction.
                script.push(What::Clear, Some(change.table()), 0, format!("DELETE FROM {}", target.quoted).as_bytes());
            }
            return Ok(None);
        }
        let (Some(old), Some(row)) = (change.old_key()?, &change.after) else {
            return Err(Damaged("a change that is no change of a key").into());
        };
        if self.batch.writes[write].parked || !self.refusals.is_empty() {
            return careful("a changed key among refused ones");
        }
        let mut sql = Vec::new();
        match update_of_row(target, row, &old, self.goes_first(change.table()), &mut sql)? {
            Rendered::Done if script.fits(sql.len()) => script.push(What::Update, Some(change.table()), 1, &sql),
            Rendered::Done => return careful(&script.too_large()),
            Rendered::Partial => return careful("the image is incomplete"),
            Rendered::Refused(reason) => return careful(&reason),
        }
        Ok(None)
    }

    /// The tables to empty for a truncate: before its own those below it that are truncated right before or after it. Of one
    /// statement that names several the source tells each, parents first.
    fn emptied(&self, write: usize) -> Result<Vec<&TargetTable>, Error> {
        let writes = &self.batch.writes;
        let truncates = |write: &&Write| write.change.op == Op::Truncate;
        let before = writes[..write].iter().rev().take_while(truncates);
        let around = before.chain(writes[write + 1..].iter().take_while(truncates));
        let own = self.target(&writes[write].change.schema)?;
        let mut tables = around.map(|write| self.target(&write.change.schema)).collect::<Result<Vec<_>, _>>()?;
        tables.retain(|table| table.level > own.level);
        tables.sort_by_key(|table| std::cmp::Reverse(table.level));
        tables.push(own);
        Ok(tables)
    }

    pub(super) fn target(&self, schema: &Schema) -> Result<&TargetTable, Error> {
        Ok(self.sink.targets.get(&schema.id).ok_or(Damaged("a table was not looked at"))?)
    }

    /// A script that begins where nothing of a failed one is left.
    pub(super) fn open_script(&self) -> Script {
        let mut script = Script::new(self.sink.largest);
        if !self.begun {
            script.push(What::Control, None, 0, b"START TRANSACTION");
            // Invariant 2: the marker moves first.
            let marker = self.sink.rows.move_marker(&self.batch.expected, &self.batch.marker);
            script.push(What::Marker, None, 1, marker.as_bytes());
        }
        let savepoint: &[u8] = if self.dirty { b"ROLLBACK TO SAVEPOINT sync_worker" } else { b"SAVEPOINT sync_worker" };
        script.push(What::Control, None, 0, savepoint);
        script
    }

    pub(super) async fn send(&mut self, script: Script) -> Outcome {
        let outcome = script.run(&mut self.sink.client, DOING).await;
        // Not even the savepoint was reached: then the error is nobody's row's.
        self.begun = true;
        self.dirty = false;
        outcome
    }

    /// What the answers mean: rows that were missing, or why this set can't stand, with the statement that says so.
    #[allow(clippy::type_complexity)]
    pub(super) fn judge(&self, outcome: Outcome) -> Result<Result<u64, (Reason, Option<Statement>)>, Error> {
        let mut missing = 0;
        for (statement, answer) in &outcome.answers {
            let Answer { affected, duplicates, warnings } = *answer;
            let lost = statement.rows.saturating_sub(affected);
            match statement.what {
                What::Control => {}
                What::Marker if affected == 1 => {}
                What::Marker => {
                    return Err(Error::Superseded(
                        "the marker at the target has moved: another worker has taken it over".to_owned(),
                    ));
                }
                What::Delete { fresh } => missing += lost.saturating_sub(fresh),
                What::Update if lost > 0 => {
                    let text = "the row is missing at the target".to_owned();
                    let reason = Reason { class: ErrorClass::Dependency, text, code: 0 };
                    return Ok(Err((reason, Some(statement.clone()))));
                }
                What::Update | What::Insert | What::InsertFirst | What::Clear => {}
                What::Upsert { updates } => {
                    // A statement over one row does not tell its duplicates.
                    if updates && statement.rows > 1 {
                        missing += statement.rows.saturating_sub(duplicates);
                    }
                }
                What::Fill { updates } => missing += if updates { affected } else { 0 },
            }
            // Invariant 7: a strict session has no business to warn; if it does, a value may have been changed.
            if warnings > 0 {
                let text = "the server warns that it changes a value".to_owned();
                return Ok(Err((Reason { class: ErrorClass::Poison, text, code: 0 }, None)));
            }
        }
        let Some((statement, error)) = outcome.failed else { return Ok(Ok(missing)) };
        let table = statement.as_ref().and_then(|statement| statement.table.as_ref());
        if let Some(table) = table
            && self.is_overtaken(table, &error)
        {
            return Err(Error::Overtaken);
        }
        let name = table.map(|table| self.sink.names.get(table).map_or(table.to_string(), ToString::to_string));
        match sort(error, name.as_deref()) {
            Failure::Row { class, reason, code } if table.is_some() => {
                let otherwise = statement.filter(|statement| match code {
                    DUPLICATE => statement.what == What::InsertFirst,
                    code => code == NO_PARENT,
                });
                Ok(Err((Reason { class, text: reason, code }, otherwise)))
            }
            Failure::Row { reason, .. } => Err(Error::Fatal(format!("the marker can't be written: {reason}"))),
            Failure::Whole(error) => Err(error),
        }
    }

    /// Whether a guarded insert has met a row that was not there when it was looked for. Where keys fold it may be one
    /// of another key, which stays in the way.
    fn is_overtaken(&self, table: &TableName, error: &Error) -> bool {
        let target = || self.target(self.schema_of(table)?).ok();
        self.is_guarded()
            && met_in(error)
                .is_some_and(|index| target().is_some_and(|target| target.folding.is_none() && target.is_key(index)))
    }

    fn settle(&mut self, steps: &[Step], unwritten: Vec<(Arc<Schema>, &Version, String)>) -> Result<(), Error> {
        for step in steps {
            match step {
                Step::Set(sets) => {
                    for set in sets {
                        self.applied.rows += set.versions.len() as u64;
                        if !self.refusals.is_empty() {
                            set.versions.iter().for_each(|version| self.forgive(&set.schema.table, &version.key));
                        }
                        let parked = set.versions.iter().filter(|version| version.parked);
                        self.unpark.extend(parked.map(|version| (set.schema.table.clone(), version.key.clone())));
                    }
                }
                Step::Alone(write) => self.written_alone(*write)?,
            }
        }
        self.applied.rows -= unwritten.len() as u64;
        for (schema, version, text) in unwritten {
            self.refuse(&schema, version, Reason { class: ErrorClass::Poison, text, code: 0 });
        }
        Ok(())
    }

    /// A truncate takes what was refused with it; a changed key has nothing refused, or `row_by_row` would have it.
    pub(super) fn written_alone(&mut self, write: usize) -> Result<(), Error> {
        let change = &self.batch.writes[write].change;
        self.applied.rows += 1;
        if change.op == Op::Truncate {
            self.refusals.retain(|(table, _), _| table != change.table());
            self.refused.retain(|(table, _), _| table != change.table());
            self.emptied.push(change.table().clone());
        }
        Ok(())
    }

    pub(super) fn written(&mut self, table: &TableName, key: &Key, parked: bool) {
        self.applied.rows += 1;
        self.forgive(table, key);
        if parked {
            self.unpark.push((table.clone(), key.clone()));
        }
    }

    pub(super) fn also_unpark(&mut self, table: &TableName, key: Key) {
        self.unpark.push((table.clone(), key));
    }

    pub(super) fn forgive(&mut self, table: &TableName, key: &Key) {
        let name = (table.clone(), key.clone());
        self.refusals.remove(&name);
        self.refused.remove(&name);
    }

    /// The row that was refused under a key, in the columns of this schema.
    pub(super) fn refused_row(&self, schema: &Schema, key: &Key) -> Result<Option<Row>, Error> {
        let refusal = self.refusals.get(&(schema.table.clone(), key.clone()));
        let row = refusal.and_then(|(refused, version)| version.row.as_ref().map(|row| (row, refused)));
        Ok(row.map(|(row, refused)| schema.row_of(row, refused)).transpose()?)
    }

    pub(super) fn is_refused(&self, table: &TableName, key: &Key) -> bool {
        self.refusals.contains_key(&(table.clone(), key.clone()))
    }

    pub(super) fn refuse(&mut self, schema: &Arc<Schema>, version: &Version, reason: Reason) {
        let name = (schema.table.clone(), version.key.clone());
        // A replaced row has lost its old version already.
        let effect = if version.effect == Effect::Replace { Effect::Upsert } else { version.effect };
        self.refused.insert(name.clone(), Refused { write: version.write, class: reason.class, reason: reason.text });
        self.refusals.insert(name, (schema.clone(), Version { effect, ..version.clone() }));
    }

    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// The first warning of the last statement, as a reason.
    pub(super) async fn warning(&mut self) -> Result<Option<String>, Error> {
        let crate::client::Client { conn, liveness, .. } = &mut self.sink.client;
        let query = conn.query_first::<(String, u16, String), _>("SHOW WARNINGS");
        let warning = liveness.watch("a look at a warning", query).await?;
        Ok(warning.map(|(_, code, _)| format!("the server would change a value (warning {code})")))
    }

    /// The parked rows, in the same transaction as the marker.
    async fn write_parked(&mut self) -> Result<(), Error> {
        let Applied { refused, differing, .. } = &self.applied;
        let parked = !refused.is_empty() || !differing.is_empty();
        if self.begun && !self.dirty && !parked && self.unpark.is_empty() && self.emptied.is_empty() {
            return Ok(());
        }
        let mut script = self.open_script();
        let rows = &self.sink.rows;
        for table in &self.emptied {
            script.push(What::Control, None, 0, rows.unpark_all(table).as_bytes());
        }
        // Those of the batch itself come first, and go without a write.
        let retried = if self.is_guarded() && self.batch.retry { self.batch.unpark.len() } else { self.unpark.len() };
        for (at, (table, key)) in self.unpark.iter().enumerate() {
            if at >= retried {
                script.push(What::Control, None, 0, &rows.mark_written(table, key));
            }
            script.push(What::Control, None, 0, &rows.unpark(table, key));
        }
        let refused = refused.iter().map(|refused| (refused.write, refused.reason.as_str(), None));
        let differing = differing.iter().map(|(write, seen)| (*write, DIFFERS, Some(seen)));
        for (write, reason, seen) in refused.chain(differing) {
            let write = &self.whole().writes[write];
            let key = write.change.key()?.ok_or(Damaged("a parked write without a key"))?;
            let park = |seen| rows.park(write.change.table(), &key, write.offset, reason, seen);
            let mut sql = park(seen);
            if let Some(seen) = seen.filter(|_| !script.fits(sql.len())) {
                // What stands there is for the ledger only.
                sql = park(Some(&Seen { row: None, ..seen.clone() }));
            }
            script.push(What::Control, None, 0, &sql);
        }
        let outcome = self.send(script).await;
        match self.judge(outcome)? {
            Ok(_) => Ok(()),
            Err((reason, _)) => Err(Error::Fatal(format!("the parked rows can't be written: {}", reason.text))),
        }
    }
}
