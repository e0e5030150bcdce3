//! One configured PostgreSQL database.

use crate::client::{self, Purpose};
use crate::config::Config;
use crate::ddl;
use crate::error::Error;
use crate::inspect;
use crate::reader::PostgresReader;
use crate::recent::Recent;
use crate::sink::PostgresSink;
use crate::source::{self, slot, timeline};
use crate::tls;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use sync_worker_core::database::{Database, Inspection, Role, Scope, TableAt};
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::reader::TableReader;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Sink;
use sync_worker_core::source::Source;
use sync_worker_core::types::Engine;

pub struct Postgres {
    name: DatabaseName,
    config: Config,
    /// What a pipeline's stream has shown lately, for that pipeline's readers.
    recent: Mutex<HashMap<PipelineName, Arc<Recent>>>,
}

impl Postgres {
    /// Checks the configuration, certificates included; connects to nothing.
    pub fn new(name: DatabaseName, config: Config) -> Result<Self, Error> {
        tls::client_config(&config.address()?)?;
        Ok(Self { name, config, recent: Mutex::new(HashMap::new()) })
    }

    fn recent(&self, scope: &Scope) -> Arc<Recent> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.entry(scope.pipeline.clone()).or_default().clone()
    }
}

#[async_trait]
impl Database for Postgres {
    fn name(&self) -> &DatabaseName {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    async fn inspect(&self, scope: &Scope, role: Role) -> Result<Inspection> {
        Ok(inspect::inspect(&self.config, &self.name, scope, role).await?)
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        let client = client::connect(&self.config, Purpose::Control).await?;
        Ok(inspect::clock(&client).await?)
    }

    async fn source(&self, scope: &Scope, from: Option<&Checkpoint>) -> Result<(Box<dyn Source>, Checkpoint)> {
        let (source, start) = source::open(&self.config, &self.name, scope, from, self.recent(scope)).await?;
        Ok((Box::new(source), start))
    }

    async fn follow(&self, checkpoint: &Checkpoint, published: Position) -> Result<Checkpoint> {
        Ok(timeline::follow(&self.config, &self.name, checkpoint, published).await?)
    }

    async fn reader(&self, scope: &Scope) -> Result<Box<dyn TableReader>> {
        Ok(Box::new(PostgresReader::connect(&self.config, scope, self.recent(scope)).await?))
    }

    async fn sink(&self, scope: &Scope) -> Result<Box<dyn Sink>> {
        Ok(Box::new(PostgresSink::connect(&self.config, &self.name, scope, self.recent(scope)).await?))
    }

    async fn forget_source(&self, scope: &Scope) -> Result<()> {
        let client = client::connect(&self.config, Purpose::Control).await?;
        let name = slot::name(scope, &self.name);
        slot::drop_slot(&client, &name).await?;
        slot::drop_publication(&client, &name).await?;
        Ok(())
    }

    fn ddl(&self, at: &TableAt, wanted: &Schema, have: Option<&Schema>) -> Option<String> {
        ddl::ddl(&at.name, wanted, have)
    }
}
