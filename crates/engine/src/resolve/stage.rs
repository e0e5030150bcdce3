//! The resolver of one applier: records in, what its target has to take out.
//!
//! ```text
//! record -> logical rows -> Resolver -> sends to this target -> batch
//!                              +-----> conflicts -> ledger
//! ```

use super::conflict;
use super::rules::Rules;
use super::version::{Event, Expectation, Member, Origin, RowKey, Version, VersionId};
use super::{Decision, Echo, Limits, Outcome, Reason, Resolver};
use crate::decide::Decided;
use crate::failure::EngineError;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::echo;
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::ledger::{Conflict, Contender};
use sync_worker_core::logical::{Normalizer, Unfit, key_only};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::record::{Body, Offset, Partition, Record};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::rules::{OnDelete, TableRules, TwoWay};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::Write;
use sync_worker_core::store::Name;
use sync_worker_core::types::Engine;

/// What a target has to do about a key.
#[derive(Debug)]
pub enum Task {
    /// Write a version over one of these; [`Write::over`] is filled in when the batch is made.
    Write(Write, Vec<Expected>),
    /// It has the version or something newer: what waits there has been superseded.
    Keep(Name),
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
    decided: Vec<Decided>,
    /// The last record up to which the target's own stream has shown it to be written to.
    pub echoed: Option<Offset>,
    /// Changes without an effect on the logical row.
    pub idle: u64,
    builder: RowBuilder,
    scratch: String,
}

/// What a configuration record has brought.
pub(super) struct Configured {
    pub rules: Arc<TwoWay>,
    pub resolver: Resolver,
    own: Option<Member>,
    normalizers: HashMap<SchemaId, Arc<Normalizer>>,
}

impl Configured {
    pub fn new(rules: Arc<TwoWay>, target: &DatabaseName) -> Self {
        let resolver = Resolver::new(rules.members.len(), resolver_rules(&rules), Limits::default());
        Self::with(rules, target, resolver)
    }

    pub fn with(rules: Arc<TwoWay>, target: &DatabaseName, resolver: Resolver) -> Self {
        let own = member(&rules, target);
        Self { rules, resolver, own, normalizers: HashMap::new() }
    }

    fn table(&self, name: &TableName) -> Result<&TableRules, EngineError> {
        let found = self.rules.tables.iter().find(|table| table.schema.table == *name);
        found.ok_or_else(|| {
            EngineError::Configuration(format!("table {name} is on the log, but not among the pipeline's tables"))
        })
    }

    fn name(&self, member: Member) -> DatabaseName {
        let found = self.rules.members.get(usize::from(member.0));
        found.map_or_else(|| DatabaseName::new(""), |member| member.name.clone())
    }
}

fn member(rules: &TwoWay, name: &DatabaseName) -> Option<Member> {
    let place = rules.members.iter().position(|member| member.name == *name)?;
    u8::try_from(place).ok().map(Member)
}

