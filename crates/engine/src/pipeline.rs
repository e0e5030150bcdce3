//! A pipeline: its tasks, started together, each on its own when one of them fails (invariant 10).

use crate::apply::Apply;
use crate::assemble::BatchLimits;
use crate::breaker::Breaker;
use crate::capture::{self, Capture, PARTITION};
use crate::clock::now_micros;
use crate::clocks;
use crate::decide::Decided;
pub use crate::decide::{Choice, Over, stands};
use crate::letters;
use crate::metrics::Metrics;
use crate::pace::{Offsets, Pace, Progress};
use crate::preflight::Owed;
use crate::publish::Shown;
use crate::resolve::applier::TwoWayParts;
use crate::retry::RetryPolicy;
use crate::seeding::{Seed, Seeding};
use crate::snapshot::{Copied, SnapshotSettings};
use crate::status::{Board, State, Task};
use crate::two_way::Configure;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use sync_worker_core::bus::Bus;
use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::document::mapping::DocumentMapping;
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{Ledger, Recorded, ResolverStore, Settled, Wanted};
use sync_worker_core::name::{DatabaseName, InstallationId, PipelineName, TableName};
use sync_worker_core::record::{Body, Offset, Record};
use sync_worker_core::row::Key;
use sync_worker_core::rules::{Merge, OnDelete, Strategy, TwoWayMember};
use sync_worker_core::store::{CaptureId, Deferred, RetryQueue, Store, TargetId};
use sync_worker_core::types::Engine;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A table of a pipeline.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: TableName,
    /// What it is called at each member.
    pub at: BTreeMap<DatabaseName, String>,
    /// How its rows are documents, where MongoDB is one of the two ends.
    pub document: DocumentMapping,
    /// How its conflicts are decided, in a two-way pipeline.
    pub resolution: Resolution,
}

/// How conflicts of a table are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub strategy: Strategy,
    pub on_delete: OnDelete,
    pub merge: Option<Merge>,
    /// The column whose time stands for that of a row's commit.
    pub timestamp_column: Option<String>,
    /// Columns that may be of types that do not hold all of each other's values.
    pub lossy: Vec<String>,
}

impl Default for Resolution {
    fn default() -> Self {
        Self {
            strategy: Strategy::Timestamp,
            on_delete: OnDelete::ByStrategy,
            merge: None,
            timestamp_column: None,
            lossy: Vec::new(),
        }
    }
}

/// What makes a pipeline two-way.
#[derive(Clone, Debug)]
pub struct TwoWayPlan {
    /// In the order of their names.
    pub members: Vec<TwoWayMember>,
    pub seed: Seed,
    /// Members' clocks that are further apart decide nothing: priorities do.
    pub clock_limit: Option<Duration>,
}

/// A pipeline as its configuration describes it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: PipelineName,
    /// The source. Two-way, the member that the others are compared with: the one that they are seeded from, else the
    /// first by name.
    pub from: DatabaseName,
    /// The targets. Two-way, the other members.
    pub to: Vec<DatabaseName>,
    pub two_way: Option<TwoWayPlan>,
    pub tables: Vec<Table>,
    pub snapshot: SnapshotSettings,
    pub limits: BatchLimits,
    pub retry: RetryPolicy,
}

impl Plan {
    /// Whose changes are captured.
    pub fn sources(&self) -> impl Iterator<Item = &DatabaseName> {
        let others = self.two_way.iter().flat_map(|_| &self.to);
        std::iter::once(&self.from).chain(others)
    }

    /// Who is written to.
    pub fn targets(&self) -> impl Iterator<Item = &DatabaseName> {
        self.to.iter().chain(self.two_way.as_ref().map(|_| &self.from))
    }

