//! A collection read as a table with the columns of another one, its types included.

use crate::failure::EngineError;
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use sync_worker_core::convert::Conversion;
use sync_worker_core::document::mapping::DocumentMapping;
use sync_worker_core::document::projection::{Projection, Room};
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};

/// Documents with a key that the table can't hold are kept by their `_id` up to here; above it they are counted.
const MOST_UNHELD: usize = 100_000;

/// Documents that are looked up at a time.
const IDS_AT_A_TIME: usize = 500;

struct Table {
    projection: Projection,
    /// The other table's columns.
    schema: Arc<Schema>,
    /// For each column.
    conversions: Vec<Conversion>,
    /// Met so far: `_id`s, in the collection's own form, that are no key of the table.
    unheld: HashSet<Key>,
    more: u64,
}

pub struct ProjectedReader {
    inner: Box<dyn TableReader>,
    tables: HashMap<TableName, Table>,
    room: Room,
}

impl ProjectedReader {
    pub fn new(inner: Box<dyn TableReader>) -> Self {
        Self { inner, tables: HashMap::new(), room: Room::default() }
    }

    /// Sees a collection as the table that has this schema.
    pub fn see(&mut self, table: &TableName, other: &Schema, mapping: DocumentMapping) -> Result<()> {
        let mut conversions = Vec::with_capacity(other.columns.len());
        for column in &other.columns {
            // No document is written to a set, but what a set holds is compared with its text.
            let kind = match &column.kind {
                ColumnType::Set => &ColumnType::Text { limit: TextLimit::None, padded: false },
                kind => kind,
            };
            conversions.push(Conversion::new(&ColumnType::Field, kind).map_err(|refusal| {
                EngineError::Configuration(format!("table {table}, column {}: {refusal}", column.name))
            })?);
        }
        let schema = Arc::new(Schema::new(table.clone(), Engine::Mongodb, other.columns.clone(), other.key.clone()));
        let projection = Projection::new(other, mapping);
        self.tables.insert(table.clone(), Table { projection, schema, conversions, unheld: HashSet::new(), more: 0 });
        Ok(())
    }

    /// The collection's own columns.
    pub async fn own_schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        self.inner.schema(table).await
    }

    fn table(&self, table: &TableName) -> std::result::Result<&Table, EngineError> {
        self.tables.get(table).ok_or_else(|| unknown(table))
    }

    fn range(&self, table: &TableName, range: &KeyRange) -> std::result::Result<KeyRange, EngineError> {
        let bound = |key: &Option<Key>| key.as_ref().map(|key| self.bound(table, key)).transpose();
        Ok(KeyRange { after: bound(&range.after)?, up_to: bound(&range.up_to)? })
    }

    /// A bound that a comparison has of this reader, or of the other table, whose keys stand in the same order.
    fn bound(&self, table: &TableName, key: &Key) -> std::result::Result<Key, EngineError> {
        let known = self.table(table)?;
        if Projection::is_sealed(key) {
            return known.projection.id(key).map_err(EngineError::Damaged);
        }
        let ids = known.projection.ids_of_columns(key, &known.schema).map_err(EngineError::Damaged)?;
        let first = ids.map(|ids| ids.into_iter().next());
        let refused = |reason: &dyn std::fmt::Display| {
            EngineError::Configuration(format!("table {table}: a key can't be that of a document: {reason}"))
        };
        first.map_err(|refusal| refused(&refusal))?.ok_or_else(|| refused(&"it is empty"))
    }

    /// The documents that these keys may be of; a key that no document can have is of none.
    fn ids(&self, table: &TableName, keys: &[Key]) -> std::result::Result<Vec<Key>, EngineError> {
        let known = self.table(table)?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            if let Ok(ids) = known.projection.ids_of_columns(key, &known.schema).map_err(EngineError::Damaged)? {
                found.extend(ids);
            }
        }
        Ok(found)
    }

    /// The keys of documents in the collection's own form: of those that are there the ones that they have, of the
    /// others the ones that they would be written with.
    pub async fn own_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Vec<Key>> {
        let own = self.inner.schema(table).await?;
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(IDS_AT_A_TIME) {
            let mut there = HashSet::new();
            for row in self.inner.read_keys(table, &self.ids(table, keys)?).await?.rows {
                there.insert(own.key_of(&row).map_err(EngineError::Damaged)?);
            }
            for key in keys {
                let ids = self.ids(table, std::slice::from_ref(key))?;
                let is_there = ids.iter().any(|id| there.contains(id));
                let which = |(at, id): &(usize, Key)| if is_there { there.contains(id) } else { *at == 0 };
                found.extend(ids.into_iter().enumerate().filter(which).map(|(_, id)| id));
            }
        }
        Ok(found)
    }

    /// The keys of the documents that no row can be of, of those met so far that are still there, and how many of them
    /// were only counted.
    pub async fn unheld(&mut self, table: &TableName) -> Result<(Vec<Key>, u64)> {
        let known = self.table(table)?;
        let (ids, more) = (known.unheld.iter().cloned().collect::<Vec<_>>(), known.more);
        let own = self.inner.schema(table).await?;
        let mut left = Vec::new();
        for ids in ids.chunks(IDS_AT_A_TIME) {
            for row in self.inner.read_keys(table, ids).await?.rows {
                left.push(own.key_of(&row).map_err(EngineError::Damaged)?);
            }
        }
        left.sort_unstable();
        Ok((left, more))
    }

    fn chunk(&mut self, table: &TableName, chunk: Chunk) -> std::result::Result<Chunk, EngineError> {
        let known = self.tables.get_mut(table).ok_or_else(|| unknown(table))?;
        let mut rows = Vec::with_capacity(chunk.rows.len());
        for row in &chunk.rows {
            match known.row(row, &mut self.room)? {
                Some(row) => rows.push(row),
                None => known.not_held(chunk.schema.key_of(row).map_err(EngineError::Damaged)?.detached()),
            }
        }
        let cut_at = chunk.cut_at.as_ref().map(|key| known.projection.sealed(key, &mut self.room)).transpose();
        Ok(Chunk {
            schema: known.schema.clone(),
            rows,
            high: chunk.high,
            cut_at: cut_at.map_err(EngineError::Damaged)?,
        })
    }
}

