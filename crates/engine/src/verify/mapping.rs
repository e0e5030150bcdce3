//! The columns of one side of a comparison as those of the other.

use crate::failure::EngineError;
use std::sync::Arc;
use sync_worker_core::convert::{Class, Conversion, Refusal, same};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Damaged, Value};

/// How the columns of one side become those of the other.
pub(super) struct Mapping {
    pub(super) from: Arc<Schema>,
    pub(super) to: Arc<Schema>,
    /// For each column of `to`: the column of `from` and the conversion.
    columns: Vec<Option<(usize, Conversion)>>,
    /// The key columns' conversions, in key order: the column of the key in `from` and the conversion.
    key: Vec<(usize, Conversion)>,
}

impl Mapping {
    pub(super) fn new(from: Arc<Schema>, to: Arc<Schema>) -> Result<Self, EngineError> {
        let mut columns = Vec::with_capacity(to.columns.len());
        for column in &to.columns {
            let Some(at) = from.column(&column.name) else {
                columns.push(None);
                continue;
            };
            let conversion = Conversion::new(&from.columns[at].kind, &column.kind);
            columns.push(Some((at, conversion.map_err(|refusal| refused(&from, &column.name, &refusal))?)));
        }
        Ok(Self { columns, ..Self::of_keys(from, to)? })
    }

    /// Of keys alone: not every type that a column may have there has a way back.
    pub(super) fn of_keys(from: Arc<Schema>, to: Arc<Schema>) -> Result<Self, EngineError> {
        let mut key = Vec::with_capacity(to.key.len());
        for &at in &to.key {
            let name = &to.columns[at].name;
            let column = from.key.iter().position(|&part| from.columns[part].name == *name);
            let Some(part) = column else {
                return Err(refused(&from, name, &"is in the key at one side only"));
            };
            let kind = &from.columns[from.key[part]].kind;
            let conversion =
                Conversion::new(kind, &to.columns[at].kind).map_err(|refusal| refused(&from, name, &refusal))?;
            key.push((part, conversion));
        }
        Ok(Self { from, to, columns: Vec::new(), key })
    }

    /// The key as the other side writes it; None where the other side can't hold it.
    pub(super) fn key(&self, key: &Key) -> Result<Option<Key>, Damaged> {
        let cells = key.cells().collect::<Result<Vec<_>, _>>()?;
        let mut builder = RowBuilder::default();
        for (part, conversion) in &self.key {
            let Some(Cell::Present(value)) = cells.get(*part) else { return Err(Damaged("a key column is unknown")) };
            if self.sealed(*part, value) {
                return Ok(None);
            }
            let mut scratch = String::new();
            match conversion.apply(*value, &mut scratch) {
                Ok(value) => builder.push(Cell::Present(value)),
                Err(Refusal(_)) => return Ok(None),
            }
        }
        Ok(Some(self.to.canonical_key(&Key::from_bytes(builder.finish().as_bytes().clone()))?))
    }

    /// A bound that only the reader of documents can read.
    fn sealed(&self, part: usize, value: &Value<'_>) -> bool {
        let kind = &self.from.columns[self.from.key[part]].kind;
        matches!(value, Value::Raw(_)) && self.from.engine == Engine::Mongodb && *kind != ColumnType::Id
    }

    /// Whether a row of `to` says what a row of `from` says, as far as `to` has the columns.
    pub(super) fn equal(&self, from: &Row, to: &Row) -> Result<bool, Damaged> {
        let values = from.cells().collect::<Result<Vec<_>, _>>()?;
        for ((cell, column), mapping) in to.cells().zip(&self.to.columns).zip(&self.columns) {
            let Some((at, conversion)) = mapping else { continue };
            let (Cell::Present(there), Some(Cell::Present(here))) = (cell?, values.get(*at).copied()) else {
                return Ok(false);
            };
            let mut scratch = String::new();
            let Ok(here) = conversion.apply(here, &mut scratch) else { return Ok(false) };
            if here != there && !same(here, there, &column.kind) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Both sides order these keys alike, so that a range of one is a range of the other.
    pub(super) fn ordered_alike(&self) -> bool {
        self.key.iter().enumerate().all(|(at, (part, conversion))| {
            let kind = &self.from.columns[self.from.key[*part]].kind;
            use ColumnType::{Bool, Bytes, Date, Int, Timestamp, TimestampTz, Year};
            let engines = [self.from.engine, self.to.engine];
            let portable = match kind {
                Bool | Int { .. } | Year => true,
                // MongoDB puts the shorter of two binaries first, and holds some of the others in another type.
                Date | Timestamp { .. } | TimestampTz { .. } | Bytes { .. } => {
                    !engines.contains(&Engine::Mongodb) || engines[0] == engines[1]
                }
                _ => false,
            };
            at == *part && portable && conversion.class() <= Class::Widened
        })
    }
}

fn refused(from: &Schema, column: &str, reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::Configuration(format!("table {}, column {column}: {reason}", from.table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::schema::Column;
    use sync_worker_core::types::TextLimit;

    /// A set becomes a text, and no text becomes a set.
    #[test]
    fn rows_are_compared_where_a_column_has_no_way_back() {
        let table = |engine, kind: ColumnType| {
            let column = |name: &str, kind: ColumnType| Column {
                name: name.to_owned(),
                type_name: kind.to_string(),
                kind,
                nullable: false,
                generated: false,
            };
            let id = column("id", ColumnType::Int { bits: 64, unsigned: false });
            Arc::new(Schema::new("t".into(), engine, vec![id, column("s", kind)], vec![0]))
        };
        let here = table(Engine::Mysql, ColumnType::Set);
        let there = table(Engine::Postgres, ColumnType::Text { limit: TextLimit::None, padded: false });
        let mut builder = RowBuilder::default();
        [Value::Int(1), Value::Text("x,y")].into_iter().for_each(|value| builder.push(Cell::Present(value)));
        let row = builder.finish();
        assert!(Mapping::new(here.clone(), there.clone()).unwrap().equal(&row, &row).unwrap());
        let (back, key) = (Mapping::of_keys(there.clone(), here.clone()).unwrap(), there.key_of(&row).unwrap());
        assert_eq!(back.key(&key).unwrap(), Some(here.key_of(&row).unwrap()));
    }
}