    /// What the pipeline wants of one of its members.
    pub fn scope(&self, database: &DatabaseName, installation: &InstallationId, spill: PathBuf) -> Scope {
        let at = |table: &Table| TableAt {
            table: table.name.clone(),
            name: table.at.get(database).cloned().unwrap_or_else(|| table.name.to_string()),
            document: table.document.clone(),
        };
        Scope {
            installation: installation.clone(),
            pipeline: self.name.clone(),
            tables: self.tables.iter().map(at).collect(),
            two_way: self.two_way.is_some(),
            spill: spill.join(self.name.as_str()).join(database.as_str()),
        }
    }
}

/// A database with the circuit breaker that its tasks share.
#[derive(Clone)]
pub struct Member {
    pub database: Arc<dyn Database>,
    pub breaker: Arc<Breaker>,
}

/// What a pipeline runs on.
#[derive(Clone)]
pub struct Parts {
    pub members: BTreeMap<DatabaseName, Member>,
    /// The log of this pipeline.
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn RetryQueue>,
    pub ledger: Arc<dyn Ledger>,
    pub resolvers: Arc<dyn ResolverStore>,
    pub board: Board,
    pub metrics: Metrics,
    pub installation: InstallationId,
    pub spill: PathBuf,
    /// Members that could not be looked at yet.
    pub unseen: BTreeSet<DatabaseName>,
    pub shutdown: CancellationToken,
}

impl Parts {
    /// The look that a member's task owes before its first session.
    fn owed(&self, plan: &Plan, database: &DatabaseName, targets: &[DatabaseName]) -> Option<Owed> {
        let members = self.members.iter().map(|(name, member)| (name.clone(), member.database.clone()));
        self.unseen.contains(database).then(|| Owed {
            plan: Plan { to: targets.to_vec(), ..plan.clone() },
            members: members.collect(),
            database: database.clone(),
            installation: self.installation.clone(),
            spill: self.spill.clone(),
        })
    }
}

/// A running pipeline.
pub struct Pipeline {
    pub plan: Plan,
    pub bus: Arc<dyn Bus>,
    queue: Arc<dyn RetryQueue>,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// What became of people's decisions.
    pub(crate) decided: broadcast::Sender<Decided>,
    /// Who takes part, and in what.
    pub(crate) members: BTreeMap<DatabaseName, (Arc<dyn Database>, Scope)>,
    captures: BTreeMap<DatabaseName, mpsc::Sender<capture::Command>>,
    appliers: BTreeMap<DatabaseName, mpsc::Sender<letters::Command>>,
    /// With merged seeds, the tables whose rows have all been copied.
    seeded: Option<watch::Receiver<BTreeSet<TableName>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("pipeline {pipeline} has no target {database}")]
    NoTarget { pipeline: PipelineName, database: DatabaseName },
    #[error("pipeline {pipeline} has no member {member}")]
    NoMember { pipeline: PipelineName, member: DatabaseName },
    #[error("{task} of pipeline {0} is not running: see `sync-worker status`", .pipeline)]
    NotRunning { pipeline: PipelineName, task: &'static str },
    #[error("{0}")]
    Failed(String),
}