/// The rules as the resolver takes them.
pub(super) fn resolver_rules(two_way: &TwoWay) -> HashMap<TableName, Arc<Rules>> {
    let mut ranks: Vec<_> = two_way.members.iter().enumerate().collect();
    ranks.sort_by(|(_, one), (_, other)| {
        (Reverse(one.priority), &one.name).cmp(&(Reverse(other.priority), &other.name))
    });
    let ranks: Vec<Member> = ranks.iter().filter_map(|(place, _)| u8::try_from(*place).ok()).map(Member).collect();
    let rules = |table: &TableRules| {
        let delta = |columns: &[String]| table.schema.columns.iter().map(|c| columns.contains(&c.name)).collect();
        let merge = table.merge.as_ref().map(|merge| delta(&merge.delta));
        let rules = Rules { strategy: table.strategy, on_delete: table.on_delete, merge, ranks: ranks.clone() };
        (table.schema.table.clone(), Arc::new(rules))
    };
    two_way.tables.iter().map(rules).collect()
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
            decided: Vec::new(),
            echoed: None,
            idle: 0,
            builder: RowBuilder::default(),
            scratch: String::new(),
        }
    }

    /// Keys of which something is under way to somebody.
    pub fn entries(&self) -> usize {
        self.configured.as_ref().map_or(0, |configured| configured.resolver.entries().len())
    }

    pub fn take_tasks(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks)
    }

    pub fn take_conflicts(&mut self) -> Vec<Conflict> {
        std::mem::take(&mut self.conflicts)
    }

    pub fn take_decided(&mut self) -> Vec<Decided> {
        std::mem::take(&mut self.decided)
    }

    /// Takes a record that is no duplicate.
    pub fn take(&mut self, at: Offset, record: Record) -> Result<(), EngineError> {
        let Record { origin, commit_time, body, .. } = record;
        let mut out = Outcome::default();
        match body {
            Body::Configuration(rules) => return self.configure(&rules),
            Body::Schema(_) | Body::Commit => return Ok(()),
            Body::Change(change) => self.change(at, &origin, commit_time, change, &mut out)?,
            Body::Marker(echo) => {
                if origin == self.target {
                    self.echoed = echo.offset.or(self.echoed);
                }
                let configured = self.configured()?;
                let member = known(&configured.rules, &origin)?;
                if let Some(echo) = resolver_echo(member, echo) {
                    configured.resolver.echo(at, &echo, &mut out);
                }
            }
            Body::Decision(decision) => {
                let key = decision.change.key()?.ok_or(sync_worker_core::value::Damaged("a decision without a key"))?;
                let key = RowKey { table: decision.change.table().clone(), key };
                let version = version(at, key, Origin::Person, commit_time, decision.change.after);
                let decision = Decision { version: Arc::new(version), seen: decision.seen };
                self.configured()?.resolver.decision(at, &decision, &mut out);
                self.decided.push((at, !out.sends.is_empty()));
            }
        }
        self.outcome(at, commit_time, out)
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
            self.configured = Some(Configured::new(rules.clone(), &self.target));
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
        configured.rules = rules.clone();
        configured.normalizers.clear();
        Ok(())
    }

    fn change(
        &mut self,
        at: Offset,
        origin: &DatabaseName,
        commit_time: i64,
        change: Change,
        out: &mut Outcome,
    ) -> Result<(), EngineError> {
        if change.op == Op::Truncate {
            let text = format!(
                "table {} was truncated at {origin}: a truncate says nothing about rows that others have written meanwhile; \
                 truncate it at the other members, or put the rows back, and seed the pipeline anew",
                change.table()
            );
            return Err(EngineError::Configuration(text));
        }
        let normalizer = self.normalizer(&change.schema)?;
        let place = |unfit| unfit_row(origin, &change.schema, unfit);
        let (builder, scratch) = (&mut self.builder, &mut self.scratch);
        let mut logical = |row: &Option<Row>| row.as_ref().map(|row| normalizer.row(row, builder, scratch)).transpose();
        let (before, after) = (logical(&change.before).map_err(place)?, logical(&change.after).map_err(place)?);
        let after = match (after, &before) {
            (Some(after), Some(before)) => Some(after.over(before)?),
            (after, _) => after,
        };
        for row in [&before, &after].into_iter().flatten() {
            if row.is_partial()? {
                return Err(EngineError::Configuration(format!(
                    "table {} at {origin} sends rows without all of their columns, which a two-way pipeline needs: set full row \
                     images there (REPLICA IDENTITY FULL, binlog_row_image = FULL) and seed the pipeline anew",
                    change.table()
                )));
            }
        }
        let schema = normalizer.schema();
        let table = change.table().clone();
        let key =
            |row: &Row| Ok::<_, EngineError>(RowKey { table: table.clone(), key: schema.key_of(row)?.detached() });
        let configured = self.configured.as_mut().ok_or(EngineError::Stopped("a change before the configuration"))?;
        let member = known(&configured.rules, origin)?;
        let resolver = &mut configured.resolver;
        let mut event = |key: RowKey, before: Option<Row>, after: Option<Row>| {
            let before_image = Image::of(before.as_ref());
            let version = version(at, key, Origin::Member(member), commit_time, after);
            let idle = version.image == before_image;
            if !idle {
                resolver.event(at, &Event { version: Arc::new(version), before, before_image }, out);
            }
            idle
        };
        match (change.op, before, after) {
            (Op::Read, _, Some(after)) => {
                let version = version(at, key(&after)?, Origin::Member(member), commit_time, Some(after));
                resolver.read(at, &Arc::new(Version { read: true, ..version }), out);
            }
            (Op::Update, None, _) => {
                return Err(EngineError::Configuration(format!(
                    "table {table} at {origin} sends updates without the row before, which a two-way pipeline needs"
                )));
            }
            (_, Some(before), Some(after)) => {
                let (old, new) = (key(&before)?, key(&after)?);
                if old == new {
                    self.idle += u64::from(event(new, Some(before), Some(after)));
                } else {
                    // A changed key is a delete and an insert.
                    event(old, Some(before), None);
                    event(new, None, Some(after));
                }
            }
            (_, Some(before), None) => drop(event(key(&before)?, Some(before), None)),
            (_, None, Some(after)) => drop(event(key(&after)?, None, Some(after))),
            (_, None, None) => {}
        }
        Ok(())
    }

    fn normalizer(&mut self, schema: &Schema) -> Result<Arc<Normalizer>, EngineError> {
        let configured = self.configured()?;
        if let Some(normalizer) = configured.normalizers.get(&schema.id) {
            return Ok(normalizer.clone());
        }
        let rules = configured.table(&schema.table)?;
        let logical = rules.schema.clone();
        let normalizer = match schema.engine {
            Engine::Mongodb => Normalizer::of_documents(logical, rules.document.clone()),
            Engine::Postgres | Engine::Mysql => Normalizer::new(schema, logical),
        };
        let normalizer = normalizer.map_err(|(column, refusal)| {
            EngineError::Configuration(format!("table {} column {column}: {refusal}", schema.table))
        })?;
        let normalizer = Arc::new(normalizer);
        configured.normalizers.insert(schema.id, normalizer.clone());
        Ok(normalizer)
    }

    /// Keeps what concerns this target, and all conflicts.
    fn outcome(&mut self, at: Offset, commit_time: i64, out: Outcome) -> Result<(), EngineError> {
        let Some(configured) = &self.configured else { return Ok(()) };
        for send in out.sends {
            let Some((_, expectation)) = send.to.into_iter().find(|(member, _)| Some(*member) == configured.own) else {
                continue;
            };
            if self.done >= Some(at) {
                continue;
            }
            let version = send.version;
            match expectation {
                Expectation::Keep => self.tasks.push(Task::Keep((version.key.table.clone(), version.key.key.clone()))),
                Expectation::Over(over) => {
                    let schema = configured.table(&version.key.table)?.schema.clone();
                    let write = Write { change: change_of(&version, schema)?, offset: at, parked: false, over: None };
                    self.tasks.push(Task::Write(write, over));
                }
            }
        }
        for conflict in out.conflicts {
            let entry = ledger_entry(&self.pipeline, self.partition, configured, conflict, commit_time)?;
            self.conflicts.push(entry);
        }
        Ok(())
    }
}

