//! `sync-worker resume`: a paused table goes on.

use crate::client::Client;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use sync_worker_api::wire::{Count, Resume};

pub async fn resume(config: &Configuration, pipeline: String, table: String, json: bool) -> anyhow::Result<Outcome> {
    let asked = Resume { pipeline, table };
    let done: Count = Client::new(config.http)?.post("/sync/resume", &asked).await?;
    match json {
        true => say!("{}", serde_json::to_string(&done)?),
        false => say!(
            "the changes of {} are taken again; `sync-worker verify {} --repair --from DATABASE` makes up for the others",
            asked.table,
            asked.pipeline
        ),
    }
    Ok(Outcome::Done)
}