impl Pipeline {
    /// Starts the tasks of a pipeline on `tasks`.
    pub async fn start(plan: Plan, parts: Parts, tasks: &mut JoinSet<()>) -> Result<Self> {
        // Nobody's records are removed before it has said what it needs, not even those of a target that can't be
        // reached yet.
        let first = parts.bus.bounds(PARTITION).await?.first;
        for target in plan.targets() {
            parts.bus.retain(PARTITION, &format!("apply:{target}"), first).await?;
        }
        let begun = match &plan.two_way {
            Some(two_way) => configure(&plan, two_way, &parts, tasks).await?,
            None => None,
        };
        let offsets = Offsets::new(vec![0; plan.targets().count()]);
        let place = |database: &DatabaseName| plan.targets().position(|target| target == database);
        let mut captures = BTreeMap::new();
        let mut shown_by = BTreeMap::new();
        let (copied, _) = watch::channel(BTreeSet::new());
        for source in plan.sources() {
            let Some(member) = parts.members.get(source) else { continue };
            let (capture, commands) = mpsc::channel(16);
            let (shown, seen) = watch::channel(Shown::default());
            let seeds = plan.two_way.as_ref().is_none_or(|two_way| two_way.seed.is_of(source));
            let task = Capture {
                id: CaptureId { pipeline: plan.name.clone(), database: source.clone() },
                scope: plan.scope(source, &parts.installation, parts.spill.clone()),
                database: member.database.clone(),
                bus: parts.bus.clone(),
                store: parts.store.clone(),
                breaker: member.breaker.clone(),
                status: parts.board.task(plan.name.as_str(), source.as_str(), Task::Capture),
                metrics: parts.metrics.capture(plan.name.as_str(), source.as_str()),
                snapshot: SnapshotSettings { initial: plan.snapshot.initial && seeds, ..plan.snapshot.clone() },
                begun_with: plan.two_way.as_ref().is_some_and(|two_way| two_way.seed == Seed::Member(source.clone())),
                owed: parts.owed(&plan, source, &plan.to),
                shown,
                pace: plan.two_way.as_ref().and_then(|_| Some(Pace::new(&offsets, place(source)?))),
                copied: copied.clone(),
                commands,
                shutdown: parts.shutdown.clone(),
            };
            supervise(tasks, task.status.clone(), after(begun.clone(), task.run()));
            captures.insert(source.clone(), capture);
            shown_by.insert(source.clone(), seen);
        }
        let seeded = seeding(&plan, &parts, begun.clone(), copied, tasks);
        let documents = parts.members.get(&plan.from).is_some_and(|from| from.database.engine() == Engine::Mongodb);
        let (decided, _) = broadcast::channel(64);
        let mut appliers = BTreeMap::new();
        for (place, target) in plan.targets().enumerate() {
            let Some(member) = parts.members.get(target) else { continue };
            let (sender, commands) = mpsc::channel(16);
            let two_way = plan.two_way.as_ref().zip(shown_by.remove(target)).map(|(_, shown)| TwoWayParts {
                ledger: parts.ledger.clone(),
                resolvers: parts.resolvers.clone(),
                decided: decided.clone(),
                // Apart from the sources' folders, which each of them empties.
                spill: parts.spill.join(".under-way").join(plan.name.as_str()).join(target.as_str()),
                shown,
                progress: Progress::new(&offsets, place),
            });
            let task = Apply {
                id: TargetId { pipeline: plan.name.clone(), database: target.clone(), partition: PARTITION },
                scope: plan.scope(target, &parts.installation, parts.spill.clone()),
                database: member.database.clone(),
                // Two-way, writes are rows of the logical table already.
                documents: documents && plan.two_way.is_none() && member.database.engine() != Engine::Mongodb,
                bus: parts.bus.clone(),
                queue: parts.queue.clone(),
                breaker: member.breaker.clone(),
                status: parts.board.task(plan.name.as_str(), target.as_str(), Task::Apply),
                metrics: parts.metrics.apply(plan.name.as_str(), target.as_str()),
                next: Arc::new(AtomicU64::new(u64::MAX)),
                limits: plan.limits.clone(),
                retry: plan.retry.clone(),
                owed: parts.owed(&plan, target, std::slice::from_ref(target)),
                two_way,
                commands,
                shutdown: parts.shutdown.clone(),
            };
            supervise(tasks, task.status.clone(), after(begun.clone(), task.run()));
            appliers.insert(target.clone(), sender);
        }
        let taking_part = |name: &DatabaseName| {
            let scope = plan.scope(name, &parts.installation, parts.spill.clone());
            Some((name.clone(), (parts.members.get(name)?.database.clone(), scope)))
        };
        let members = std::iter::once(&plan.from).chain(&plan.to).filter_map(taking_part).collect();
        let (ledger, bus, queue) = (parts.ledger, parts.bus, parts.queue);
        Ok(Self { plan, bus, queue, ledger, decided, members, captures, appliers, seeded })
    }