fn version(at: Offset, key: RowKey, origin: Origin, commit_time: i64, row: Option<Row>) -> Version {
    let by = match origin {
        Origin::Member(member) => Some(member),
        Origin::Merge | Origin::Person => None,
    };
    let (image, row) = (Image::of(row.as_ref()), row.map(|row| row.detached()));
    Version { id: VersionId::Record(at), key, origin, by, commit_time, row, image, read: false }
}

fn known(rules: &TwoWay, origin: &DatabaseName) -> Result<Member, EngineError> {
    member(rules, origin)
        .ok_or_else(|| EngineError::Configuration(format!("{origin} is on the log, but no member of the pipeline")))
}

fn unfit_row(origin: &DatabaseName, schema: &Schema, unfit: Unfit) -> EngineError {
    match unfit {
        Unfit::Damaged(damaged) => EngineError::Damaged(damaged),
        Unfit::Refused(column, refusal) => EngineError::Configuration(format!(
            "table {} column {column}: a value of {origin} has no place in the other members' columns: {refusal}",
            schema.table
        )),
    }
}

/// As a write in the logical columns.
fn change_of(version: &Version, schema: Arc<Schema>) -> Result<Change, EngineError> {
    Ok(match &version.row {
        Some(row) => Change { schema, op: Op::Create, before: None, after: Some(row.clone()) },
        None => {
            let before = Some(key_only(&schema, &version.key.key)?);
            Change { schema, op: Op::Delete, before, after: None }
        }
    })
}

/// None where nothing has been sent yet.
fn resolver_echo(member: Member, echo: echo::Echo) -> Option<Echo> {
    let offset = echo.offset?;
    let key = |table: TableName, key: Key| RowKey { table, key: key.detached() };
    let parked = echo.parked.into_iter().map(|one| {
        let reason = if one.differs { Reason::Differs } else { Reason::Refused };
        (key(one.table, one.key), one.offset, reason)
    });
    let unparked = echo.unparked.into_iter().map(|one| (key(one.table, one.key), one.written));
    Some(Echo { member, offset, parked: parked.collect(), unparked: unparked.collect() })
}

fn ledger_entry(
    pipeline: &PipelineName,
    partition: Partition,
    configured: &Configured,
    conflict: conflict::Conflict,
    time: i64,
) -> Result<Conflict, EngineError> {
    let key = &conflict.winner.key;
    let table = configured.table(&key.table)?;
    let contender = |version: &Version| Contender {
        by: version.by.map(|member| configured.name(member)),
        merged: version.origin == Origin::Merge,
        commit_time: version.commit_time,
        row: version.row.clone(),
    };
    let deletes = conflict.loser.as_ref().is_some_and(|loser| loser.row.is_none() != conflict.winner.row.is_none());
    let strategy = if deletes && table.on_delete != OnDelete::ByStrategy {
        table.on_delete.as_str()
    } else {
        table.strategy.as_str()
    };
    let column = conflict.column.and_then(|at| table.schema.columns.get(at)).map(|column| column.name.clone());
    Ok(Conflict {
        pipeline: pipeline.clone(),
        partition,
        offset: conflict.offset,
        table: key.table.clone(),
        key: key.key.clone(),
        column,
        kind: conflict.kind.as_str().to_owned(),
        strategy: strategy.to_owned(),
        winner: contender(&conflict.winner),
        loser: conflict.loser.as_deref().map(contender),
        at: conflict.at.map(|member| configured.name(member)),
        schema: table.schema.clone(),
        time,
        open: conflict.loser.is_some()
            && table.strategy == sync_worker_core::rules::Strategy::Manual
            && strategy == table.strategy.as_str(),
    })
}
