//! What a two-way pipeline does as a record on its bus, made of the configuration and of the members' tables.

use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::clocks::{self, Apart};
use crate::failure::{EngineError, FAILED_RETRY, timed};
use crate::metrics::ClockMetrics;
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

/// How long a member may take to tell its time.
const CLOCK_PATIENCE: Duration = Duration::from_secs(10);

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
    /// What is on the bus; none before.
    pub published: Option<Published>,
    /// Where there is a limit for clocks.
    pub metrics: Option<ClockMetrics>,
    pub shutdown: CancellationToken,
}

/// Rules that have been put on the bus.
pub struct Published {
    /// As configured.
    rules: TwoWay,
    /// Without what asks clocks.
    by_priority: bool,
}

impl Configure {
    /// Once every member has been looked at. False where it was told to stop before.
    pub async fn run(&mut self) -> bool {
        let shutdown = self.shutdown.clone();
        loop {
            let (error, wait) = tokio::select! {
                () = shutdown.cancelled() => return false,
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

    async fn publish(&mut self) -> Result<Offset> {
        let (mut tables, mut clocks) = (Tables::new(), Vec::new());
        for (name, database) in &self.members {
            let scope = self.plan.scope(name, &self.installation, self.spill.clone());
            let found = database.inspect(&scope, Role::Source).await?;
            tables.insert(name.clone(), found.tables);
            clocks.extend(found.clock_ahead.map(|ahead| (ahead, name.clone())));
        }
        let rules = rules(&self.plan, &self.two_way, &tables)?;
        self.same_members(&rules).await?;
        let apart = self.limit().zip(clocks::apart(&clocks));
        let off = apart.as_ref().is_some_and(|(limit, apart)| clocks::are_off(apart, *limit, false));
        let offset = self.put(rules, off).await?;
        if let Some((limit, apart)) = apart {
            self.show(&apart);
            if off {
                self.tell(&apart, limit, off);
            }
        }
        Ok(offset)
    }

    async fn put(&mut self, rules: TwoWay, by_priority: bool) -> Result<Offset> {
        let effective = if by_priority { clocks::by_priority(rules.clone()) } else { rules.clone() };
        let record = Record::of_nobody(now_micros(), Body::Configuration(Arc::new(effective)));
        let offset = self.bus.publish(PARTITION, vec![record]).await?.await?;
        self.published = Some(Published { rules, by_priority });
        if let Some(metrics) = &self.metrics {
            metrics.off.set(i64::from(by_priority));
        }
        Ok(offset)
    }

    /// How far clocks may be apart, where that matters.
    fn limit(&self) -> Option<Duration> {
        self.two_way.clock_limit.filter(|_| clocks::decide(&self.plan))
    }

    fn show(&self, apart: &Apart) {
        if let Some(metrics) = &self.metrics {
            metrics.apart.set(apart.seconds());
        }
    }

    fn tell(&self, apart: &Apart, limit: Duration, off: bool) {
        let (Apart { slow, fast, .. }, seconds) = (apart, apart.seconds());
        if off {
            tracing::error!(pipeline = %self.plan.name, %slow, %fast, seconds, ?limit, "the members' clocks are too far apart: what goes by commit times goes by priority until they are near again; let them follow one time server");
        } else {
            tracing::info!(pipeline = %self.plan.name, %slow, %fast, seconds, ?limit, "the members' clocks are near again: commit times decide");
        }
    }

    /// Follows the members' clocks where there is a limit for them, until it is told to stop.
    pub async fn watch_clocks(mut self) {
        let Some(limit) = self.limit() else { return };
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(clocks::LOOK) => {}
            }
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.look_at_clocks(limit) => looked,
            };
            if let Err(error) = looked {
                tracing::warn!(pipeline = %self.plan.name, %error, again_in = ?clocks::LOOK, "the members' clocks were not followed");
            }
        }
    }

