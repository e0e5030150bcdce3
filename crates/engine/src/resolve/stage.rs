//! The resolver of one applier: records in, what its target has to take out.
//!
//! ```text
//! record -> logical rows -> Resolver -> sends to this target -> batch
//!                              +-----> conflicts -> ledger
//! ```

use super::configured::{Configured, Paused, known, resolver_rules};
use super::entry;
use super::intake::{self, Said, Untaken};
use super::key::RowKey;
use super::version::{Event, Expectation, Expectations, Member, Origin, Version, VersionId};
use super::{Decision, Echo, Outcome, Parked, Reason};
use crate::decide::Decided;
use crate::failure::EngineError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::echo;
use sync_worker_core::guard::Image;
use sync_worker_core::ledger::{Conflict, NO_TIME};
use sync_worker_core::logical::{Normalizer, key_only};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::record::{Body, Offset, Partition, Record};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::rules::{Strategy, TwoWay};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Write;
use sync_worker_core::types::Engine;
use sync_worker_core::value::{Cell, Value};

/// Keys of a table that may go back and forth before all of it is paused (invariant 9).
const MOST_STOPPED: usize = 1_000;

/// Bytes of memory for keys of which something is under way (invariant 9).
const UNDER_WAY_BYTES: usize = 12 << 20;

/// What a target has to do about a key.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // most are writes, and they are taken at once
pub enum Task {
    /// [`Write::over`] is filled in when the batch is made.
    Write(Write, Asked),
    /// It has the version or something newer: what waits there has been superseded.
    Keep(RowKey),
}

/// What is asked for with a write.
#[derive(Debug)]
pub struct Asked {
    pub key: RowKey,
    /// The version's own.
    pub image: Image,
    /// What it may be written over.
    pub over: Expectations,
    /// A row that is copied while all members' rows are.
    pub copied: bool,
}

pub struct Stage {
    pub(super) pipeline: PipelineName,
    pub(super) partition: Partition,
    pub(super) target: DatabaseName,
    pub(super) configured: Option<Configured>,
    /// Sends at or below were carried out in an earlier life: the target's marker.
    done: Option<Offset>,
    tasks: Vec<Task>,
    conflicts: Vec<Conflict>,
    /// Bytes of their rows.
    conflict_bytes: usize,
    decided: Vec<Decided>,
    /// The last record up to which the target's own stream has shown it to be written to.
    pub echoed: Option<Offset>,
    /// Tables and reasons of rows that have no place at other members, for the log.
    unfit: Vec<(TableName, String)>,
    /// Tables have been paused, or go on.
    pauses_changed: bool,
    /// Tables whose rows have all been copied, for the log.
    seeded: Vec<(TableName, Offset)>,
    /// Of rows of paused tables that stay as their member has written them: how many, for the log.
    unseen: BTreeMap<TableName, u64>,
    room: intake::Room,
    /// Where what is under way goes beyond those keys that memory is for.
    spill: Option<PathBuf>,
    /// Empty, for the next record.
    out: Outcome,
}

impl Stage {
    pub fn new(pipeline: PipelineName, partition: Partition, target: DatabaseName, done: Option<Offset>) -> Self {
        Self {
            pipeline,
            partition,
            target,
            configured: None,
            done,
            tasks: Vec::new(),
            conflicts: Vec::new(),
            conflict_bytes: 0,
            decided: Vec::new(),
            echoed: None,
            unfit: Vec::new(),
            pauses_changed: true,
            seeded: Vec::new(),
            unseen: BTreeMap::new(),
            room: intake::Room::default(),
            spill: None,
            out: Outcome::default(),
        }
    }

    /// Keys of which something is under way go to files in this folder, beyond those that memory is for.
    pub fn spill_to(&mut self, folder: PathBuf) {
        if let Some(configured) = &mut self.configured {
            configured.resolver.spill_to(folder.clone(), UNDER_WAY_BYTES);
        }
        self.spill = Some(folder);
    }