fn unknown(table: &TableName) -> EngineError {
    EngineError::Configuration(format!("table {table} is not one of this pipeline"))
}

impl Table {
    /// None for a key that the table can't hold. Another value that its column can't hold is unknown, which no value is
    /// equal to.
    fn row(&self, row: &Row, room: &mut Room) -> std::result::Result<Option<Row>, EngineError> {
        let flat = self.projection.row(row, room).map_err(EngineError::Damaged)?;
        let (mut builder, mut scratch) = (RowBuilder::default(), String::new());
        for (at, (cell, conversion)) in flat.cells().zip(&self.conversions).enumerate() {
            match cell.map_err(EngineError::Damaged)? {
                Cell::Present(value) => match converted(conversion, value, &mut scratch) {
                    Some(value) => builder.push(Cell::Present(value)),
                    None if self.schema.key.contains(&at) => return Ok(None),
                    None => builder.push(Cell::Unchanged),
                },
                Cell::Unchanged => builder.push(Cell::Unchanged),
            }
        }
        Ok(Some(builder.finish()))
    }

    /// None for a key that the table can't hold.
    fn key(&self, key: &Key, room: &mut Room) -> std::result::Result<Option<Key>, EngineError> {
        let flat = self.projection.key(key, room).map_err(EngineError::Damaged)?;
        let (mut builder, mut scratch) = (RowBuilder::default(), String::new());
        for (cell, &column) in flat.cells().zip(&self.schema.key) {
            let Cell::Present(value) = cell.map_err(EngineError::Damaged)? else { return Ok(None) };
            match converted(&self.conversions[column], value, &mut scratch) {
                Some(value) => builder.push(Cell::Present(value)),
                None => return Ok(None),
            }
        }
        let key = Key::from_bytes(builder.finish().as_bytes().clone());
        Ok(Some(self.schema.canonical_key(&key).map_err(EngineError::Damaged)?))
    }

    fn not_held(&mut self, id: Key) {
        if self.unheld.len() < MOST_UNHELD {
            self.unheld.insert(id);
        } else if !self.unheld.contains(&id) {
            self.more += 1;
        }
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

    /// In the table's form where that leads back to the very document, else in one that this reader alone can read.
    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        let after = after.map(|key| self.bound(table, key)).transpose()?;
        let Some(found) = self.inner.boundary(table, after.as_ref(), rows).await? else { return Ok(None) };
        let known = self.tables.get(table).ok_or_else(|| unknown(table))?;
        if let Some(key) = known.key(&found, &mut self.room)? {
            let ids = known.projection.ids_of_columns(&key, &known.schema).map_err(EngineError::Damaged)?;
            if ids.is_ok_and(|ids| ids.first() == Some(&found)) {
                return Ok(Some(key));
            }
        }
        Ok(Some(known.projection.sealed(&found, &mut self.room).map_err(EngineError::Damaged)?))
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        let range = self.range(table, range)?;
        let chunk = self.inner.read_range(table, &range, bytes).await?;
        Ok(self.chunk(table, chunk)?)
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        let ids = self.ids(table, keys)?;
        let chunk = self.inner.read_keys(table, &ids).await?;
        Ok(self.chunk(table, chunk)?)
    }
}
