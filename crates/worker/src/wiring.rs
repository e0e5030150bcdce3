//! Puts the parts together, in the order in which they depend on each other. Nothing here decides anything.

use crate::config::Configuration;
use crate::config::{Adapter, DatabaseConfig};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_bus::EmbeddedLog;
use sync_worker_core::database::Database;
use sync_worker_core::name::{DatabaseName, InstallationId};
use sync_worker_engine::breaker::Breaker;
use sync_worker_engine::metrics::Metrics;
use sync_worker_engine::pipeline::{Member, Parts, Pipeline, Plan};
use sync_worker_engine::status::Board;
use sync_worker_store::SqliteStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The one place that picks an adapter.
pub fn database(config: &DatabaseConfig) -> anyhow::Result<Arc<dyn Database>> {
    let name = config.name.clone();
    let place = || format!("databases.{}", config.name);
    Ok(match &config.adapter {
        Adapter::Postgres(config) => {
            Arc::new(sync_worker_postgres::Postgres::new(name, config.clone()).with_context(place)?)
        }
        Adapter::Mongodb(config) => {
            Arc::new(sync_worker_mongodb::Mongodb::new(name, config.clone()).with_context(place)?)
        }
        Adapter::Mysql(config) => Arc::new(sync_worker_mysql::Mysql::new(name, config.clone()).with_context(place)?),
    })
}

pub fn databases(config: &Configuration) -> anyhow::Result<BTreeMap<DatabaseName, Arc<dyn Database>>> {
    config.databases.values().map(|one| Ok((one.name.clone(), database(one)?))).collect()
}

/// Where transactions that are too large for memory wait.
pub fn spill(config: &Configuration) -> PathBuf {
    config.state.join("spill")
}

/// The worker's parts, before any pipeline runs.
pub struct Running {
    pub pipelines: BTreeMap<sync_worker_core::name::PipelineName, Pipeline>,
    pub board: Board,
    pub metrics: Metrics,
    pub tasks: JoinSet<()>,
}

/// Opens every pipeline's log and starts its tasks.
pub async fn start(
    config: &Configuration,
    plans: &[Plan],
    databases: &BTreeMap<DatabaseName, Arc<dyn Database>>,
    store: Arc<SqliteStore>,
    installation: &InstallationId,
    shutdown: &CancellationToken,
) -> anyhow::Result<Running> {
    let metrics = Metrics::new()?;
    let board = Board::new(metrics.clone());
    let member =
        |database: &Arc<dyn Database>| Member { database: database.clone(), breaker: Arc::new(Breaker::default()) };
    let members: BTreeMap<_, _> = databases.iter().map(|(name, database)| (name.clone(), member(database))).collect();
    let mut tasks = JoinSet::new();
    let mut pipelines = BTreeMap::new();
    for plan in plans {
        let folder = config.state.join("log").join(plan.name.as_str());
        let log = EmbeddedLog::open(&folder, config.bus.clone()).map_err(|error| {
            anyhow::anyhow!("pipeline {}: {}", plan.name, sync_worker_core::error::Error::from(error))
        })?;
        let parts = Parts {
            members: members.clone(),
            bus: Arc::new(log),
            store: store.clone(),
            queue: store.clone(),
            board: board.clone(),
            metrics: metrics.clone(),
            installation: installation.clone(),
            spill: spill(config),
            shutdown: shutdown.clone(),
        };
        let pipeline =
            Pipeline::start(plan.clone(), parts, &mut tasks).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        pipelines.insert(plan.name.clone(), pipeline);
    }
    Ok(Running { pipelines, board, metrics, tasks })
}