    /// Nothing changes while a member can't be asked: it may be the one whose clock is off.
    async fn look_at_clocks(&mut self, limit: Duration) -> Result<()> {
        let Some(Published { rules, by_priority }) = &self.published else { return Ok(()) };
        let mut clocks = Vec::with_capacity(self.members.len());
        for (name, database) in &self.members {
            let ahead = timed("a look at a member's clock", CLOCK_PATIENCE, database.clock_ahead()).await?;
            clocks.extend(ahead.map(|ahead| (ahead, name.clone())));
        }
        let Some(apart) = clocks::apart(&clocks).filter(|_| clocks.len() == self.members.len()) else { return Ok(()) };
        self.show(&apart);
        let off = clocks::are_off(&apart, limit, *by_priority);
        if off != *by_priority {
            self.put(rules.clone(), off).await?;
            self.tell(&apart, limit, off);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::BatchLimits;
    use crate::metrics::Metrics;
    use crate::pipeline::{Resolution, Table};
    use crate::retry::RetryPolicy;
    use crate::snapshot::SnapshotSettings;
    use sync_worker_core::rules::{Strategy, TwoWayMember};
    use sync_worker_testkit::memory::{MemoryBus, MemoryDatabase, MemoryStore, schema};

    const SECOND: i64 = 1_000_000;

    struct Members {
        crm: MemoryDatabase,
        shop: MemoryDatabase,
        bus: Arc<MemoryBus>,
        metrics: ClockMetrics,
    }

    impl Members {
        fn new() -> Self {
            let [crm, shop] = ["crm", "shop"].map(|name| MemoryDatabase::new(name, &[schema("t")]));
            crm.set_clock_ahead(Some(0));
            shop.set_clock_ahead(Some(0));
            let metrics = Metrics::new().unwrap().clocks("customers");
            Self { crm, shop, bus: Arc::new(MemoryBus::new("log", 1)), metrics }
        }

        fn configure(&self, clock_limit: Option<Duration>, shutdown: &CancellationToken) -> Configure {
            let names = ["crm", "shop"].map(DatabaseName::new);
            let members = names.map(|name| TwoWayMember { name, priority: 0 }).to_vec();
            let two_way = TwoWayPlan { members, seed: Seed::None, clock_limit };
            let resolution = Resolution::default();
            let table = Table { name: "t".into(), at: BTreeMap::new(), document: Default::default(), resolution };
            let plan = Plan {
                name: "shared".into(),
                from: "crm".into(),
                to: vec!["shop".into()],
                two_way: Some(two_way.clone()),
                tables: vec![table],
                snapshot: SnapshotSettings::default(),
                limits: BatchLimits::default(),
                retry: RetryPolicy::default(),
            };
            let member = |database: &MemoryDatabase| -> (DatabaseName, Arc<dyn Database>) {
                (database.name().clone(), Arc::new(database.clone()))
            };
            Configure {
                plan,
                two_way,
                members: BTreeMap::from([member(&self.crm), member(&self.shop)]),
                bus: self.bus.clone(),
                resolvers: Arc::new(MemoryStore::default()),
                installation: InstallationId::new("i"),
                spill: PathBuf::new(),
                published: None,
                metrics: Some(self.metrics.clone()),
                shutdown: shutdown.clone(),
            }
        }

        /// The table's strategy in each configuration on the bus.
        fn strategies(&self) -> Vec<Strategy> {
            let of = |body: &Body| match body {
                Body::Configuration(rules) => Some(rules.tables[0].strategy),
                _ => None,
            };
            self.bus.records().iter().filter_map(|delivered| of(&delivered.record.body)).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_go_too_far_apart_decide_nothing_until_they_are_near_again() {
        let members = Members::new();
        let shutdown = CancellationToken::new();
        let mut configure = members.configure(Some(Duration::from_secs(5)), &shutdown);
        assert!(configure.run().await);
        let watching = tokio::spawn(configure.watch_clocks());
        let mut expected = vec![Strategy::Timestamp];
        let steps = [
            (Some(-5 * SECOND), None),
            (Some(5 * SECOND + 1), Some(Strategy::Priority)),
            // A member that does not tell changes nothing.
            (None, None),
            (Some(3 * SECOND), None),
            (Some(SECOND), Some(Strategy::Timestamp)),
            (Some(4 * SECOND), None),
        ];
        for (ahead, published) in steps {
            members.shop.set_clock_ahead(ahead);
            tokio::time::sleep(2 * clocks::LOOK).await;
            expected.extend(published);
            assert_eq!(members.strategies(), expected, "{ahead:?}");
            assert_eq!(members.metrics.off.get() == 1, expected.last() == Some(&Strategy::Priority), "{ahead:?}");
        }
        assert!((members.metrics.apart.get() - 4.0).abs() < 1e-6);
        shutdown.cancel();
        watching.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_are_off_at_the_start_are_told_by_the_first_record_and_without_a_limit_by_none() {
        for (limit, strategy) in [(Some(Duration::from_secs(5)), Strategy::Priority), (None, Strategy::Timestamp)] {
            let members = Members::new();
            members.crm.set_clock_ahead(Some(6 * SECOND));
            let mut configure = members.configure(limit, &CancellationToken::new());
            assert!(configure.run().await);
            assert_eq!(members.strategies(), [strategy]);
        }
    }
}