    /// Reads keys at the source, or at a member that is named, and puts them on the bus as they are. Returns once they are
    /// durable there. A two-way pipeline wants it named: no member knows which of two rows that differ is right.
    pub async fn repair(&self, from: Option<DatabaseName>, table: TableName, keys: Vec<Key>) -> Result<u64, Refusal> {
        let from = match from {
            Some(from) => from,
            None if self.plan.two_way.is_none() => self.plan.from.clone(),
            None => {
                let text = "which of two rows that differ is right, no member knows in a two-way pipeline; name the one to copy from";
                return Err(Refusal::Failed(text.to_owned()));
            }
        };
        if self.seeded.as_ref().is_some_and(|seeded| !seeded.borrow().contains(&table)) {
            let text =
                format!("the rows of table {table} are still being copied from all members; repair it after that");
            return Err(Refusal::Failed(text));
        }
        let (reply, outcome) = oneshot::channel();
        let command = capture::Command::Repair { table, keys, reply };
        let gone = || Refusal::NotRunning { pipeline: self.plan.name.clone(), task: "capture" };
        let capture = self.captures.get(&from).ok_or_else(gone)?;
        capture.send(command).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map_err(Refusal::Failed)
    }

    /// Has every applier of a two-way pipeline take the table's changes again, from here on. What came meanwhile is not made
    /// up for: a repair does that.
    pub async fn resume(&self, table: TableName) -> Result<(), Refusal> {
        let failed = |text: String| Refusal::Failed(text);
        if self.plan.two_way.is_none() || !self.plan.tables.iter().any(|one| one.name == table) {
            return Err(failed(format!("{} is no two-way pipeline with a table {table}", self.plan.name)));
        }
        let record = Record::of_nobody(now_micros(), Body::Resume(table.clone()));
        let receipt = self.bus.publish(PARTITION, vec![record]).await.map_err(|error| failed(error.to_string()))?;
        receipt.await.map_err(|error| failed(error.to_string()))?;
        // Their keys go on with the table; the entries would wait for a decision that nobody needs.
        self.close(&table, &Settled::FlipFlops).await
    }

    /// The versions that a target has not taken: `dead` ones, or those that still wait for a retry.
    pub async fn parked(&self, target: &DatabaseName, dead: bool, limit: usize) -> Result<Vec<Deferred>, Refusal> {
        self.applier(target)?;
        let id = TargetId { pipeline: self.plan.name.clone(), database: target.clone(), partition: PARTITION };
        self.queue.list(&id, dead, limit).await.map_err(|error| Refusal::Failed(error.to_string()))
    }

    /// Tries dead letters of a target again: all, or the one at an offset. Returns how many were tried.
    pub async fn retry(&self, target: &DatabaseName, offset: Option<Offset>) -> Result<u64, Refusal> {
        self.ask(target, |reply| letters::Command::Retry { offset, reply }).await
    }

    /// Gives dead letters of a target up: all, or the one at an offset. Returns how many.
    pub async fn drop_letters(&self, target: &DatabaseName, offset: Option<Offset>) -> Result<u64, Refusal> {
        self.ask(target, |reply| letters::Command::Drop { offset, reply }).await
    }

    /// Entries of the conflict ledger, the newest first.
    pub async fn conflicts(&self, wanted: &Wanted) -> Result<Vec<Recorded>, Refusal> {
        let found = self.ledger.conflicts(&self.plan.name, wanted).await;
        found.map_err(|error| Refusal::Failed(error.to_string()))
    }

    pub async fn conflict(&self, id: i64) -> Result<Option<Recorded>, Refusal> {
        let found = self.ledger.conflict(&self.plan.name, id).await;
        found.map_err(|error| Refusal::Failed(error.to_string()))
    }

