//! `sync-worker run`: the long-lived worker.
//!
//! It hears signals and answers over HTTP before it looks at its databases: one that can't be reached may take a while.

use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::progress;
use crate::wiring::{self, Ground, Unseen};
use anyhow::Context;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use sync_worker_api::Worker;
use sync_worker_core::error::ErrorClass;
use sync_worker_engine::preflight;
use sync_worker_engine::status::State;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// What is under way when a signal comes gets this long to end: 10 s are promised for the whole end, and connections of
/// HTTP and the runtime take some of them.
const DRAIN: Duration = Duration::from_secs(7);

/// For requests that are being answered; an open tail must not hold the worker back.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

pub async fn run(config: Configuration) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new()?;
    let ground = Ground::open(&config).await?;
    let listener = TcpListener::bind(config.http)
        .await
        .with_context(|| format!("http.listen: can't listen on {}", config.http))?;
    let Ground { board, metrics, shutdown, .. } = &ground;
    let pipelines = Arc::new(OnceLock::new());
    let worker = Worker {
        board: board.clone(),
        metrics: metrics.clone(),
        pipelines: pipelines.clone(),
        shutdown: shutdown.clone(),
    };
    let server = tokio::spawn(sync_worker_api::serve(listener, worker));

    let seen = tokio::select! {
        () = signals.next() => {
            tracing::info!("told to stop before any pipeline began");
            return Ok(Outcome::Done);
        }
        seen = look(&config, &ground) => seen,
    };
    let Some(unseen) = seen else { return Ok(Outcome::Problems) };
    let mut tasks = JoinSet::new();
    let started = wiring::start(&config, &ground, unseen, &mut tasks).await?;
    // Nobody else sets it.
    pipelines.set(started).unwrap_or_default();
    tracing::info!(listen = %config.http, pipelines = config.pipelines.len(), "sync-worker is running");
    let shown = tokio::spawn(progress::show(board.clone(), shutdown.clone()));

    let ended = tokio::select! {
        () = signals.next() => false,
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
        tasks.abort_all();
    }
    shown.await.unwrap_or_default();
    if let Ok(Ok(served)) = tokio::time::timeout(LAST_ANSWERS, server).await {
        served.context("http")?;
    }
    let halted = board.all().iter().any(|task| task.state.is_final() && task.state != State::Stopped);
    Ok(if ended || halted { Outcome::Problems } else { Outcome::Done })
}

/// What tells the worker to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Looks at every database that can be reached. What keeps a reachable one from working stops the start with a line for
/// each problem; one that can't be reached is left to its tasks, which wait for it and look then. Returns those.
async fn look(config: &Configuration, ground: &Ground) -> Option<Unseen> {
    let (mut good, mut unseen) = (true, Unseen::new());
    for plan in &config.pipelines {
        let inspected = preflight::inspect(plan, &ground.databases, |name| {
            plan.scope(name, &ground.installation, wiring::spill(config))
        });
        let inspected = inspected.await;
        for one in &inspected {
            match &one.outcome {
                Ok(_) => {}
                Err(error) if error.class() == ErrorClass::Transient => {
                    tracing::warn!(pipeline = %plan.name, database = %one.database, %error, "not reachable yet; waiting for it");
                    unseen.entry(plan.name.clone()).or_default().insert(one.database.clone());
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
    good.then_some(unseen)
}
