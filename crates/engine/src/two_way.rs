//! What a two-way pipeline does as a record on its bus, made of the configuration and of the members' tables.

use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::failure::{EngineError, FAILED_RETRY};
use crate::pipeline::{Plan, TwoWayPlan};
use crate::resolve::checkpoint;
use crate::seeding::Seed;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::bus::Bus;
use sync_worker_core::convert::{Class, Conversion};
use sync_worker_core::database::{Database, Finding, Role};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::ledger::ResolverStore;
use sync_worker_core::logical::{Disagreement, agree};
use sync_worker_core::name::{DatabaseName, InstallationId, TableName};
use sync_worker_core::record::{Body, Offset, Record};
use sync_worker_core::rules::{TableRules, TwoWay};
use sync_worker_core::schema::Schema;
use sync_worker_core::store::TargetId;
use sync_worker_core::types::ColumnType;
use tokio_util::sync::CancellationToken;

/// Between two looks at a member that can't be reached.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The tables of every member as they are now.
pub type Tables = BTreeMap<DatabaseName, Vec<Arc<Schema>>>;

/// The rules of a pipeline over its members' tables; an error where they do not agree on a table's columns.
pub fn rules(plan: &Plan, two_way: &TwoWayPlan, tables: &Tables) -> Result<TwoWay, EngineError> {
    let rules = plan.tables.iter().map(|table| {
        let agreed = agree(&of(tables, &table.name)).map_err(|problem| {
            let Disagreement { member, column, problem } = problem;
            EngineError::Configuration(format!("table {} column {column} at {member}: {problem}", table.name))
        })?;
        let schema =
            agreed.ok_or_else(|| EngineError::Configuration(format!("table {} is at no member", table.name)))?;
        let resolution = &table.resolution;
        let delta = resolution.merge.iter().flat_map(|merge| &merge.delta);
        if let Some(column) = delta.into_iter().find(|column| schema.column(column).is_none()) {
            let text = format!("table {}: delta names column {column}, which the members do not share", table.name);
            return Err(EngineError::Configuration(text));
        }
        let counts = |name: &&String| {
            let column = schema.column(name).map(|at| &schema.columns[at]);
            column.is_some_and(|column| matches!(column.kind, ColumnType::Int { .. } | ColumnType::Decimal { .. }))
        };
        if let Some(column) = resolution.merge.iter().flat_map(|merge| &merge.delta).find(|name| !counts(name)) {
            let text = format!(
                "table {}: delta names column {column}, which is neither a whole nor a decimal number",
                table.name
            );
            return Err(EngineError::Configuration(text));
        }
        let grouped = resolution.merge.iter().flat_map(|merge| &merge.groups).flat_map(|group| &group.columns);
        for column in grouped {
            let problem = match schema.column(column) {
                None => "which the members do not share",
                Some(at) if schema.key.contains(&at) => "which is part of the key",
                Some(_) => continue,
            };
            let text = format!("table {}: groups names column {column}, {problem}", table.name);
            return Err(EngineError::Configuration(text));
        }
        if let Some(name) = &resolution.timestamp_column {
            let kind = schema.column(name).map(|at| &schema.columns[at].kind);
            if !matches!(kind, Some(ColumnType::Timestamp { .. } | ColumnType::TimestampTz { .. })) {
                let text = format!(
                    "table {}: timestamp_column names {name}, which is no column of date and time that the members share",
                    table.name
                );
                return Err(EngineError::Configuration(text));
            }
        }
        Ok(TableRules {
            schema,
            strategy: resolution.strategy,
            on_delete: resolution.on_delete,
            merge: resolution.merge.clone(),
            timestamp_column: resolution.timestamp_column.clone(),
            document: table.document.clone(),
        })
    });
    let merged_seeds = two_way.seed == Seed::Merge;
    Ok(TwoWay { members: two_way.members.clone(), tables: rules.collect::<Result<_, _>>()?, merged_seeds })
}

fn of(tables: &Tables, name: &TableName) -> Vec<(DatabaseName, Arc<Schema>)> {
    let at = |(member, schemas): (&DatabaseName, &Vec<Arc<Schema>>)| {
        let schema = schemas.iter().find(|schema| schema.table == *name)?;
        Some((member.clone(), schema.clone()))
    };
    tables.iter().filter_map(at).collect()
}

