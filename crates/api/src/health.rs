//! Health and metrics.

use crate::Worker;
use crate::error::Problem;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use prometheus::{Encoder, TextEncoder};
use sync_worker_engine::status::State as TaskState;

pub async fn live() -> &'static str {
    "ok\n"
}

/// Ready while every task copies or streams; else 503 and the tasks that do not, a line each, or that there are none yet.
pub async fn ready(State(worker): State<Worker>) -> (StatusCode, String) {
    let mut waiting = String::new();
    for task in worker.board.all() {
        if !matches!(task.state, TaskState::Snapshot | TaskState::Streaming) {
            let place = format!("{} {} of {}", task.pipeline, task.task.as_str(), task.database);
            waiting.push_str(&format!("{place}: {} {}\n", task.state.as_str(), task.reason));
        }
    }
    if worker.pipelines.get().is_none() {
        waiting.push_str("starting: looking at the databases\n");
    }
    match waiting.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, waiting),
    }
}

pub async fn metrics(State(worker): State<Worker>) -> Result<impl IntoResponse, Problem> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    let families = worker.metrics.registry.gather();
    encoder.encode(&families, &mut text).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text))
}
