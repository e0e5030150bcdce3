//! A pipeline over in-memory stand-ins, and waits with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::name::{DatabaseName, InstallationId, PipelineName, TableName};
use sync_worker_core::record::Partition;
use sync_worker_core::store::{CaptureId, TargetId};
use sync_worker_engine::assemble::BatchLimits;
use sync_worker_engine::breaker::Breaker;
use sync_worker_engine::metrics::Metrics;
use sync_worker_engine::pipeline::{Member, Parts, Pipeline, Plan, Table};
use sync_worker_engine::retry::RetryPolicy;
use sync_worker_engine::snapshot::SnapshotSettings;
use sync_worker_engine::status::{Board, State, Task, TaskStatus};
use sync_worker_testkit::memory::{Changes, MemoryBus, MemoryDatabase, MemoryStore, schema};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const SOURCE: &str = "crm";
pub const TARGET: &str = "shop";

/// What outlives a crash.
pub struct World {
    pub source: MemoryDatabase,
    pub target: MemoryDatabase,
    /// Targets beside `target`.
    pub others: Vec<MemoryDatabase>,
    pub bus: MemoryBus,
    pub store: MemoryStore,
    pub plan: Plan,
    /// Of the table `customer`.
    pub changes: Changes,
}

impl World {
    /// One table, one target, no initial snapshot, and retries that are due at once.
    pub fn new() -> Self {
        let schemas = [schema("customer")];
        let table = Table {
            name: TableName::new("customer"),
            at: BTreeMap::new(),
            document: Default::default(),
            resolution: Default::default(),
        };
        let plan = Plan {
            name: PipelineName::new("customers"),
            from: DatabaseName::new(SOURCE),
            to: vec![DatabaseName::new(TARGET)],
            two_way: None,
            tables: vec![table],
            snapshot: SnapshotSettings { initial: false, ..SnapshotSettings::default() },
            limits: BatchLimits::default(),
            retry: RetryPolicy { attempts: 5, first_delay: Duration::ZERO, longest_delay: Duration::ZERO },
        };
        Self {
            source: MemoryDatabase::new(SOURCE, &schemas),
            target: MemoryDatabase::new(TARGET, &schemas),
            others: Vec::new(),
            bus: MemoryBus::new("log-1", 1),
            store: MemoryStore::default(),
            plan,
            changes: Changes::of("customer"),
        }
    }

    /// A parked version waits for longer than any test.
    pub fn without_retries(mut self) -> Self {
        let long = Duration::from_secs(1 << 20);
        self.plan.retry = RetryPolicy { attempts: 5, first_delay: long, longest_delay: long };
        self
    }

    pub fn with_snapshot(mut self, chunk_rows: u64) -> Self {
        self.plan.snapshot = SnapshotSettings { initial: true, chunk_rows, ..SnapshotSettings::default() };
        self
    }

    pub fn capture_id(&self) -> CaptureId {
        CaptureId { pipeline: self.plan.name.clone(), database: self.plan.from.clone() }
    }

    pub fn target_id(&self) -> TargetId {
        let (pipeline, partition) = (self.plan.name.clone(), Partition::default());
        TargetId { pipeline, database: DatabaseName::new(TARGET), partition }
    }

    pub async fn start(&self) -> Life {
        let metrics = Metrics::new().unwrap();
        let board = Board::new(metrics.clone());
        let shutdown = CancellationToken::new();
        let databases = [&self.source, &self.target].into_iter().chain(&self.others);
        let member = |database: &MemoryDatabase| {
            let name = sync_worker_core::database::Database::name(database).clone();
            (name, Member { database: Arc::new(database.clone()), breaker: Arc::new(Breaker::default()) })
        };
        let parts = Parts {
            members: databases.map(member).collect(),
            bus: Arc::new(self.bus.clone()),
            store: Arc::new(self.store.clone()),
            queue: Arc::new(self.store.clone()),
            ledger: Arc::new(self.store.clone()),
            resolvers: Arc::new(self.store.clone()),
            board: board.clone(),
            metrics,
            installation: InstallationId::new("memory"),
            spill: PathBuf::new(),
            unseen: BTreeSet::new(),
            shutdown: shutdown.clone(),
        };
        let mut tasks = JoinSet::new();
        let pipeline = Pipeline::start(self.plan.clone(), parts, &mut tasks).await.unwrap();
        Life { pipeline, tasks, board, shutdown }
    }

    /// Starts, and waits until the change stream and the target are open.
    pub async fn streaming(&self) -> Life {
        let life = self.start().await;
        life.is(SOURCE, Task::Capture, State::Streaming).await;
        life.is(TARGET, Task::Apply, State::Streaming).await;
        life
    }

    /// Waits until the target has every row as the source has it.
    pub async fn equal(&self) {
        let rows = self.source.rows();
        within("the target to be equal", self.target.until(|target| (target.rows() == rows).then_some(()))).await;
    }

    /// Waits until the target has taken the whole log.
    pub async fn applied(&self) {
        let last = self.bus.records().last().map(|record| record.offset);
        let reached =
            |target: &MemoryDatabase| (target.marker().and_then(|marker| marker.offset) == last).then_some(());
        within("the target to reach the end of the log", self.target.until(reached)).await;
    }
}

/// One life of the worker.
pub struct Life {
    pub pipeline: Pipeline,
    pub tasks: JoinSet<()>,
    pub board: Board,
    pub shutdown: CancellationToken,
}

impl Life {
    pub async fn status(&self, database: &str, task: Task, ready: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        let mut changes = self.board.subscribe();
        let wait = async {
            loop {
                changes.mark_unchanged();
                let mut all = self.board.all().into_iter();
                if let Some(found) = all.find(|one| one.database == database && one.task == task && ready(one)) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        within("a task's status", wait).await
    }

    /// Waits for a state and returns its reason.
    pub async fn is(&self, database: &str, task: Task, state: State) -> String {
        self.status(database, task, |status| status.state == state).await.reason
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        within("the pipeline to stop", ended).await;
    }
}

/// Time is paused: the deadline passes as soon as nobody has anything to do.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let deadline = tokio::time::timeout(Duration::from_secs(300), work).await;
    deadline.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Lets every task run until it waits, without moving the clock.
pub async fn let_run() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}