    /// Fails where something under way could not be read back: nothing that was decided or handed out since counts.
    pub fn is_sound(&mut self) -> Result<(), EngineError> {
        let failure = self.configured.as_mut().and_then(|configured| configured.resolver.failure());
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Keys of which something is under way to somebody.
    pub fn entries(&self) -> usize {
        self.configured.as_ref().map_or(0, |configured| configured.resolver.entries().len())
    }

    /// What those take.
    pub fn entry_bytes(&self) -> usize {
        self.configured.as_ref().map_or(0, |configured| configured.resolver.entries().bytes())
    }

    /// Entries for the ledger that are held in memory.
    pub fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    pub fn take_tasks(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks)
    }

    pub fn conflict_bytes(&self) -> usize {
        self.conflict_bytes
    }

    pub fn take_conflicts(&mut self) -> Vec<Conflict> {
        self.conflict_bytes = 0;
        std::mem::take(&mut self.conflicts)
    }

    pub fn take_unfit(&mut self) -> Vec<(TableName, String)> {
        std::mem::take(&mut self.unfit)
    }

    pub fn take_unseen(&mut self) -> BTreeMap<TableName, u64> {
        std::mem::take(&mut self.unseen)
    }

    /// Tables of which all rows that were copied stand up to an offset.
    pub fn take_seeded(&mut self, up_to: Offset) -> impl Iterator<Item = TableName> {
        self.seeded.extract_if(.., move |(_, at)| *at <= up_to).map(|(table, _)| table)
    }

    /// The tables of which nothing is taken.
    pub fn paused(&self) -> &BTreeMap<TableName, Paused> {
        static NONE: BTreeMap<TableName, Paused> = BTreeMap::new();
        self.configured.as_ref().map_or(&NONE, |configured| &configured.paused)
    }

    /// Whether they are others than when this was asked last; at first always.
    pub fn pauses_changed(&mut self) -> bool {
        std::mem::take(&mut self.pauses_changed)
    }

    pub fn take_decided(&mut self) -> Vec<Decided> {
        std::mem::take(&mut self.decided)
    }

    /// Takes a record that is no duplicate.
    pub fn take(&mut self, at: Offset, record: Record) -> Result<(), EngineError> {
        let Record { origin, commit_time, body, .. } = record;
        let mut out = std::mem::take(&mut self.out);
        match body {
            Body::Configuration(rules) => {
                self.configure(&rules)?;
                self.end_seeds(at, &mut out)?;
            }
            Body::Seeded(table) => {
                if self.configured()?.resolver.seeded(&table) {
                    self.end_seeds(at, &mut out)?;
                    self.seeded.push((table, at));
                }
            }
            Body::Schema(_) | Body::Commit => return Ok(()),
            Body::Change(change) => self.change(at, &origin, commit_time, &change, &mut out)?,
            Body::Resume(table) => {
                let configured = self.configured()?;
                let paused = configured.paused.remove(&table).is_some();
                for key in configured.stopped.extract_if(.., |key| key.table == table) {
                    configured.flips.forget(&key);
                }
                if paused {
                    configured.resumed.insert(table, at);
                }
                self.pauses_changed |= paused;
            }
            Body::Marker(echo) => {
                let (own, mut unseen) = (origin == self.target, Vec::new());
                if own {
                    self.echoed = echo.offset.or(self.echoed);
                }
                let configured = self.configured()?;
                let member = known(&configured.rules, &origin)?;
                if let Some(mut echo) = resolver_echo(member, echo) {
                    for Parked { key, sent, reason, .. } in &mut echo.parked {
                        if *reason == Reason::Differs && configured.is_blind(key, *sent) {
                            *reason = Reason::Unseen;
                            unseen.extend(own.then(|| key.table.clone()));
                        }
                    }
                    configured.resolver.echo(at, &echo, &mut out);
                }
                for table in unseen {
                    *self.unseen.entry(table).or_default() += 1;
                }
            }
            Body::Decision(decision) => {
                let key = decision.change.key()?.ok_or(sync_worker_core::value::Damaged("a decision without a key"))?;
                let key = RowKey::new(decision.change.table().clone(), key);
                let row = decision.change.after.map(|row| row.detached());
                let version = version(at, key, Origin::Person, commit_time, row);
                let decision = Decision { version: Arc::new(version), seen: decision.seen };
                if !self.paused().contains_key(&decision.version.key.table) {
                    let configured = self.configured()?;
                    configured.resolver.decision(at, &decision, &mut out);
                    if !out.sends.is_empty() && configured.stopped.remove(&decision.version.key) {
                        configured.flips.forget(&decision.version.key);
                    }
                }
                self.decided.push((at, !out.sends.is_empty()));
            }
        }
        self.outcome(at, commit_time, out)
    }

