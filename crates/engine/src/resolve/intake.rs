//! What a member's change says about the logical rows of its table.

use crate::failure::EngineError;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::guard::Image;
use sync_worker_core::logical::{Normalizer, Unfit};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::value::Damaged;

/// One thing that a change says. A changed key says two: a delete and an insert. Keys, and rows that are written, are in
/// memory of their own.
#[derive(Debug)]
pub enum Said {
    /// A row of a snapshot.
    Read { key: Key, row: Row },
    /// A row was written over another one; `before` is None where there was none, and where it is not known in full.
    Written { key: Key, before: Option<Row>, before_image: Image, after: Option<Row> },
    /// A repair has found no row under the key. As a snapshot row, it never beats a change.
    Gone { key: Key },
    /// A row that the logical table has no place for, because of this column.
    Unfit { column: String, reason: String },
}

/// Why a change can't be taken.
#[derive(Debug)]
pub enum Untaken {
    /// Nothing of its table can be, for this reason: no row before or after it is to be trusted.
    Table(String),
    Stop(EngineError),
}

impl From<Damaged> for Untaken {
    fn from(damaged: Damaged) -> Self {
        Untaken::Stop(damaged.into())
    }
}

impl From<EngineError> for Untaken {
    fn from(error: EngineError) -> Self {
        Untaken::Stop(error)
    }
}

/// Memory that is used again for each row.
#[derive(Default)]
pub struct Room {
    builder: RowBuilder,
    scratch: String,
}

/// What stood under a key before; `row` is None where that is not known in full.
struct Old {
    key: Key,
    row: Option<Row>,
}

