//! The schemas that deferred rows and those of conflicts are written in, as JSON.

use crate::checksum::Checksum;
use crate::error::Fault;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Column, Schema, SchemaId};
use sync_worker_core::types::Engine;

#[derive(Serialize, Deserialize)]
struct StoredSchema {
    table: String,
    engine: String,
    columns: Vec<StoredColumn>,
    key: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct StoredColumn {
    name: String,
    kind: String,
    type_name: String,
    nullable: bool,
    generated: bool,
}

/// Keeps a schema; one that is known already is left alone.
pub(crate) fn keep(connection: &Connection, schema: &Schema) -> Result<i64, Fault> {
    let id = schema.id.0.cast_signed();
    let mut known = connection.prepare_cached("SELECT 1 FROM schema WHERE id = ?1")?;
    if known.exists([id])? {
        return Ok(id);
    }
    let body = to_json(schema)?;
    let mut insert = connection.prepare_cached("INSERT INTO schema (id, body, checksum) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![id, body, checksum(id, &body).finish()])?;
    Ok(id)
}

/// Schemas read for one call: all its rows of one schema share it.
#[derive(Default)]
pub(crate) struct Schemas(HashMap<i64, Arc<Schema>>);

impl Schemas {
    pub(crate) fn read(&mut self, connection: &Connection, id: i64) -> Result<Arc<Schema>, Fault> {
        if let Some(schema) = self.0.get(&id) {
            return Ok(schema.clone());
        }
        let mut statement = connection.prepare_cached("SELECT body, checksum FROM schema WHERE id = ?1")?;
        let (body, stored): (String, i64) = statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        checksum(id, &body).verify("schema", stored)?;
        let schema = Arc::new(from_json(id, &body).ok_or_else(|| Fault::Damaged("a schema can't be read".to_owned()))?);
        self.0.insert(id, schema.clone());
        Ok(schema)
    }
}

fn checksum(id: i64, body: &str) -> Checksum {
    Checksum::of("schema").number(id).text(body)
}

fn to_json(schema: &Schema) -> Result<String, Fault> {
    let columns = schema.columns.iter().map(|column| StoredColumn {
        name: column.name.clone(),
        kind: column.kind.to_string(),
        type_name: column.type_name.clone(),
        nullable: column.nullable,
        generated: column.generated,
    });
    let stored = StoredSchema {
        table: schema.table.to_string(),
        engine: schema.engine.to_string(),
        columns: columns.collect(),
        key: schema.key.clone(),
    };
    serde_json::to_string(&stored).map_err(|error| Fault::Damaged(format!("a schema can't be written: {error}")))
}

fn from_json(id: i64, body: &str) -> Option<Schema> {
    let stored: StoredSchema = serde_json::from_str(body).ok()?;
    let columns = stored.columns.into_iter().map(|column| {
        Some(Column {
            name: column.name,
            kind: column.kind.parse().ok()?,
            type_name: column.type_name,
            nullable: column.nullable,
            generated: column.generated,
        })
    });
    let engine = Engine::ALL.into_iter().find(|engine| engine.as_str() == stored.engine)?;
    Some(Schema {
        id: SchemaId(id.cast_unsigned()),
        table: TableName::new(&stored.table),
        engine,
        columns: columns.collect::<Option<_>>()?,
        key: stored.key,
    })
}