    /// A write goes to the target: adds to what it may be written over the states in which the key may be met there.
    pub fn hand_out(&mut self, asked: &mut Asked) {
        let Some(Configured { resolver, own: Some(own), .. }) = &mut self.configured else { return };
        resolver.hand_out(*own, &asked.key, asked.image, &mut asked.over);
    }

    fn configured(&mut self) -> Result<&mut Configured, EngineError> {
        let pipeline = &self.pipeline;
        self.configured.as_mut().ok_or_else(|| {
            EngineError::Gap(format!(
                "the log of pipeline {pipeline} begins without its configuration; seed the pipeline anew"
            ))
        })
    }

    fn configure(&mut self, rules: &Arc<TwoWay>) -> Result<(), EngineError> {
        let Some(configured) = &mut self.configured else {
            let mut configured = Configured::new(rules.clone(), &self.target);
            configured.resolver.merge_seeds(rules.merged_seeds);
            if let Some(folder) = &self.spill {
                configured.resolver.spill_to(folder.clone(), UNDER_WAY_BYTES);
            }
            self.configured = Some(configured);
            return Ok(());
        };
        let names = |rules: &TwoWay| rules.members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
        if names(rules) != names(&configured.rules) {
            return Err(EngineError::Configuration(format!(
                "the members of pipeline {} were others when it began ({}); a pipeline keeps its members, another one gets another name",
                self.pipeline,
                configured.rules.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
        configured.resolver.set_rules(resolver_rules(rules));
        configured.resolver.merge_seeds(rules.merged_seeds);
        let stays = |name: &TableName| rules.tables.iter().any(|table| table.schema.table == *name);
        let paused = configured.paused.len();
        configured.paused.retain(|name, _| stays(name));
        self.pauses_changed |= configured.paused.len() < paused;
        configured.resumed.retain(|name, _| stays(name));
        configured.stopped.retain(|key| stays(&key.table));
        configured.resolver.retain_seeds(stays);
        configured.rules = rules.clone();
        configured.normalizers.clear();
        Ok(())
    }

    /// Where all rows of a table have been copied, or no longer are, nothing more can explain the rows that sends have met.
    fn end_seeds(&mut self, at: Offset, out: &mut Outcome) -> Result<(), EngineError> {
        let configured = self.configured()?;
        let own = configured.own;
        let mut ended = configured.resolver.waiting();
        ended.retain(|waiting| !configured.resolver.is_seeding(&waiting.key.table));
        let mut unseen = Vec::new();
        for mut waiting in ended {
            waiting.blind = configured.is_blind(&waiting.key, waiting.sent);
            unseen.extend((waiting.blind && Some(waiting.member) == own).then(|| waiting.key.table.clone()));
            configured.resolver.end_waiting(at, &waiting, out);
        }
        for table in unseen {
            *self.unseen.entry(table).or_default() += 1;
        }
        Ok(())
    }

    /// What can't be taken pauses its table (invariant 10): a decision about any row of it could be wrong.
    fn change(
        &mut self,
        at: Offset,
        origin: &DatabaseName,
        commit_time: i64,
        change: &Change,
        out: &mut Outcome,
    ) -> Result<(), EngineError> {
        let member = known(&self.configured()?.rules, origin)?;
        let table = change.table();
        if self.paused().contains_key(table) {
            return Ok(());
        }
        let taken = match self.normalizer(&change.schema) {
            Ok(normalizer) => self.read(at, (origin, member), commit_time, change, &normalizer, out),
            Err(untaken) => Err(untaken),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Untaken::Stop(error)) => Err(error),
            Err(Untaken::Table(reason)) => {
                self.configured()?.paused.insert(table.clone(), Paused { offset: at, reason });
                self.pauses_changed = true;
                Ok(())
            }
        }
    }

    fn read(
        &mut self,
        at: Offset,
        (origin, member): (&DatabaseName, Member),
        commit_time: i64,
        change: &Change,
        normalizer: &Normalizer,
        out: &mut Outcome,
    ) -> Result<(), Untaken> {
        let table = change.table();
        let configured = self.configured.as_mut().ok_or(EngineError::Stopped("a change before the configuration"))?;
        let time_at = configured.table(table).and_then(|rules| {
            let column = rules.timestamp_column.as_ref()?;
            rules.schema.column(column)
        });
        let time = |row: Option<&Row>| row.zip(time_at).and_then(|(row, at)| time_of(row, at));
        let seeding = configured.resolver.is_seeding(table);
        let version = |key: Key, row: Option<Row>, read: bool| {
            let key = RowKey::new(table.clone(), key);
            let time = time(row.as_ref()).unwrap_or(if read && seeding { NO_TIME } else { commit_time });
            Arc::new(Version { read, ..version(at, key, Origin::Member(member), time, row) })
        };
        let Configured { resolver, flips, stopped, own, .. } = configured;
        let own = *own;
        let mut unfit = None;
        intake::read(origin, change, normalizer, &mut self.room, |said| match said {
            Said::Read { key, row } => {
                let version = version(key, Some(row), true);
                if !(seeding && stopped.contains(&version.key)) {
                    resolver.read(at, &version, out);
                }
            }
            Said::Written { key, before, before_image, after } => {
                let version = version(key, after, false);
                if stopped.contains(&version.key) {
                    return;
                }
                // A write that changes none of the shared columns must not win against one that does.
                if version.image == before_image {
                    if seeding {
                        // A copy that was made meanwhile leaves the row out: this says what it is.
                        let commit_time = time(version.row.as_ref()).unwrap_or(NO_TIME);
                        let read = Version { read: true, commit_time, ..(*version).clone() };
                        resolver.read(at, &Arc::new(read), out);
                    }
                    return;
                }
                let undone = flips.saw(&version.key, member, before_image, version.image, commit_time);
                let event = Event { version, before, before_image };
                resolver.event(at, &event, out);
                if Some(member) == own {
                    resolver.stands(member, &event.version.key, event.version.image);
                }
                if let Some(other) = undone {
                    stopped.insert(event.version.key.detached());
                    resolver.flip_flop(at, &event, other, out);
                }
            }
            Said::Gone { key } => {
                let version = version(key, None, false);
                if !resolver.has(&version.key) && !stopped.contains(&version.key) {
                    resolver.event(at, &Event { version, before: None, before_image: Image::UNKNOWN }, out);
                }
            }
            Said::Unfit { column, reason } => unfit = Some((column, reason)),
        })?;
        if stopped.len() > MOST_STOPPED && stopped.iter().filter(|key| key.table == *table).count() > MOST_STOPPED {
            return Err(Untaken::Table(format!(
                "more than {MOST_STOPPED} of its keys go back and forth between members"
            )));
        }
        if let Some((column, reason)) = unfit {
            let strategy = configured.table(table).map_or(Strategy::Manual, |rules| rules.strategy);
            self.unfit.push((table.clone(), format!("column {column}: {reason}")));
            let origin = origin.clone();
            let entry = entry::unfit(&self.pipeline, self.partition, at, commit_time, origin, change, column, strategy);
            self.conflicts.extend(entry?);
        }
        Ok(())
    }

    fn normalizer(&mut self, schema: &Schema) -> Result<Arc<Normalizer>, Untaken> {
        let configured = self.configured()?;
        if let Some(normalizer) = configured.normalizers.get(&schema.id) {
            return Ok(normalizer.clone());
        }
        let Some(rules) = configured.table(&schema.table) else {
            return Err(Untaken::Table("it is on the log, but not among the pipeline's tables".to_owned()));
        };
        let logical = rules.schema.clone();
        let normalizer = match schema.engine {
            Engine::Mongodb => Normalizer::of_documents(logical, rules.document.clone()),
            Engine::Postgres | Engine::Mysql => Normalizer::new(schema, logical),
        };
        let normalizer =
            normalizer.map_err(|(column, refusal)| Untaken::Table(format!("column {column}: {refusal}")))?;
        let normalizer = Arc::new(normalizer);
        configured.normalizers.insert(schema.id, normalizer.clone());
        Ok(normalizer)
    }

    /// Keeps what concerns this target, and all conflicts. A table that has left the pipeline since has neither.
    fn outcome(&mut self, at: Offset, commit_time: i64, mut out: Outcome) -> Result<(), EngineError> {
        self.is_sound()?;
        let Some(configured) = &mut self.configured else { return Ok(()) };
        for send in out.sends.drain(..) {
            let Some((_, expectation)) = send.to.into_iter().find(|(member, _)| Some(*member) == configured.own) else {
                continue;
            };
            let version = send.version;
            if self.done >= Some(at) {
                // An earlier life has handed it out, or a newer one.
                if let (Some(own), Expectation::Over(_)) = (configured.own, &expectation) {
                    configured.resolver.stands(own, &version.key, version.image);
                }
                continue;
            }
            let Some(rules) = configured.table(&version.key.table) else { continue };
            match expectation {
                Expectation::Keep => self.tasks.push(Task::Keep(version.key.detached())),
                Expectation::Over(over) => {
                    // In memory of its own: it would hold on to all that was read with it.
                    let before = send.before.as_ref().map(Row::detached);
                    let change = change_of(&version, before, rules.schema.clone())?;
                    let write = Write { change, offset: at, parked: false, over: None };
                    let copied = version.read && configured.rules.merged_seeds;
                    let asked = Asked { key: version.key.clone(), image: version.image, over, copied };
                    self.tasks.push(Task::Write(write, asked));
                }
            }
        }
        for conflict in out.conflicts.drain(..) {
            let Some(rules) = configured.table(&conflict.winner.key.table) else { continue };
            let name = |member| configured.name(member);
            let entry = entry::of(&self.pipeline, self.partition, rules, name, conflict, commit_time);
            self.conflict_bytes += entry.size();
            self.conflicts.push(entry);
        }
        self.out = out;
        Ok(())
    }
}

/// Of a row in memory of its own.
fn version(at: Offset, key: RowKey, origin: Origin, commit_time: i64, row: Option<Row>) -> Version {
    let by = match origin {
        Origin::Member(member) => Some(member),
        Origin::Merge | Origin::Person => None,
    };
    let image = Image::of(row.as_ref());
    Version { id: VersionId::Record(at), key, origin, by, commit_time, row, image, read: false }
}

/// The time in a row's column.
fn time_of(row: &Row, column: usize) -> Option<i64> {
    match row.cells().nth(column)? {
        Ok(Cell::Present(Value::Timestamp(time) | Value::TimestampTz(time))) => Some(time),
        Ok(_) | Err(_) => None,
    }
}

/// As a write in the logical columns.
fn change_of(version: &Version, before: Option<Row>, schema: Arc<Schema>) -> Result<Change, EngineError> {
    Ok(match &version.row {
        Some(row) => Change { schema, op: Op::Create, before, after: Some(row.clone()) },
        None => {
            let before = before.map_or_else(|| key_only(&schema, &version.key.key), Ok)?;
            Change { schema, op: Op::Delete, before: Some(before), after: None }
        }
    })
}

/// None where nothing has been sent yet.
fn resolver_echo(member: Member, echo: echo::Echo) -> Option<Echo> {
    let offset = echo.offset?;
    let key = |table: TableName, key: Key| RowKey::new(table, key.detached());
    let parked = echo.parked.into_iter().map(|one| {
        let reason = if one.seen.is_some() { Reason::Differs } else { Reason::Refused };
        Parked { key: key(one.table, one.key), sent: one.offset, reason, seen: one.seen }
    });
    let unparked = echo.unparked.into_iter().map(|one| (key(one.table, one.key), one.written));
    Some(Echo { member, offset, parked: parked.collect(), unparked: unparked.collect() })
}

#[cfg(test)]
#[path = "stage_tests.rs"]
pub(crate) mod tests;
