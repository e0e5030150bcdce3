//! Our own transactions in the log of a two-way member: rows of `sync_worker.progress` and `sync_worker.parked` as an
//! [`Echo`] (invariant 4).

use super::rows::partial;
use crate::error::Error;
use crate::own_tables::{PARKED, PARTITION, PROGRESS};
use bytes::Bytes;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::Scope;
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho, WRITTEN};
use sync_worker_core::guard::Seen;
use sync_worker_core::name::{DatabaseName, InstallationId, PipelineName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Damaged, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnTable {
    Progress,
    Parked,
}

impl OwnTable {
    pub const ALL: [OwnTable; 2] = [OwnTable::Progress, OwnTable::Parked];

    pub fn as_str(self) -> &'static str {
        match self {
            OwnTable::Progress => PROGRESS,
            OwnTable::Parked => PARKED,
        }
    }
}

/// Whose rows are ours: those of other pipelines and installations stand in the same tables.
pub struct Ours {
    installation: InstallationId,
    pipeline: PipelineName,
    database: DatabaseName,
}

impl Ours {
    pub fn new(scope: &Scope, database: &DatabaseName) -> Self {
        Self { installation: scope.installation.clone(), pipeline: scope.pipeline.clone(), database: database.clone() }
    }

    /// Adds what a row of these tables tells of its transaction. The marker comes first: a parked row that is met before it
    /// was touched by a person. Returns about how much the echo has grown.
    pub fn take(&self, table: OwnTable, change: &Change, echo: &mut Option<Echo>) -> Result<usize, Error> {
        let schema = &*change.schema;
        let old = change.before.as_ref().map(|row| OwnRow::read(schema, row)).transpose()?;
        let new = change.after.as_ref().map(|row| OwnRow::read(schema, row)).transpose()?;
        let Some(row) = new.as_ref().or(old.as_ref()) else { return Ok(0) };
        if !self.is_of(row)? {
            return Ok(0);
        }
        let mut grown = 0;
        match (table, echo) {
            (OwnTable::Progress, echo) => {
                if let Some(new) = &new {
                    echo.get_or_insert_default().offset = new.number("offset")?.map(Offset);
                }
            }
            (OwnTable::Parked, Some(echo)) => {
                let missing = || partial(&schema.table);
                match change.op {
                    Op::Create => grown += park(echo, new.as_ref().ok_or_else(missing)?)?,
                    Op::Update => {
                        let (old, new) = (old.as_ref().ok_or_else(missing)?, new.as_ref().ok_or_else(missing)?);
                        let written = new.text("reason")? == WRITTEN;
                        grown += unpark(echo, old, written)?;
                        if !written {
                            grown += park(echo, new)?;
                        }
                    }
                    Op::Delete => {
                        let old = old.as_ref().ok_or_else(missing)?;
                        // The update before it has told.
                        if old.text("reason")? != WRITTEN {
                            grown += unpark(echo, old, false)?;
                        }
                    }
                    Op::Read | Op::Truncate => {}
                }
            }
            (OwnTable::Parked, None) => {}
        }
        Ok(grown)
    }

    fn is_of(&self, row: &OwnRow<'_>) -> Result<bool, Error> {
        Ok(row.text("installation")? == self.installation.as_str()
            && row.text("pipeline")? == self.pipeline.as_str()
            && row.text("database")? == self.database.as_str()
            && row.number("partition")? == Some(u64::from(PARTITION)))
    }
}

fn park(echo: &mut Echo, row: &OwnRow<'_>) -> Result<usize, Error> {
    let offset = row.number("offset")?.ok_or(Damaged("a parked row without an offset"))?;
    let seen = row.seen()?;
    let key = row.key()?;
    let size = key.as_bytes().len() + seen.as_ref().map_or(0, Seen::size) + size_of::<ParkedEcho>();
    echo.parked.push(ParkedEcho { table: row.table()?, key, offset: Offset(offset), seen });
    Ok(size)
}

fn unpark(echo: &mut Echo, row: &OwnRow<'_>, written: bool) -> Result<usize, Error> {
    let key = row.key()?;
    let size = key.as_bytes().len() + size_of::<UnparkedEcho>();
    echo.unparked.push(UnparkedEcho { table: row.table()?, key, written });
    Ok(size)
}

/// A row, its columns by their names.
struct OwnRow<'a> {
    schema: &'a Schema,
    cells: Vec<Cell<'a>>,
}

impl<'a> OwnRow<'a> {
    fn read(schema: &'a Schema, row: &'a Row) -> Result<Self, Error> {
        Ok(Self { schema, cells: row.cells().collect::<Result<_, _>>()? })
    }

