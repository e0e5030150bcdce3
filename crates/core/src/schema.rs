//! The columns of a table as one member has them, under the table's logical name.

use crate::name::TableName;
use crate::row::{Key, Row, RowBuilder};
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Damaged};
use bytes::BytesMut;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    /// The engine's own spelling, `character varying(20)` or `bigint unsigned`, for messages and documents.
    pub type_name: String,
    pub nullable: bool,
    /// Computed by the database: captured from none and written to none.
    pub generated: bool,
}

/// Identifies a schema by its content, so that two captures of the same columns agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u64);

#[derive(Clone, PartialEq, Eq)]
pub struct Schema {
    pub id: SchemaId,
    pub table: TableName,
    pub engine: Engine,
    /// In the order of the cells of a row. Generated columns are left out.
    pub columns: Vec<Column>,
    /// Indexes into `columns`, in key order; never empty.
    pub key: Vec<usize>,
}

impl Schema {
    pub fn new(table: TableName, engine: Engine, columns: Vec<Column>, key: Vec<usize>) -> Self {
        let mut text = format!("{table}\0{engine}\0{key:?}");
        for column in &columns {
            text.push_str(&format!("\0{}\0{}\0{}\0{}", column.name, column.kind, column.type_name, column.nullable));
        }
        let id = SchemaId(xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        Self { id, table, engine, columns, key }
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// A row of another schema of the table in the columns of this one; what it lacks is Unchanged.
    pub fn row_of(&self, row: &Row, from: &Schema) -> Result<Row, Damaged> {
        if from.id == self.id {
            return Ok(row.clone());
        }
        let cells = row.cells().collect::<Result<Vec<_>, _>>()?;
        let mut builder = RowBuilder::default();
        for column in &self.columns {
            let cell = from.columns.iter().position(|old| old.name == column.name && old.kind == column.kind);
            builder.push(cell.and_then(|at| cells.get(at)).copied().unwrap_or(Cell::Unchanged));
        }
        Ok(builder.finish())
    }

    /// The key of a row of this schema. The key columns must be Present: sources guarantee that for every image that
    /// they call a before or an after image.
    pub fn key_of(&self, row: &Row) -> Result<Key, Damaged> {
        let bytes = row.as_bytes();
        // Most keys are one leading column, or several in order: then the key is a slice of the row.
        if self.key.iter().enumerate().all(|(at, &column)| at == column) {
            let mut rest = &bytes[..];
            for _ in &self.key {
                if rest.first() == Some(&0) {
                    return Err(Damaged("a key column is unknown"));
                }
                Cell::skip(&mut rest)?;
            }
            return Ok(Key::from_bytes(bytes.slice(..bytes.len() - rest.len())));
        }
        let cells = row.cells().collect::<Result<Vec<_>, _>>()?;
        let mut out = BytesMut::new();
        for &column in &self.key {
            match cells.get(column) {
                Some(cell @ Cell::Present(_)) => cell.encode(&mut out),
                Some(Cell::Unchanged) => return Err(Damaged("a key column is unknown")),
                None => return Err(Damaged("the row has fewer columns than its schema")),
            }
        }
        Ok(Key::from_bytes(out.freeze()))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({}, {:016x}, {} columns)", self.table, self.id.0, self.columns.len())
    }
}
