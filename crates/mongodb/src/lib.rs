//! MongoDB: the change stream of a database as a source, its collections as a target, and one codec for both.
//!
//! ```text
//! change stream -> source -> Change       catalog, client, clock, codec, own: what both sides share
//! collections   -> reader -> Chunk        inspect, ddl: preflight and the statements that mend what it finds
//! Write         -> sink   -> collections
//! ```
//!
//! A collection has two columns, whatever its documents hold: the key, which is `_id` or fields of the document (`key`), and
//! the document as a whole.

pub mod catalog;
pub mod client;
pub mod clock;
pub mod codec;
pub mod config;
mod ddl;
pub mod error;
mod index;
mod inspect;
mod key;
mod own;
pub mod reader;
pub mod sink;
pub mod source;

pub use config::Config;
pub use error::Error;

use async_trait::async_trait;
use client::Client;
use reader::MongodbReader;
use sink::MongodbSink;
use source::Returned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use sync_worker_core::database::{Database, Inspection, Role, Scope, TableAt};
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_core::position::Checkpoint;
use sync_worker_core::reader::TableReader;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Sink;
use sync_worker_core::source::Source;
use sync_worker_core::types::Engine;

/// One MongoDB database.
pub struct Mongodb {
    name: DatabaseName,
    config: Config,
    /// What each pipeline's source has returned, for the readers of the same pipeline.
    returned: Mutex<HashMap<PipelineName, Arc<Returned>>>,
}

impl Mongodb {
    /// Refuses a configuration that can't be used; connects to nothing.
    pub fn new(name: DatabaseName, config: Config) -> std::result::Result<Self, Error> {
        config.address()?;
        Ok(Self { name, config, returned: Mutex::default() })
    }

    fn returned(&self, pipeline: &PipelineName) -> Arc<Returned> {
        let mut all = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(pipeline.clone()).or_default().clone()
    }
}

#[async_trait]
impl Database for Mongodb {
    fn name(&self) -> &DatabaseName {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Mongodb
    }

    async fn inspect(&self, scope: &Scope, role: Role) -> Result<Inspection> {
        Ok(inspect::inspect(&self.config, &self.name, scope, role).await?)
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        Ok(inspect::clock(&Client::connect(&self.config).await?).await?)
    }

    async fn source(&self, scope: &Scope, from: Option<&Checkpoint>) -> Result<(Box<dyn Source>, Checkpoint)> {
        let client = Client::connect(&self.config).await?;
        let (source, start) = source::open(client, &self.name, scope, from, self.returned(&scope.pipeline)).await?;
        Ok((Box::new(source), start))
    }

    async fn reader(&self, scope: &Scope) -> Result<Box<dyn TableReader>> {
        let client = Client::connect(&self.config).await?;
        Ok(Box::new(MongodbReader::new(client, scope, self.returned(&scope.pipeline))))
    }

    async fn sink(&self, scope: &Scope) -> Result<Box<dyn Sink>> {
        let client = Client::connect(&self.config).await?;
        Ok(Box::new(MongodbSink::new(client, &self.name, scope)))
    }

    /// A change stream leaves nothing at the server.
    async fn forget_source(&self, _scope: &Scope) -> Result<()> {
        Ok(())
    }

    fn ddl(&self, at: &TableAt, _wanted: &Schema, have: Option<&Schema>) -> Option<String> {
        ddl::ddl(at, have)
    }
}
