//! Puts the parts together, in the order in which they depend on each other. Nothing here decides anything.

use crate::config::Configuration;
use crate::config::{Adapter, DatabaseConfig};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_bus::EmbeddedLog;
use sync_worker_core::database::Database;
use sync_worker_core::name::{DatabaseName, InstallationId, PipelineName};
use sync_worker_core::store::Store;
use sync_worker_engine::breaker::Breaker;
use sync_worker_engine::metrics::Metrics;
use sync_worker_engine::pipeline::{Member, Parts, Pipeline};
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

/// What stands before any pipeline runs.
pub struct Ground {
    pub databases: BTreeMap<DatabaseName, Arc<dyn Database>>,
    pub store: Arc<SqliteStore>,
    pub installation: InstallationId,
    pub metrics: Metrics,
    pub board: Board,
    pub shutdown: CancellationToken,
}

impl Ground {
    pub async fn open(config: &Configuration) -> anyhow::Result<Self> {
        let databases = databases(config)?;
        let opened = SqliteStore::open(&config.state).map_err(sync_worker_core::error::Error::from);
        let store = Arc::new(opened.map_err(plain)?);
        let installation = store.installation().await.map_err(plain)?;
        let metrics = Metrics::new()?;
        let board = Board::new(metrics.clone());
        Ok(Self { databases, store, installation, metrics, board, shutdown: CancellationToken::new() })
    }
}

fn plain(error: sync_worker_core::error::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// Members of each pipeline that could not be reached and so were not looked at.
pub type Unseen = BTreeMap<PipelineName, BTreeSet<DatabaseName>>;

/// Opens every pipeline's log and starts its tasks on `tasks`.
pub async fn start(
    config: &Configuration,
    ground: &Ground,
    mut unseen: Unseen,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<BTreeMap<PipelineName, Pipeline>> {
    let member =
        |database: &Arc<dyn Database>| Member { database: database.clone(), breaker: Arc::new(Breaker::default()) };
    let members: BTreeMap<_, _> =
        ground.databases.iter().map(|(name, database)| (name.clone(), member(database))).collect();
    let mut pipelines = BTreeMap::new();
    for plan in &config.pipelines {
        let folder = config.state.join("log").join(plan.name.as_str());
        let log = EmbeddedLog::open(&folder, config.bus.clone()).map_err(|error| {
            anyhow::anyhow!("pipeline {}: {}", plan.name, sync_worker_core::error::Error::from(error))
        })?;
        let parts = Parts {
            members: members.clone(),
            bus: Arc::new(log),
            store: ground.store.clone(),
            queue: ground.store.clone(),
            ledger: ground.store.clone(),
            resolvers: ground.store.clone(),
            board: ground.board.clone(),
            metrics: ground.metrics.clone(),
            installation: ground.installation.clone(),
            spill: spill(config),
            unseen: unseen.remove(&plan.name).unwrap_or_default(),
            shutdown: ground.shutdown.clone(),
        };
        let pipeline = Pipeline::start(plan.clone(), parts, tasks).await.map_err(plain)?;
        pipelines.insert(plan.name.clone(), pipeline);
    }
    Ok(pipelines)
}
