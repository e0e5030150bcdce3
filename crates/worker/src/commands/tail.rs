//! `sync-worker tail`: what goes over the bus, as Debezium's envelopes, one a line.

use crate::client::Client;
use crate::outcome::Outcome;
use futures::StreamExt;
use std::io::Write;
use sync_worker_api::wire::Tail;

/// Runs until the worker stops or the reader of the output goes away.
pub async fn tail(client: &Client, pipeline: String, from: Option<u64>) -> anyhow::Result<Outcome> {
    let mut body = client.stream("/sync/tail", &Tail { pipeline, from }).await?.bytes_stream();
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = body.next().await {
        if out.write_all(&bytes?).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Outcome::Done)
}
