//! A pipeline: its tasks, started together, each on its own when one of them fails (invariant 10).

use crate::apply::Apply;
use crate::assemble::BatchLimits;
use crate::breaker::Breaker;
use crate::capture::{self, Capture, PARTITION};
use crate::letters;
use crate::metrics::Metrics;
use crate::preflight::Owed;
use crate::retry::RetryPolicy;
use crate::snapshot::SnapshotSettings;
use crate::status::{Board, State, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_core::bus::Bus;
use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::document::mapping::DocumentMapping;
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, InstallationId, PipelineName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::store::{CaptureId, Deferred, RetryQueue, Store, TargetId};
use sync_worker_core::types::Engine;
use tokio::sync::{mpsc, oneshot};
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
}

/// A one-way pipeline as its configuration describes it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: PipelineName,
    pub from: DatabaseName,
    pub to: Vec<DatabaseName>,
    pub tables: Vec<Table>,
    pub snapshot: SnapshotSettings,
    pub limits: BatchLimits,
    pub retry: RetryPolicy,
}

impl Plan {
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
    capture: mpsc::Sender<capture::Command>,
    appliers: BTreeMap<DatabaseName, mpsc::Sender<letters::Command>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("pipeline {pipeline} has no target {database}")]
    NoTarget { pipeline: PipelineName, database: DatabaseName },
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
        for target in &plan.to {
            parts.bus.retain(PARTITION, &format!("apply:{target}"), first).await?;
        }
        let (capture, commands) = mpsc::channel(16);
        if let Some(member) = parts.members.get(&plan.from) {
            let task = Capture {
                id: CaptureId { pipeline: plan.name.clone(), database: plan.from.clone() },
                scope: plan.scope(&plan.from, &parts.installation, parts.spill.clone()),
                database: member.database.clone(),
                bus: parts.bus.clone(),
                store: parts.store.clone(),
                breaker: member.breaker.clone(),
                status: parts.board.task(plan.name.as_str(), plan.from.as_str(), Task::Capture),
                metrics: parts.metrics.capture(plan.name.as_str(), plan.from.as_str()),
                snapshot: plan.snapshot.clone(),
                owed: parts.owed(&plan, &plan.from, &plan.to),
                commands,
                shutdown: parts.shutdown.clone(),
            };
            supervise(tasks, task.status.clone(), task.run());
        }
        let documents = parts.members.get(&plan.from).is_some_and(|from| from.database.engine() == Engine::Mongodb);
        let mut appliers = BTreeMap::new();
        for target in &plan.to {
            let Some(member) = parts.members.get(target) else { continue };
            let (sender, commands) = mpsc::channel(16);
            let task = Apply {
                id: TargetId { pipeline: plan.name.clone(), database: target.clone(), partition: PARTITION },
                scope: plan.scope(target, &parts.installation, parts.spill.clone()),
                database: member.database.clone(),
                documents: documents && member.database.engine() != Engine::Mongodb,
                bus: parts.bus.clone(),
                queue: parts.queue.clone(),
                breaker: member.breaker.clone(),
                status: parts.board.task(plan.name.as_str(), target.as_str(), Task::Apply),
                metrics: parts.metrics.apply(plan.name.as_str(), target.as_str()),
                limits: plan.limits.clone(),
                retry: plan.retry.clone(),
                owed: parts.owed(&plan, target, std::slice::from_ref(target)),
                commands,
                shutdown: parts.shutdown.clone(),
            };
            supervise(tasks, task.status.clone(), task.run());
            appliers.insert(target.clone(), sender);
        }
        Ok(Self { plan, bus: parts.bus, queue: parts.queue, capture, appliers })
    }

    /// Reads keys at the source and puts them on the bus as they are. Returns once they are durable there.
    pub async fn repair(&self, table: TableName, keys: Vec<Key>) -> Result<u64, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let command = capture::Command::Repair { table, keys, reply };
        let gone = || Refusal::NotRunning { pipeline: self.plan.name.clone(), task: "capture" };
        self.capture.send(command).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map_err(Refusal::Failed)
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

/// A task that panics shows as failed; the others go on.
fn supervise(tasks: &mut JoinSet<()>, status: crate::status::Entry, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        if tokio::spawn(task).await.is_err() {
            tracing::error!("a task ended by a panic");
            status.set(State::Failed, "ended by a panic; see the log, and restart the worker");
        }
    });
}
