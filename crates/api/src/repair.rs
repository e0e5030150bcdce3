//! Repair: differing keys go through the pipeline like any other change, never beside its applier.

use crate::Worker;
use crate::error::Problem;
use crate::wire::{Count, Repair, Resume, from_hex};
use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::row::Key;

pub async fn repair(State(worker): State<Worker>, Json(asked): Json<Repair>) -> Result<Json<Count>, Problem> {
    let pipeline = worker.pipeline(&asked.pipeline)?;
    let table = TableName::new(&asked.table);
    if !pipeline.plan.tables.iter().any(|one| one.name == table) {
        return Err(Problem::bad_request(format!("pipeline {} has no table {table}", asked.pipeline)));
    }
    let mut keys = Vec::with_capacity(asked.keys.len());
    for text in &asked.keys {
        let bytes = from_hex(text).ok_or_else(|| Problem::bad_request("a key is not hexadecimal"))?;
        keys.push(Key::from_bytes(Bytes::from(bytes)));
    }
    let from = asked.from.map(|name| DatabaseName::new(&name));
    Ok(Json(Count { count: pipeline.repair(from, table, keys).await? }))
}

/// A paused table goes on.
pub async fn resume(State(worker): State<Worker>, Json(asked): Json<Resume>) -> Result<Json<Count>, Problem> {
    worker.pipeline(&asked.pipeline)?.resume(TableName::new(&asked.table)).await?;
    Ok(Json(Count { count: 1 }))
}
