//! MySQL: its row binlog as a source, its tables as a target, and one codec for both.
//!
//! ```text
//! binlog  -> source -> Change        one decoder of values (codec) for stream and snapshot
//! tables  -> reader -> Chunk
//! Write   -> sink   -> tables
//! ```

pub mod catalog;
pub mod client;
pub mod codec;
mod collation;
pub mod config;
mod ddl;
pub mod error;
pub mod gtid;
mod inspect;
mod literal;
mod own_tables;
pub mod reader;
pub mod sink;
pub mod source;
pub mod wire;

pub use config::Config;
pub use error::Error;

use async_trait::async_trait;
use client::Client;
use reader::MysqlReader;
use sink::MysqlSink;
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

/// One MySQL database.
pub struct Mysql {
    name: DatabaseName,
    config: Config,
    /// The database of the URL.
    default_database: Option<String>,
    /// What each pipeline's source has returned, for the readers of the same pipeline.
    returned: Mutex<HashMap<PipelineName, Arc<Returned>>>,
}

impl Mysql {
    /// Refuses a configuration that can't be used; connects to nothing.
    pub fn new(name: DatabaseName, config: Config) -> std::result::Result<Self, Error> {
        let default_database = config.address()?.database;
        Ok(Self { name, config, default_database, returned: Mutex::default() })
    }

    fn returned(&self, pipeline: &PipelineName) -> Arc<Returned> {
        let mut all = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(pipeline.clone()).or_default().clone()
    }
}

#[async_trait]
impl Database for Mysql {
    fn name(&self) -> &DatabaseName {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    async fn inspect(&self, scope: &Scope, role: Role) -> Result<Inspection> {
        Ok(inspect::inspect(&self.config, &self.name, scope, role).await?)
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        let mut client = Client::connect(&self.config).await?;
        Ok(inspect::clock(&mut client).await?)
    }

    async fn source(&self, scope: &Scope, from: Option<&Checkpoint>) -> Result<(Box<dyn Source>, Checkpoint)> {
        let mut client = Client::connect(&self.config).await?;
        if scope.two_way {
            // A stream that begins before they are there could not tell what is made of them later.
            own_tables::create(&mut client).await?;
        }
        let tables = source::resolve(&mut client, scope, self.default_database.as_deref()).await?;
        let tables = tables.into_iter().map(|(table, found)| (found.name, table)).collect();
        let returned = self.returned(&scope.pipeline);
        let (source, start) = source::open(&self.config, &self.name, scope, tables, from, returned).await?;
        Ok((Box::new(source), start))
    }

    async fn reader(&self, scope: &Scope) -> Result<Box<dyn TableReader>> {
        Ok(Box::new(MysqlReader::new(&self.config, scope, self.returned(&scope.pipeline))?))
    }

    async fn sink(&self, scope: &Scope) -> Result<Box<dyn Sink>> {
        Ok(Box::new(MysqlSink::connect(&self.config, &self.name, scope).await?))
    }

    /// A MySQL source keeps nothing for its readers.
    async fn forget_source(&self, _scope: &Scope) -> Result<()> {
        Ok(())
    }

    fn ddl(&self, at: &TableAt, wanted: &Schema, have: Option<&Schema>) -> Option<String> {
        ddl::ddl(&at.name, self.default_database.as_deref(), wanted, have)
    }
}