/// Where members' tables do not fit each other two-way.
pub fn findings(plan: &Plan, two_way: &TwoWayPlan, tables: &Tables) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &plan.tables {
        let members = of(tables, &table.name);
        let name = |member: &DatabaseName| table.at.get(member).cloned().unwrap_or_else(|| table.name.to_string());
        for (member, schema) in &members {
            for (other, theirs) in members.iter().filter(|(other, _)| other != member) {
                for column in &schema.columns {
                    let Some(there) = theirs.column(&column.name).map(|at| &theirs.columns[at]) else { continue };
                    let conversion = Conversion::new(&column.kind, &there.kind);
                    let lossy = conversion.is_ok_and(|c| c.class_between(schema.engine, theirs.engine) == Class::Lossy);
                    if lossy && !table.resolution.lossy.contains(&column.name) {
                        findings.push(Finding {
                            place: format!("databases.{other} table {} column {}", name(other), column.name),
                            problem: format!(
                                "{} does not hold every value of {} at {member}: such a row could never become equal",
                                there.type_name, column.type_name
                            ),
                            cure: format!(
                                "widen the column, or name it in the table's `lossy` list of pipeline {}",
                                plan.name
                            ),
                            advice: false,
                        });
                    }
                }
            }
        }
    }
    if findings.is_empty()
        && tables.len() == two_way.members.len()
        && let Err(error) = rules(plan, two_way, tables)
    {
        findings.push(Finding {
            place: format!("pipelines.{}", plan.name),
            problem: error.to_string(),
            cure: "give the members' tables columns of the same types".to_owned(),
            advice: false,
        });
    }
    findings
}

/// Puts the configuration on the bus.
pub struct Configure {
    pub plan: Plan,
    pub two_way: TwoWayPlan,
    pub members: BTreeMap<DatabaseName, Arc<dyn Database>>,
    pub bus: Arc<dyn Bus>,
    pub resolvers: Arc<dyn ResolverStore>,
    pub installation: InstallationId,
    pub spill: PathBuf,
    pub shutdown: CancellationToken,
}

impl Configure {
    /// Once every member has been looked at. False where it was told to stop before.
    pub async fn run(self) -> bool {
        loop {
            let (error, wait) = tokio::select! {
                () = self.shutdown.cancelled() => return false,
                outcome = self.publish() => match outcome {
                    Ok(offset) => {
                        tracing::info!(pipeline = %self.plan.name, offset = offset.0, "the configuration is on the log");
                        return true;
                    }
                    Err(error) if error.class() == ErrorClass::Transient => (error, LOOK_AGAIN),
                    Err(error) => (error, FAILED_RETRY),
                },
            };
            tracing::warn!(pipeline = %self.plan.name, %error, again_in = ?wait, "the configuration is not on the log yet");
            tokio::select! {
                () = self.shutdown.cancelled() => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// A record with other members would stop every applier for good.
    async fn same_members(&self, rules: &TwoWay) -> Result<()> {
        for member in &rules.members {
            let pipeline = self.plan.name.clone();
            let target = TargetId { pipeline, database: member.name.clone(), partition: PARTITION };
            let Some(newest) = self.resolvers.resolver_checkpoints(&target).await?.pop() else { continue };
            let before = checkpoint::rules(&newest.state).map_err(EngineError::Damaged)?;
            let names = |rules: &TwoWay| rules.members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
            if names(&before) != names(rules) {
                let before: Vec<String> = names(&before).iter().map(ToString::to_string).collect();
                let text = format!(
                    "the members of pipeline {} were others when it began ({}); put them back, or give the pipeline with other members \
                     another name",
                    self.plan.name,
                    before.join(", ")
                );
                return Err(EngineError::Configuration(text).into());
            }
        }
        Ok(())
    }

    async fn publish(&self) -> Result<Offset> {
        let mut tables = Tables::new();
        for (name, database) in &self.members {
            let scope = self.plan.scope(name, &self.installation, self.spill.clone());
            tables.insert(name.clone(), database.inspect(&scope, Role::Source).await?.tables);
        }
        let rules = Arc::new(rules(&self.plan, &self.two_way, &tables)?);
        self.same_members(&rules).await?;
        let record = Record::of_nobody(now_micros(), Body::Configuration(rules));
        self.bus.publish(PARTITION, vec![record]).await?.await
    }
}
