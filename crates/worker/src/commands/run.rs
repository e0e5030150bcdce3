//! `sync-worker run`: the long-lived worker.

use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::{progress, wiring};
use anyhow::Context;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_api::Worker;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::name::InstallationId;
use sync_worker_core::store::Store;
use sync_worker_engine::preflight;
use sync_worker_engine::status::State;
use sync_worker_store::SqliteStore;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is under way when a signal comes gets this long to end.
const DRAIN: Duration = Duration::from_secs(10);

pub async fn run(config: Configuration) -> anyhow::Result<Outcome> {
    let databases = wiring::databases(&config)?;
    let store =
        Arc::new(SqliteStore::open(&config.state).map_err(sync_worker_core::error::Error::from).map_err(plain)?);
    let installation = store.installation().await.map_err(plain)?;
    let listener = TcpListener::bind(config.http)
        .await
        .with_context(|| format!("http.listen: can't listen on {}", config.http))?;
    let plans = &config.pipelines;
    if !preflight_passes(&config, plans, &databases, &installation).await {
        return Ok(Outcome::Problems);
    }

    let shutdown = CancellationToken::new();
    let running = wiring::start(&config, plans, &databases, store, &installation, &shutdown).await?;
    let wiring::Running { pipelines, board, metrics, mut tasks } = running;
    let worker = Worker { board: board.clone(), metrics, pipelines: Arc::new(pipelines), shutdown: shutdown.clone() };
    let server = tokio::spawn(sync_worker_api::serve(listener, worker));
    tracing::info!(listen = %config.http, pipelines = plans.len(), "sync-worker is running");
    let shown = tokio::spawn(progress::show(board.clone(), shutdown.clone()));

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = async { while tasks.join_next().await.is_some() {} } => true,
    };
    if ended {
        tracing::error!("no task is left running");
    } else {
        tracing::info!("draining");
    }
    shutdown.cancel();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            seconds = DRAIN.as_secs(),
            "not everything ended in time; what was under way is repeated at the next start"
        );
        tasks.shutdown().await;
    }
    shown.await.unwrap_or_default();
    // An open tail must not hold the worker back.
    if let Ok(Ok(served)) = tokio::time::timeout(Duration::from_secs(1), server).await {
        served.context("http")?;
    }
    let halted = board.all().iter().any(|task| task.state.is_final() && task.state != State::Stopped);
    Ok(if ended || halted { Outcome::Problems } else { Outcome::Done })
}

/// Looks at every database that can be reached. What keeps a reachable one from working stops the start with a line for
/// each problem; one that can't be reached is left to its tasks, which wait for it.
async fn preflight_passes(
    config: &Configuration,
    plans: &[sync_worker_engine::pipeline::Plan],
    databases: &std::collections::BTreeMap<
        sync_worker_core::name::DatabaseName,
        Arc<dyn sync_worker_core::database::Database>,
    >,
    installation: &InstallationId,
) -> bool {
    let mut good = true;
    for plan in plans {
        let scope = |name: &sync_worker_core::name::DatabaseName| plan.scope(name, installation, wiring::spill(config));
        let inspected = preflight::inspect(plan, databases, scope).await;
        for one in &inspected {
            match &one.outcome {
                Ok(_) => {}
                Err(error) if error.class() == ErrorClass::Transient => {
                    tracing::warn!(pipeline = %plan.name, database = %one.database, %error, "not reachable yet; waiting for it");
                }
                Err(error) => {
                    tracing::error!(pipeline = %plan.name, "databases.{}: {error}", one.database);
                    good = false;
                }
            }
        }
        for finding in preflight::findings(plan, &inspected) {
            if finding.advice {
                tracing::warn!(pipeline = %plan.name, "{}: {}; {}", finding.place, finding.problem, finding.cure);
            } else {
                tracing::error!(pipeline = %plan.name, "{}: {}; {}", finding.place, finding.problem, finding.cure);
                good = false;
            }
        }
    }
    good
}

fn plain(error: sync_worker_core::error::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
