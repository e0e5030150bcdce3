//! Tail: bus records as Debezium's envelopes, as they become durable.

use crate::Worker;
use crate::error::Problem;
use crate::wire::Tail;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::stream;
use sync_worker_core::bus::Subscription;
use sync_worker_core::error::{Error, Result};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_engine::envelope::envelope;
use sync_worker_engine::failure::EngineError;
use tokio_util::sync::CancellationToken;

const READ_BYTES: usize = 64 << 10;

pub async fn tail(State(worker): State<Worker>, Query(asked): Query<Tail>) -> Result<impl IntoResponse, Problem> {
    let pipeline = worker.pipeline(&asked.pipeline)?;
    let from = match asked.from {
        Some(from) => Offset(from),
        None => pipeline.bus.bounds(Partition(0)).await?.next,
    };
    let subscription = pipeline.bus.subscribe(Partition(0), from).await?;
    let lines = stream::unfold((subscription, worker.shutdown.clone()), |(mut subscription, shutdown)| async move {
        let lines = next_lines(subscription.as_mut(), &shutdown).await?;
        Some((lines.map_err(|error| std::io::Error::other(error.to_string())), (subscription, shutdown)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// None at shutdown.
async fn next_lines(subscription: &mut dyn Subscription, shutdown: &CancellationToken) -> Option<Result<Bytes, Error>> {
    loop {
        let records = tokio::select! {
            () = shutdown.cancelled() => return None,
            records = subscription.next(READ_BYTES) => match records {
                Ok(records) => records,
                Err(error) => return Some(Err(error)),
            },
        };
        let mut lines = String::new();
        for delivered in &records {
            match envelope(delivered) {
                Ok(Some(json)) => lines.push_str(&format!("{json}\n")),
                Ok(None) => {}
                Err(damaged) => return Some(Err(EngineError::Damaged(damaged).into())),
            }
        }
        if !lines.is_empty() {
            return Some(Ok(Bytes::from(lines)));
        }
    }
}
