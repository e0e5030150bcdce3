//! The columns of a table as one member has them, under the table's logical name.

use crate::decimal::Digits;
use crate::name::TableName;
use crate::row::{Key, Row, RowBuilder};
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Damaged, Value};
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
    /// they call a before or an after image. Of values that may be written differently it has one form, as of `1.0` and `1`.
    pub fn key_of(&self, row: &Row) -> Result<Key, Damaged> {
        if self.key.iter().any(|&column| is_loose(&self.columns[column].kind)) {
            return self.canonical_key(&self.cut_key(row)?);
        }
        self.cut_key(row)
    }

    /// A key of this schema in the form that [`Schema::key_of`] gives it: one for all that the databases take for the same.
    pub fn canonical_key(&self, key: &Key) -> Result<Key, Damaged> {
        let mut out = BytesMut::with_capacity(key.as_bytes().len());
        for (cell, &column) in key.cells().zip(&self.key) {
            match (cell?, is_loose(&self.columns[column].kind)) {
                (Cell::Present(value), true) => canonical(value, &mut out),
                (cell, _) => cell.encode(&mut out),
            }
        }
        Ok(Key::from_bytes(out.freeze()))
    }

    fn cut_key(&self, row: &Row) -> Result<Key, Damaged> {
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

/// Whether equal values of a type may be written differently. A decimal of a fixed scale has all its digits everywhere.
fn is_loose(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Decimal { precision: None, .. } | ColumnType::Float32 | ColumnType::Float64)
}

fn canonical(value: Value<'_>, out: &mut BytesMut) {
    let text;
    let value = match value {
        Value::Decimal(digits) => match Digits::parse(digits) {
            Some(digits) => {
                text = digits.to_string();
                Value::Decimal(&text)
            }
            None => value,
        },
        Value::Float32(float) => Value::Float32(if float.is_nan() { f32::NAN } else { float + 0.0 }),
        Value::Float64(float) => Value::Float64(if float.is_nan() { f64::NAN } else { float + 0.0 }),
        value => value,
    };
    Cell::Present(value).encode(out);
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({}, {:016x}, {} columns)", self.table, self.id.0, self.columns.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: ColumnType, value: Value<'_>) -> Key {
        let column = |name: &str, kind: ColumnType| Column {
            name: name.to_owned(),
            type_name: kind.to_string(),
            kind,
            nullable: false,
            generated: false,
        };
        let id = ColumnType::Int { bits: 64, unsigned: false };
        let schema = Schema::new("t".into(), Engine::Postgres, vec![column("id", id), column("k", kind)], vec![1, 0]);
        let mut row = RowBuilder::default();
        [Value::Int(1), value].into_iter().for_each(|value| row.push(Cell::Present(value)));
        let key = schema.key_of(&row.finish()).unwrap();
        assert_eq!(schema.canonical_key(&key).unwrap(), key);
        key
    }

    #[test]
    fn a_key_has_one_form_for_all_spellings() {
        let decimal = |text| key(ColumnType::Decimal { precision: None, scale: 0 }, Value::Decimal(text));
        let first = |key: &Key| format!("{:?}", key.cells().next().unwrap().unwrap());
        assert_eq!(first(&decimal("7.0")), first(&decimal("7")));
        assert_eq!(first(&decimal("-0.50")), format!("{:?}", Cell::Present(Value::Decimal("-0.5"))));
        assert_eq!(first(&decimal("-0.00")), format!("{:?}", Cell::Present(Value::Decimal("0"))));
        assert_ne!(decimal("70"), decimal("7"));
        assert_ne!(decimal("NaN"), decimal("7"));
        let float = |value| key(ColumnType::Float64, Value::Float64(value));
        assert_eq!(float(-0.0), float(0.0));
        assert_eq!(float(f64::NAN), float(-f64::NAN));
        // A scale says how many digits there are, everywhere.
        let scaled = key(ColumnType::Decimal { precision: Some(9), scale: 2 }, Value::Decimal("7.50"));
        assert_eq!(first(&scaled), format!("{:?}", Cell::Present(Value::Decimal("7.50"))));
    }
}