    fn value(&self, column: &str) -> Result<Value<'a>, Error> {
        match self.schema.column(column).and_then(|at| self.cells.get(at)) {
            Some(Cell::Present(value)) => Ok(*value),
            Some(Cell::Unchanged) => Err(partial(&self.schema.table)),
            None => Err(self.foreign(column)),
        }
    }

    fn foreign(&self, column: &str) -> Error {
        let table = &self.schema.table;
        Error::Fatal(format!(
            "column {column} of table {table} is not as this version makes it; stop all workers, DROP TABLE {table}, then remove the pipeline's state"
        ))
    }

    fn text(&self, column: &str) -> Result<&'a str, Error> {
        match self.value(column)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.foreign(column)),
        }
    }

    /// None for NULL.
    fn number(&self, column: &str) -> Result<Option<u64>, Error> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::UInt(number) => Ok(Some(number)),
            Value::Int(number) => u64::try_from(number).map(Some).map_err(|_| self.foreign(column)),
            _ => Err(self.foreign(column)),
        }
    }

    fn table(&self) -> Result<TableName, Error> {
        Ok(TableName::new(self.text("table_name")?))
    }

    fn key(&self) -> Result<Key, Error> {
        match self.value("key")? {
            Value::Bytes(bytes) => Ok(Key::from_bytes(Bytes::copy_from_slice(bytes))),
            _ => Err(self.foreign("key")),
        }
    }

    fn seen(&self) -> Result<Option<Seen>, Error> {
        match self.value("seen")? {
            Value::Null => Ok(None),
            // People may have written to the table: what can't be read differs all the same.
            Value::Bytes(bytes) => Ok(Some(Seen::from_bytes(bytes).unwrap_or(Seen::UNKNOWN))),
            _ => Err(self.foreign("seen")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sync_worker_core::row::RowBuilder;
    use sync_worker_core::schema::Column;
    use sync_worker_core::types::{ColumnType, Engine};

    const COLUMNS: [&str; 9] =
        ["installation", "pipeline", "database", "partition", "table_name", "key", "offset", "reason", "seen"];

    fn schema() -> Arc<Schema> {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: ColumnType::Year,
            type_name: String::new(),
            nullable: true,
            generated: false,
        };
        let columns = COLUMNS.iter().map(|name| column(name)).collect();
        Arc::new(Schema::new("sync_worker.parked".into(), Engine::Mysql, columns, vec![0]))
    }

    fn row(pipeline: &str, reason: &str, seen: Value<'_>) -> Row {
        let mut builder = RowBuilder::default();
        let head = [Value::Text("i"), Value::Text(pipeline), Value::Text("shop"), Value::Int(0)];
        let tail = [Value::Text("t"), Value::Bytes(b"k"), Value::Int(7), Value::Text(reason), seen];
        head.into_iter().chain(tail).for_each(|value| builder.push(Cell::Present(value)));
        builder.finish()
    }

    #[test]
    fn a_replaced_parked_row_is_told_alike_however_it_is_logged() {
        let ours = Ours { installation: "i".into(), pipeline: "p".into(), database: "shop".into() };
        let change = |op, before: Option<&Row>, after: Option<&Row>| Change {
            schema: schema(),
            op,
            before: before.cloned(),
            after: after.cloned(),
        };
        let (refused, differs) = (row("p", "no parent", Value::Null), row("p", "differs", Value::Bytes(b"")));
        let told = |changes: &[Change]| {
            let mut echo = Some(Echo::default());
            for change in changes {
                ours.take(OwnTable::Parked, change, &mut echo).unwrap();
            }
            echo.unwrap()
        };
        let parts = [change(Op::Delete, Some(&refused), None), change(Op::Create, None, Some(&differs))];
        let echo = told(&parts);
        assert_eq!(echo, told(&[change(Op::Update, Some(&refused), Some(&differs))]));
        assert_eq!((echo.parked.len(), echo.unparked.len()), (1, 1));
        assert!(echo.parked[0].seen.is_some() && !echo.unparked[0].written);
        let written = row("p", WRITTEN, Value::Null);
        let parts = [change(Op::Update, Some(&refused), Some(&written)), change(Op::Delete, Some(&written), None)];
        let echo = told(&parts);
        assert!(echo.parked.is_empty());
        assert_eq!(echo.unparked.iter().map(|one| one.written).collect::<Vec<_>>(), [true]);
        let other = row("q", "differs", Value::Null);
        assert_eq!(told(&[change(Op::Create, None, Some(&other))]), Echo::default());
    }

    #[test]
    fn only_the_own_marker_makes_an_echo() {
        let ours = Ours { installation: "i".into(), pipeline: "p".into(), database: "shop".into() };
        for (pipeline, offset) in [("p", Some(Some(Offset(7)))), ("q", None)] {
            let after = Some(row(pipeline, "", Value::Null));
            let change = Change { schema: schema(), op: Op::Update, before: None, after };
            let mut echo = None;
            ours.take(OwnTable::Progress, &change, &mut echo).unwrap();
            assert_eq!(echo.map(|echo| echo.offset), offset);
        }
    }
}
