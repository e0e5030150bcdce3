//! The HTTP side of a running worker: health, metrics, status, and what a person asks of a pipeline.
//!
//! ```text
//! GET  /health, /health/live   the process answers
//! GET  /health/ready           every task is copying or streaming, else 503
//! GET  /metrics                Prometheus text
//! GET  /sync/status            what every task is doing
//! GET  /sync/tail              bus records as they come, one JSON envelope a line
//! GET  /sync/dead-letters      versions that a target has not taken
//! POST /sync/dead-letters/retry, /sync/dead-letters/drop
//! GET  /sync/conflicts, /sync/conflicts/show    the ledger of a two-way pipeline
//! GET  /sync/conflicts/what-if which outcomes on record would be others by other rules
//! POST /sync/conflicts/decide  a person's choice
//! POST /sync/repair            put rows on the bus again as the source has them, or a member that is named
//! POST /sync/resume            take a paused table's changes again
//! ```
//!
//! It listens where the configuration says, by default on this machine alone, and has no authentication of its own yet.

mod conflicts;
mod error;
mod health;
mod letters;
mod repair;
mod tail;
pub mod wire;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use sync_worker_core::name::PipelineName;
use sync_worker_engine::metrics::Metrics;
use sync_worker_engine::pipeline::Pipeline;
use sync_worker_engine::status::Board;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Keys come as hexadecimal digits, and one of a document may have megabytes.
const LARGEST_REPAIR: usize = 64 << 20;

/// What the routes look at.
#[derive(Clone)]
pub struct Worker {
    pub board: Board,
    pub metrics: Metrics,
    /// Unset until the databases have been looked at.
    pub pipelines: Arc<OnceLock<BTreeMap<PipelineName, Pipeline>>>,
    pub shutdown: CancellationToken,
}

impl Worker {
    fn pipeline(&self, name: &str) -> Result<&Pipeline, error::Problem> {
        let pipelines = self.pipelines.get().ok_or_else(error::Problem::starting)?;
        pipelines.get(&PipelineName::new(name)).ok_or_else(|| error::Problem::no_pipeline(name))
    }
}

pub fn router(worker: Worker) -> Router {
    Router::new()
        .route("/health", get(health::live))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/sync/status", get(status))
        .route("/sync/tail", get(tail::tail))
        .route("/sync/dead-letters", get(letters::list))
        .route("/sync/dead-letters/retry", post(letters::retry))
        .route("/sync/dead-letters/drop", post(letters::give_up))
        .route("/sync/conflicts", get(conflicts::list))
        .route("/sync/conflicts/show", get(conflicts::show))
        .route("/sync/conflicts/what-if", get(conflicts::what_if))
        .route("/sync/conflicts/decide", post(conflicts::decide))
        .route("/sync/repair", post(repair::repair).layer(DefaultBodyLimit::max(LARGEST_REPAIR)))
        .route("/sync/resume", post(repair::resume))
        .with_state(worker)
}

/// Serves until shutdown.
pub async fn serve(listener: TcpListener, worker: Worker) -> std::io::Result<()> {
    let shutdown = worker.shutdown.clone();
    axum::serve(listener, router(worker)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn status(State(worker): State<Worker>) -> axum::Json<wire::Status> {
    axum::Json(wire::Status { tasks: worker.board.all() })
}
