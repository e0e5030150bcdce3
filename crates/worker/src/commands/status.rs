//! `sync-worker status`: what every task of the running worker is doing.

use crate::client::Client;
use crate::outcome::Outcome;
use crate::output::say;
use sync_worker_api::wire::Status;
use sync_worker_engine::status::{PausedTable, TaskStatus};

/// Ends with problems when a task has stopped for good, or a table is paused.
pub async fn status(client: &Client, json: bool) -> anyhow::Result<Outcome> {
    let status: Status = client.get("/sync/status", &()).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        for task in &status.tasks {
            say!("{}", line(task));
            for PausedTable { table, offset, reason } in &task.paused {
                say!(
                    "{:<16} {:<8} {:<16} table {table} is paused at offset {offset}: {reason}",
                    task.pipeline,
                    "",
                    task.database
                );
            }
        }
    }
    let stopped = |task: &TaskStatus| task.state.is_final() || !task.paused.is_empty();
    Ok(if status.tasks.iter().any(stopped) { Outcome::Problems } else { Outcome::Done })
}

fn line(task: &TaskStatus) -> String {
    let mut line =
        format!("{:<16} {:<8} {:<16} {:<10}", task.pipeline, task.task.as_str(), task.database, task.state.as_str());
    if let Some(snapshot) = task.snapshot.as_ref().filter(|snapshot| !snapshot.done) {
        line.push_str(&format!(" {} of about {} rows", snapshot.rows, snapshot.estimate));
    }
    if !task.position.is_empty() {
        line.push_str(&format!(" at {}", task.position));
    }
    if let Some(offset) = task.offset {
        line.push_str(&format!(" offset {offset}"));
    }
    if task.behind > 0 {
        line.push_str(&format!(" {} behind", task.behind));
    }
    if let Some(lag) = task.lag_ms {
        line.push_str(&format!(" lag {lag:.1} ms"));
    }
    if task.parked > 0 {
        line.push_str(&format!(" {} keys parked", task.parked));
    }
    if !task.reason.is_empty() {
        line.push_str(&format!(": {}", task.reason));
    }
    line
}