/// Tells `say` what the change says.
pub fn read(
    origin: &DatabaseName,
    change: &Change,
    normalizer: &Normalizer,
    room: &mut Room,
    mut say: impl FnMut(Said),
) -> Result<(), Untaken> {
    let Room { builder, scratch } = room;
    if change.op == Op::Truncate {
        return Err(Untaken::Table(format!(
            "it was truncated at {origin}, which says nothing about rows that others have written meanwhile"
        )));
    }
    let partial = || {
        Untaken::Table(format!(
            "{origin} sends rows without all of their columns, which a two-way pipeline needs: set full row images there \
             (REPLICA IDENTITY FULL, binlog_row_image = FULL, pre- and post-images)"
        ))
    };
    let schema = normalizer.schema();
    let mut old = None;
    match (change.op, &change.before) {
        (Op::Create | Op::Read | Op::Truncate, _) | (Op::Delete, None) => {}
        (Op::Update, None) => return Err(partial()),
        (Op::Update | Op::Delete, Some(before)) => match normalizer.row(before, builder, scratch) {
            Ok(row) if !row.is_partial()? => old = Some(Old { key: schema.key_of(&row)?, row: Some(row) }),
            Ok(_) if change.op == Op::Update => return Err(partial()),
            // A stream has whole rows, and a repair knows no more of what is gone than its key.
            Ok(row) => {
                say(Said::Gone { key: schema.key_of(&row)?.detached() });
                return Ok(());
            }
            Err(Unfit::Refused(..)) => match normalizer.key(before, builder, scratch) {
                Ok(key) => old = Some(Old { key, row: None }),
                // Nobody else has ever had it.
                Err(Unfit::Refused(..)) => {}
                Err(Unfit::Damaged(damaged)) => return Err(damaged.into()),
            },
            Err(Unfit::Damaged(damaged)) => return Err(damaged.into()),
        },
    }
    let mut new = None;
    if let Some(after) = &change.after {
        match normalizer.row(after, builder, scratch) {
            Ok(row) => {
                let row = match (row.is_partial()?, old.as_ref().and_then(|old| old.row.as_ref())) {
                    (true, Some(before)) => Some(row.over(before)?).filter(|row| matches!(row.is_partial(), Ok(false))),
                    (true, None) => None,
                    (false, _) => Some(row.detached()),
                };
                let row = row.ok_or_else(partial)?;
                new = Some((schema.key_of(&row)?, row));
            }
            Err(Unfit::Refused(column, refusal)) => {
                say(Said::Unfit { column, reason: refusal.to_string() });
                match normalizer.key(after, builder, scratch) {
                    // Others keep the row that they have, until one comes that fits.
                    Ok(key) if old.as_ref().is_some_and(|old| old.key == key) => return Ok(()),
                    Ok(_) | Err(Unfit::Refused(..)) => {}
                    Err(Unfit::Damaged(damaged)) => return Err(damaged.into()),
                }
            }
            Err(Unfit::Damaged(damaged)) => return Err(damaged.into()),
        }
    }
    let image = |row: &Option<Row>| row.as_ref().map_or(Image::UNKNOWN, |row| Image::of(Some(row)));
    let stays = |old: &Old| new.as_ref().is_some_and(|(key, _)| *key == old.key);
    let mut over = (None, Image::Absent);
    if let Some(old) = old {
        let before_image = image(&old.row);
        if stays(&old) {
            over = (old.row, before_image);
        } else {
            // A changed key is a delete and an insert.
            say(Said::Written { key: old.key.detached(), before: old.row, before_image, after: None });
        }
    }
    match new {
        Some((key, row)) if change.op == Op::Read => say(Said::Read { key, row }),
        Some((key, row)) => {
            say(Said::Written { key, before: over.0, before_image: over.1, after: Some(row) });
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sync_worker_core::document::kind;
    use sync_worker_core::document::mapping::{DocumentMapping, OtherFields};
    use sync_worker_core::document::write::Writer;
    use sync_worker_core::schema::{Column, Schema};
    use sync_worker_core::types::{ColumnType, Engine};
    use sync_worker_core::value::{Cell, Value};

    fn schema(engine: Engine, columns: &[(&str, ColumnType)]) -> Arc<Schema> {
        let column = |(name, kind): &(&str, ColumnType)| Column {
            name: (*name).to_owned(),
            kind: kind.clone(),
            type_name: kind.to_string(),
            nullable: true,
            generated: false,
        };
        Arc::new(Schema::new("t".into(), engine, columns.iter().map(column).collect(), vec![0]))
    }

    struct Collection {
        schema: Arc<Schema>,
        normalizer: Normalizer,
    }

    impl Collection {
        fn new() -> Self {
            const LONG: ColumnType = ColumnType::Int { bits: 64, unsigned: false };
            let table = schema(Engine::Postgres, &[("id", LONG), ("v", LONG)]);
            let refuse = DocumentMapping { other_fields: OtherFields::Refuse, ..DocumentMapping::default() };
            let schema = schema(Engine::Mongodb, &[("_id", ColumnType::Id), ("document", ColumnType::Document)]);
            Self { schema, normalizer: Normalizer::of_documents(table, refuse).unwrap() }
        }

        /// A document with a number as its `v`, or with a text.
        fn document(v: Result<i64, &str>) -> Row {
            let mut writer = Writer::default();
            writer.put(kind::INT32, "_id", &7i32.to_le_bytes()).unwrap();
            match v {
                Ok(number) => writer.put(kind::INT64, "v", &number.to_le_bytes()).unwrap(),
                Err(text) => writer.text("v", text).unwrap(),
            }
            let mut builder = RowBuilder::default();
            builder.push(Cell::Present(Value::Int(7)));
            builder.push(Cell::Present(Value::Document(&writer.finish().unwrap())));
            builder.finish()
        }

        /// In few words: the kind, whether the row before is known, and the value written.
        fn says(&self, op: Op, before: Option<Row>, after: Option<Row>) -> Vec<String> {
            let change = Change { schema: self.schema.clone(), op, before, after };
            let mut said = Vec::new();
            let value = |row: &Row| format!("{:?}", row.cells().nth(1).unwrap().unwrap());
            read(&"shop".into(), &change, &self.normalizer, &mut Room::default(), |one| {
                said.push(match one {
                    Said::Read { row, .. } => format!("read {}", value(&row)),
                    Said::Written { before, before_image, after, .. } => {
                        let over = match before_image {
                            Image::Absent => "nothing",
                            Image::UNKNOWN => "unknown",
                            Image::Row(_) => "a row",
                        };
                        assert_eq!(before.is_some(), over == "a row");
                        format!("{} over {over}", after.map_or("gone".to_owned(), |row| value(&row)))
                    }
                    Said::Gone { .. } => "gone".to_owned(),
                    Said::Unfit { column, .. } => format!("unfit {column}"),
                });
            })
            .unwrap();
            said
        }
    }

    #[test]
    fn a_row_without_a_place_is_told_and_what_is_made_over_it_is_over_something_unknown() {
        let collection = Collection::new();
        let (one, two, text) =
            (Collection::document(Ok(1)), Collection::document(Ok(2)), Collection::document(Err("x")));
        let says = |op, before: Option<&Row>, after: Option<&Row>| collection.says(op, before.cloned(), after.cloned());
        assert_eq!(says(Op::Create, None, Some(&one)), ["Present(Int(1)) over nothing"]);
        assert_eq!(says(Op::Update, Some(&one), Some(&two)), ["Present(Int(2)) over a row"]);
        assert_eq!(says(Op::Delete, Some(&two), None), ["gone over a row"]);
        assert_eq!(says(Op::Read, None, Some(&two)), ["read Present(Int(2))"]);
        assert_eq!(says(Op::Create, None, Some(&text)), ["unfit v"]);
        assert_eq!(says(Op::Read, None, Some(&text)), ["unfit v"]);
        assert_eq!(says(Op::Update, Some(&one), Some(&text)), ["unfit v"]);
        assert_eq!(says(Op::Update, Some(&text), Some(&two)), ["Present(Int(2)) over unknown"]);
        assert_eq!(says(Op::Delete, Some(&text), None), ["gone over unknown"]);
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(7)));
        builder.push(Cell::Unchanged);
        assert_eq!(says(Op::Delete, Some(&builder.finish()), None), ["gone"]);
    }

    #[test]
    fn what_says_nothing_about_rows_pauses_the_table() {
        let collection = Collection::new();
        let pauses = |op, before: Option<Row>, after: Option<Row>| {
            let change = Change { schema: collection.schema.clone(), op, before, after };
            let read = read(&"shop".into(), &change, &collection.normalizer, &mut Room::default(), |_| {});
            matches!(read, Err(Untaken::Table(_)))
        };
        assert!(pauses(Op::Truncate, None, None));
        assert!(pauses(Op::Update, None, Some(Collection::document(Ok(1)))));
        assert!(!pauses(Op::Create, None, Some(Collection::document(Ok(1)))));
    }
}