    async fn ask(
        &self,
        target: &DatabaseName,
        command: impl FnOnce(oneshot::Sender<std::result::Result<u64, String>>) -> letters::Command,
    ) -> Result<u64, Refusal> {
        let gone = || Refusal::NotRunning { pipeline: self.plan.name.clone(), task: "apply" };
        let (reply, outcome) = oneshot::channel();
        self.applier(target)?.send(command(reply)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map_err(Refusal::Failed)
    }

    fn applier(&self, target: &DatabaseName) -> Result<&mpsc::Sender<letters::Command>, Refusal> {
        let none = || Refusal::NoTarget { pipeline: self.plan.name.clone(), database: target.clone() };
        self.appliers.get(target).ok_or_else(none)
    }
}

/// Told once the configuration is on the log; where that holds one already, tasks wait for so long.
type Begun = (watch::Receiver<bool>, Option<Duration>);

/// How long the tasks of a pipeline that has run before wait for its configuration: it takes a look at every member, and one
/// that can't be reached holds up no other for longer.
const CONFIGURED_WITHIN: Duration = Duration::from_secs(10);

/// Puts the configuration on the log, for which all tasks wait: what a new one brings must not come before it.
async fn configure(plan: &Plan, two_way: &TwoWayPlan, parts: &Parts, tasks: &mut JoinSet<()>) -> Result<Option<Begun>> {
    let bounds = parts.bus.bounds(PARTITION).await?;
    let databases = two_way.members.iter().filter_map(|member| {
        let database = parts.members.get(&member.name)?.database.clone();
        Some((member.name.clone(), database))
    });
    let mut configure = Configure {
        plan: plan.clone(),
        two_way: two_way.clone(),
        members: databases.collect(),
        bus: parts.bus.clone(),
        resolvers: parts.resolvers.clone(),
        installation: parts.installation.clone(),
        spill: parts.spill.clone(),
        published: None,
        metrics: two_way.clock_limit.filter(|_| clocks::decide(plan)).map(|_| parts.metrics.clocks(plan.name.as_str())),
        shutdown: parts.shutdown.clone(),
    };
    let (sender, begun) = watch::channel(false);
    tasks.spawn(async move {
        let done = configure.run().await;
        // Nobody may wait for it.
        sender.send(done).unwrap_or_default();
        configure.watch_clocks().await;
    });
    Ok(Some((begun, (bounds.next > Offset(0)).then_some(CONFIGURED_WITHIN))))
}

/// With merged seeds, has the log told of each table that all its rows are there. Returns those of which it has been told.
fn seeding(
    plan: &Plan,
    parts: &Parts,
    begun: Option<Begun>,
    copied: watch::Sender<Copied>,
    tasks: &mut JoinSet<()>,
) -> Option<watch::Receiver<BTreeSet<TableName>>> {
    let (begun, _) = begun?;
    let two_way = plan.two_way.as_ref().filter(|two_way| two_way.seed == Seed::Merge)?;
    let members = two_way.members.iter().map(|member| member.name.clone()).collect();
    let (seeded, told) = watch::channel(BTreeSet::new());
    let pipeline = plan.name.clone();
    let seeding = Seeding { pipeline, members, begun, copied, seeded, bus: parts.bus.clone() };
    let shutdown = parts.shutdown.clone();
    tasks.spawn(async move { shutdown.run_until_cancelled(seeding.run()).await.unwrap_or_default() });
    Some(told)
}

/// Runs a task once the pipeline has begun.
async fn after(begun: Option<Begun>, task: impl Future<Output = ()>) {
    if let Some((mut begun, within)) = begun {
        let told = begun.wait_for(|begun| *begun);
        let known = match within {
            Some(within) => tokio::time::timeout(within, told).await.map_or(true, |told| told.is_ok()),
            None => told.await.is_ok(),
        };
        // Told to stop before.
        if !known {
            return;
        }
    }
    task.await;
}

/// A task that panics shows as failed; the others go on.
fn supervise(tasks: &mut JoinSet<()>, status: crate::status::Entry, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        if tokio::spawn(task).await.is_err() {
            tracing::error!("a task ended by a panic");
            status.set(State::Failed, "ended by a panic; see the log, and restart the worker");
        }
    });
}
