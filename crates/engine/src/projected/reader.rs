//! A collection read as a table with the columns of another one, its types included.

use crate::failure::EngineError;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::convert::Conversion;
use sync_worker_core::document::projection::{DocumentMapping, Projection};
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Value};

struct Table {
    projection: Projection,
    /// The other table's columns.
    schema: Arc<Schema>,
    /// For each column.
    conversions: Vec<Conversion>,
}

pub struct ProjectedReader {
    inner: Box<dyn TableReader>,
    tables: HashMap<TableName, Table>,
}

impl ProjectedReader {
    pub fn new(inner: Box<dyn TableReader>) -> Self {
        Self { inner, tables: HashMap::new() }
    }

    /// Sees a collection as the table that has this schema.
    pub fn see(&mut self, table: &TableName, other: &Schema) -> Result<()> {
        let mut conversions = Vec::with_capacity(other.columns.len());
        for column in &other.columns {
            conversions.push(Conversion::new(&ColumnType::Field, &column.kind).map_err(|refusal| {
                EngineError::Configuration(format!("table {table}, column {}: {refusal}", column.name))
            })?);
        }
        let schema = Schema::new(table.clone(), Engine::Mongodb, other.columns.clone(), other.key.clone());
        let projection = Projection::new(other, DocumentMapping::default());
        self.tables.insert(table.clone(), Table { projection, schema: Arc::new(schema), conversions });
        Ok(())
    }

    /// The collection's own columns.
    pub async fn own_schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        self.inner.schema(table).await
    }

    fn table(&self, table: &TableName) -> std::result::Result<&Table, EngineError> {
        let unknown = || EngineError::Configuration(format!("table {table} is not one of this pipeline"));
        self.tables.get(table).ok_or_else(unknown)
    }

    fn range(&self, table: &TableName, range: &KeyRange) -> std::result::Result<KeyRange, EngineError> {
        let bound = |key: &Option<Key>| key.as_ref().map(|key| self.id(table, key)).transpose();
        Ok(KeyRange { after: bound(&range.after)?, up_to: bound(&range.up_to)? })
    }

    /// The key of a document in the collection's own form.
    pub fn id(&self, table: &TableName, key: &Key) -> std::result::Result<Key, EngineError> {
        let known = self.table(table)?;
        let id = known.projection.id_of_columns(key, &known.schema).map_err(EngineError::Damaged)?;
        id.map_err(|refusal| EngineError::Configuration(format!("table {table}: its key: {refusal}")))
    }
}

impl Table {
    /// A value that the column can't hold is unknown, which no value is equal to.
    fn row(&self, row: &Row) -> std::result::Result<Row, EngineError> {
        let flat = self.projection.row(row).map_err(EngineError::Damaged)?;
        let mut builder = RowBuilder::default();
        for (at, (cell, conversion)) in flat.cells().zip(&self.conversions).enumerate() {
            let mut scratch = String::new();
            match cell.map_err(EngineError::Damaged)? {
                Cell::Present(value) => match converted(conversion, value, &mut scratch) {
                    Some(value) => builder.push(Cell::Present(value)),
                    None if self.schema.key.contains(&at) => return Err(self.no_key()),
                    None => builder.push(Cell::Unchanged),
                },
                Cell::Unchanged => builder.push(Cell::Unchanged),
            }
        }
        Ok(builder.finish())
    }

    fn key(&self, key: &Key) -> std::result::Result<Key, EngineError> {
        let flat = self.projection.key(key).map_err(EngineError::Damaged)?;
        let mut builder = RowBuilder::default();
        for (cell, &column) in flat.cells().zip(&self.schema.key) {
            let mut scratch = String::new();
            let Cell::Present(value) = cell.map_err(EngineError::Damaged)? else { return Err(self.no_key()) };
            let value = converted(&self.conversions[column], value, &mut scratch).ok_or_else(|| self.no_key())?;
            builder.push(Cell::Present(value));
        }
        Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
    }

    fn no_key(&self) -> EngineError {
        EngineError::Configuration(format!(
            "table {}: the collection has an _id that the table's key can't hold; such documents can't be compared",
            self.schema.table
        ))
    }

    fn chunk(&self, chunk: Chunk) -> std::result::Result<Chunk, EngineError> {
        let rows = chunk.rows.iter().map(|row| self.row(row)).collect::<std::result::Result<_, _>>()?;
        let cut_at = chunk.cut_at.as_ref().map(|key| self.key(key)).transpose()?;
        Ok(Chunk { schema: self.schema.clone(), rows, high: chunk.high, cut_at })
    }
}

fn converted<'a>(conversion: &Conversion, value: Value<'a>, scratch: &'a mut String) -> Option<Value<'a>> {
    match value {
        Value::Null => Some(Value::Null),
        value => conversion.apply(value, scratch).ok(),
    }
}

#[async_trait]
impl TableReader for ProjectedReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(self.table(table)?.schema.clone())
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        self.inner.estimate(table).await
    }

    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        let after = after.map(|key| self.id(table, key)).transpose()?;
        let found = self.inner.boundary(table, after.as_ref(), rows).await?;
        let known = self.table(table)?;
        Ok(found.map(|key| known.key(&key)).transpose()?)
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        let range = self.range(table, range)?;
        let chunk = self.inner.read_range(table, &range, bytes).await?;
        Ok(self.table(table)?.chunk(chunk)?)
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        let ids = keys.iter().map(|key| self.id(table, key)).collect::<std::result::Result<Vec<_>, _>>()?;
        let chunk = self.inner.read_keys(table, &ids).await?;
        Ok(self.table(table)?.chunk(chunk)?)
    }
}
