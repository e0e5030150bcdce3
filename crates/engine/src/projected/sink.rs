//! A relational sink for documents.

use crate::failure::EngineError;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::change::Change;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::document::projection::{DocumentMapping, Projection};
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::sink::{Applied, ParkedKey, Parking, Progress, Refused, Sink, Write, WriteBatch};
use sync_worker_core::value::Damaged;

pub struct ProjectedSink {
    inner: Box<dyn Sink>,
    projections: HashMap<TableName, Projection>,
}

impl ProjectedSink {
    /// Over the target's tables as they are now; a change of their columns is noticed when the sink is opened again.
    pub async fn new(inner: Box<dyn Sink>, database: &dyn Database, scope: &Scope) -> Result<Self> {
        let mut reader = database.reader(scope).await?;
        let mut projections = HashMap::new();
        for at in &scope.tables {
            let schema = reader.schema(&at.table).await?;
            projections.insert(at.table.clone(), Projection::new(&schema, DocumentMapping::default()));
        }
        Ok(Self { inner, projections })
    }

    fn projection(&self, table: &TableName) -> std::result::Result<&Projection, EngineError> {
        self.projections.get(table).ok_or(EngineError::Damaged(Damaged("a table that is not in the pipeline")))
    }

    fn projected(&self, batch: &WriteBatch) -> std::result::Result<WriteBatch, EngineError> {
        let mut writes = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            let projection = self.projection(write.change.table())?;
            let row = |row: &Option<_>| row.as_ref().map(|row| projection.row(row)).transpose();
            let change = Change {
                schema: projection.schema().clone(),
                op: write.change.op,
                before: row(&write.change.before).map_err(EngineError::Damaged)?,
                after: row(&write.change.after).map_err(EngineError::Damaged)?,
            };
            writes.push(Write { change, offset: write.offset, parked: write.parked });
        }
        let mut unpark = Vec::with_capacity(batch.unpark.len());
        for (table, key) in &batch.unpark {
            unpark.push((table.clone(), self.projection(table)?.key(key).map_err(EngineError::Damaged)?));
        }
        Ok(WriteBatch { expected: batch.expected.clone(), marker: batch.marker.clone(), writes, unpark })
    }
}

/// The retry queue keeps documents, not the rows that were made of them.
struct Original<'a> {
    batch: &'a WriteBatch,
    parking: &'a dyn Parking,
}

#[async_trait]
impl Parking for Original<'_> {
    async fn park(&self, _: &WriteBatch, refused: &[Refused]) -> Result<()> {
        self.parking.park(self.batch, refused).await
    }
}

#[async_trait]
impl Sink for ProjectedSink {
    async fn take_over(&mut self, log: &str) -> Result<Progress> {
        let progress = self.inner.take_over(log).await?;
        let mut parked = Vec::with_capacity(progress.parked.len());
        for waits in progress.parked {
            let key = self.projection(&waits.table)?.id(&waits.key).map_err(EngineError::Damaged)?;
            parked.push(ParkedKey { key, ..waits });
        }
        Ok(Progress { marker: progress.marker, parked })
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        let projected = self.projected(batch)?;
        self.inner.apply(&projected, &Original { batch, parking }).await
    }
}

/// A sink as a pipeline needs it: between documents and tables, one that projects.
pub async fn open(database: &Arc<dyn Database>, scope: &Scope, documents: bool) -> Result<Box<dyn Sink>> {
    let sink = database.sink(scope).await?;
    match documents {
        true => Ok(Box::new(ProjectedSink::new(sink, database.as_ref(), scope).await?)),
        false => Ok(sink),
    }
}
