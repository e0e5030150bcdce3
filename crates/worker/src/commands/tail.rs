//! `sync-worker tail`: what goes over the bus, as Debezium's envelopes, one a line.

use crate::client::Client;
use crate::config::Configuration;
use crate::outcome::Outcome;
use futures::StreamExt;
use std::io::Write;
use sync_worker_api::wire::Tail;

/// Runs until the worker stops or the reader of the output goes away.
pub async fn tail(config: &Configuration, pipeline: Option<String>, from: Option<u64>) -> anyhow::Result<Outcome> {
    let pipeline = match (pipeline, config.pipelines.as_slice()) {
        (Some(pipeline), _) => pipeline,
        (None, [only]) => only.name.to_string(),
        (None, several) => {
            let names: Vec<_> = several.iter().map(|plan| plan.name.as_str()).collect();
            anyhow::bail!("name one of the pipelines: sync-worker tail {}", names.join(" | "));
        }
    };
    let client = Client::new(config.http)?;
    let mut body = client.stream("/sync/tail", &Tail { pipeline, from }).await?.bytes_stream();
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = body.next().await {
        if out.write_all(&bytes?).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Outcome::Done)
}
