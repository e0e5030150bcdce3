//! What every task is doing, for `sync-worker status`, `/sync/status` and the health checks.

use crate::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    /// Copying what was there before the stream.
    Snapshot,
    Streaming,
    /// The database can't be reached or does not answer; tried again and again.
    Waiting,
    /// The position is lost; the reason says how to repair it (invariant 8).
    Gap,
    /// Another worker has taken over.
    Superseded,
    /// Stopped by an error that waiting alone does not mend; tried again now and then.
    Failed,
    Stopped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Snapshot => "snapshot",
            State::Streaming => "streaming",
            State::Waiting => "waiting",
            State::Gap => "gap",
            State::Superseded => "superseded",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }

    /// Somebody has to do something before the task goes on.
    pub fn is_final(self) -> bool {
        match self {
            State::Gap | State::Superseded | State::Failed | State::Stopped => true,
            State::Starting | State::Snapshot | State::Streaming | State::Waiting => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Capture,
    Apply,
}

impl Task {
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Capture => "capture",
            Task::Apply => "apply",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskStatus {
    pub pipeline: String,
    pub database: String,
    pub task: Task,
    pub state: State,
    /// Why it is in a state other than snapshot or streaming.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Capture: the source position published last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub position: String,
    /// Capture: the next offset on the bus. Apply: the offset applied last.
    pub offset: Option<u64>,
    /// Apply: durable records not yet applied.
    pub behind: u64,
    /// Apply: keys whose newest version the target has not taken.
    pub parked: u64,
    /// Apply, two-way: tables of which nothing is taken until a person says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<PausedTable>,
    /// Changes since the start of this worker.
    pub changes: u64,
    /// Milliseconds from source commit to target commit of the batch applied last.
    pub lag_ms: Option<f64>,
    pub snapshot: Option<SnapshotStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedTable {
    pub table: String,
    /// The first record that was not taken.
    pub offset: u64,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    pub rows: u64,
    /// About how many there are; it moves while the tables do.
    pub estimate: u64,
    pub done: bool,
}

/// All tasks' states; cheap to clone, and a change can be waited for.
#[derive(Clone)]
pub struct Board {
    tasks: Arc<Mutex<BTreeMap<Key, TaskStatus>>>,
    changed: watch::Sender<u64>,
    metrics: Metrics,
}

type Key = (String, String, Task);

impl Board {
    pub fn new(metrics: Metrics) -> Self {
        Self { tasks: Arc::default(), changed: watch::Sender::new(0), metrics }
    }

    pub fn all(&self) -> Vec<TaskStatus> {
        self.lock().values().cloned().collect()
    }

    /// Sees a new number after every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn task(&self, pipeline: &str, database: &str, task: Task) -> Entry {
        let key = (pipeline.to_owned(), database.to_owned(), task);
        let status = TaskStatus {
            pipeline: key.0.clone(),
            database: key.1.clone(),
            task,
            state: State::Starting,
            reason: String::new(),
            position: String::new(),
            offset: None,
            behind: 0,
            parked: 0,
            paused: Vec::new(),
            changes: 0,
            lag_ms: None,
            snapshot: None,
        };
        self.lock().insert(key.clone(), status);
        self.metrics.state(pipeline, database, task.as_str(), State::Starting.as_str(), true);
        Entry { board: self.clone(), key }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, TaskStatus>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's line on the board.
#[derive(Clone)]
pub struct Entry {
    board: Board,
    key: Key,
}

impl Entry {
    pub fn set(&self, state: State, reason: &str) {
        let (pipeline, database, task) = (&self.key.0, &self.key.1, self.key.2.as_str());
        // A capture and its snapshot set one line: metrics change in the order that it does.
        self.update(|status| {
            if status.state != state {
                self.board.metrics.state(pipeline, database, task, status.state.as_str(), false);
                self.board.metrics.state(pipeline, database, task, state.as_str(), true);
            }
            status.state = state;
            reason.clone_into(&mut status.reason);
        });
    }

    pub fn update(&self, change: impl FnOnce(&mut TaskStatus)) {
        if let Some(status) = self.board.lock().get_mut(&self.key) {
            change(status);
        }
        self.board.changed.send_modify(|number| *number += 1);
    }

    pub fn error(&self, class: &str) {
        self.board.metrics.error(&self.key.0, &self.key.1, self.key.2.as_str(), class);
    }
}
