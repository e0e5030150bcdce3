//! A relational sink for documents.

use crate::failure::EngineError;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::Change;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::document::mapping::Unfit;
use sync_worker_core::document::projection::{Projection, Room};
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::sink::{Applied, ParkedKey, Parking, Progress, Refused, Sink, Write, WriteBatch};
use sync_worker_core::value::Damaged;

pub struct ProjectedSink {
    inner: Box<dyn Sink>,
    projections: Projections,
    room: Room,
}

struct Projections(HashMap<TableName, Projection>);

impl ProjectedSink {
    /// Over the target's tables as they are now; a change of their columns is noticed when the sink is opened again.
    pub async fn new(inner: Box<dyn Sink>, database: &dyn Database, scope: &Scope) -> Result<Self> {
        let mut reader = database.reader(scope).await?;
        let mut projections = HashMap::new();
        for at in &scope.tables {
            let schema = reader.schema(&at.table).await?;
            if let Err(Unfit { problem, cure, .. }) = at.document.check_rows(&schema) {
                return Err(EngineError::Configuration(format!("table {}: {problem}; {cure}", at.table)).into());
            }
            projections.insert(at.table.clone(), Projection::new(&schema, at.document.clone()));
        }
        Ok(Self { inner, projections: Projections(projections), room: Room::default() })
    }
}

impl Projections {
    fn of(&self, table: &TableName) -> std::result::Result<&Projection, EngineError> {
        self.0.get(table).ok_or(EngineError::Damaged(Damaged("a table that is not in the pipeline")))
    }

    fn projected(&self, batch: &WriteBatch, room: &mut Room) -> std::result::Result<WriteBatch, EngineError> {
        let mut writes = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            let projection = self.of(write.change.table())?;
            let mut row = |row: &Option<_>| row.as_ref().map(|row| projection.row(row, room)).transpose();
            let change = Change {
                schema: projection.schema().clone(),
                op: write.change.op,
                before: row(&write.change.before).map_err(EngineError::Damaged)?,
                after: row(&write.change.after).map_err(EngineError::Damaged)?,
            };
            writes.push(Write { change, offset: write.offset, parked: write.parked, over: None });
        }
        let mut unpark = Vec::with_capacity(batch.unpark.len());
        for (table, key) in &batch.unpark {
            unpark.push((table.clone(), self.of(table)?.key(key, room).map_err(EngineError::Damaged)?));
        }
        Ok(WriteBatch {
            expected: batch.expected.clone(),
            marker: batch.marker.clone(),
            writes,
            unpark,
            retry: batch.retry,
        })
    }
}

/// The retry queue keeps documents, not the rows that were made of them.
struct Original<'a> {
    batch: &'a WriteBatch,
    parking: &'a dyn Parking,
}

#[async_trait]
impl Parking for Original<'_> {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        self.parking.pending(self.batch)
    }

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
            let key = self.projections.of(&waits.table)?.id(&waits.key).map_err(EngineError::Damaged)?;
            parked.push(ParkedKey { key, ..waits });
        }
        Ok(Progress { marker: progress.marker, parked })
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        let projected = self.projections.projected(batch, &mut self.room)?;
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
