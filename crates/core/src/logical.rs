//! The rows of a two-way table as all members see them: the same columns, in the same types.

use crate::convert::{Class, Conversion, Refusal};
use crate::document::mapping::{DocumentMapping, OtherFields};
use crate::document::projection::{Projection, Room};
use crate::name::DatabaseName;
use crate::row::{Key, Row, RowBuilder};
use crate::schema::{Column, Schema};
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Damaged, Value};
use bytes::BytesMut;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A column that keeps members from agreeing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub member: DatabaseName,
    pub column: String,
    pub problem: String,
}

/// Picks the member's table whose types hold every value of every other member's: its columns are the logical ones.
/// Columns that others have beside them are theirs alone. On failure, what stands in the way of the first candidate.
/// Documents take any columns: where there is a table, its columns are theirs, too; among collections the first one is it.
///
/// # Panics
///
/// Never; without a member there is nothing to agree on, and no disagreement either.
pub fn agree(members: &[(DatabaseName, Arc<Schema>)]) -> Result<Option<Arc<Schema>>, Disagreement> {
    let tables: Vec<_> = members.iter().filter(|(_, schema)| schema.engine != Engine::Mongodb).collect();
    if tables.is_empty() {
        return Ok(members.first().map(|(_, schema)| schema.clone()));
    }
    let mut first = None;
    for (at, (_, candidate)) in tables.iter().enumerate() {
        let others = tables.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, member)| *member);
        match others.map(|(name, schema)| holds(candidate, name, schema)).find_map(Result::err) {
            None => return Ok(Some(candidate.clone())),
            Some(problem) => first = first.or(Some(problem)),
        }
    }
    first.map_or(Ok(None), Err)
}

/// Whether every value that a member's columns hold has its place in the candidate's.
fn holds(candidate: &Schema, member: &DatabaseName, schema: &Schema) -> Result<(), Disagreement> {
    let problem =
        |column: &str, problem: String| Disagreement { member: member.clone(), column: column.to_owned(), problem };
    for column in &candidate.columns {
        let Some(at) = schema.column(&column.name) else {
            return Err(problem(&column.name, "it has no such column".to_owned()));
        };
        let here = &schema.columns[at];
        let conversion = Conversion::new(&here.kind, &column.kind).map_err(|refusal| {
            problem(&column.name, format!("{} can't become {}: {refusal}", here.type_name, column.type_name))
        })?;
        if conversion.class_between(schema.engine, candidate.engine) == Class::Lossy {
            let text = format!("{} does not hold every value of {}", column.type_name, here.type_name);
            return Err(problem(&column.name, text));
        }
    }
    let key = |schema: &Schema| schema.key.iter().map(|&at| schema.columns[at].name.clone()).collect::<Vec<_>>();
    let (mut here, mut there) = (key(schema), key(candidate));
    here.sort_unstable();
    there.sort_unstable();
    match here == there {
        true => Ok(()),
        false => Err(problem(&here.join(", "), format!("it is the key there, the others' is ({})", there.join(", ")))),
    }
}

/// Turns the rows of one schema into rows of the logical one.
pub struct Normalizer {
    schema: Arc<Schema>,
    way: Way,
}

enum Way {
    /// The rows are the same.
    Same,
    /// For each logical column its place in the other schema.
    Columns(Vec<(usize, Conversion)>),
    /// Documents, whose fields are of any type: for each logical column what is made of the field.
    Fields(Box<Fields>),
}

struct Fields {
    projection: Projection,
    conversions: Vec<Conversion>,
    room: Mutex<Room>,
}

/// Why a row has no logical form.
#[derive(Debug)]
pub enum Unfit {
    Damaged(Damaged),
    /// The column, and why.
    Refused(String, Refusal),
}

impl From<Damaged> for Unfit {
    fn from(damaged: Damaged) -> Self {
        Unfit::Damaged(damaged)
    }
}

impl Normalizer {
    pub fn new(from: &Schema, logical: Arc<Schema>) -> Result<Self, (String, Refusal)> {
        let mut columns = Vec::with_capacity(logical.columns.len());
        let mut same = from.columns.len() == logical.columns.len();
        for (at, column) in logical.columns.iter().enumerate() {
            let Some(place) = from.column(&column.name) else {
                return Err((column.name.clone(), Refusal("it is not there".to_owned())));
            };
            let kind = &from.columns[place].kind;
            same &= place == at && *kind == column.kind;
            columns
                .push((place, Conversion::new(kind, &column.kind).map_err(|refusal| (column.name.clone(), refusal))?));
        }
        Ok(Self { schema: logical, way: if same { Way::Same } else { Way::Columns(columns) } })
    }

    /// From the documents of a collection. A field that is missing is NULL.
    pub fn of_documents(logical: Arc<Schema>, mapping: DocumentMapping) -> Result<Self, (String, Refusal)> {
        if logical.engine == Engine::Mongodb {
            return Ok(Self { schema: logical, way: Way::Same });
        }
        // What it takes up from there would come back as a field of its name.
        if let OtherFields::Column(name) = mapping.other_fields {
            let reason = "other_fields can't name a column in a two-way pipeline; write \"ignore\" or \"refuse\"";
            return Err((name, Refusal(reason.to_owned())));
        }
        let conversion = |column: &Column| {
            let conversion = Conversion::new(&ColumnType::Field, &column.kind);
            conversion.map_err(|refusal| (column.name.clone(), refusal))
        };
        let conversions = logical.columns.iter().map(conversion).collect::<Result<_, _>>()?;
        let projection = Projection::new(&logical, mapping);
        let fields = Fields { projection, conversions, room: Mutex::default() };
        Ok(Self { schema: logical, way: Way::Fields(Box::new(fields)) })
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Columns that the row leaves unchanged stay so.
    pub fn row(&self, row: &Row, builder: &mut RowBuilder, scratch: &mut String) -> Result<Row, Unfit> {
        match &self.way {
            Way::Same => Ok(row.clone()),
            Way::Columns(columns) => {
                let cells = row.cells().collect::<Result<Vec<_>, _>>()?;
                for ((place, conversion), column) in columns.iter().zip(&self.schema.columns) {
                    let cell = *cells.get(*place).ok_or(Damaged("the row has fewer columns than its schema"))?;
                    put(cell, conversion, &column.name, builder, scratch)?;
                }
                Ok(builder.finish())
            }
            Way::Fields(fields) => {
                let mut room = fields.room.lock().unwrap_or_else(PoisonError::into_inner);
                let flat = fields.projection.row(row, &mut room)?;
                for ((cell, conversion), column) in flat.cells().zip(&fields.conversions).zip(&self.schema.columns) {
                    put(cell?, conversion, &column.name, builder, scratch)?;
                }
                Ok(builder.finish())
            }
        }
    }
}

impl Normalizer {
    /// The key that the row has among the logical ones, whatever its other columns hold.
    pub fn key(&self, row: &Row, builder: &mut RowBuilder, scratch: &mut String) -> Result<Key, Unfit> {
        let logical = &self.schema;
        let mut add = |at: usize, cell: Cell<'_>, conversion: &Conversion| match logical.key.contains(&at) {
            true => put(cell, conversion, &logical.columns[at].name, builder, scratch),
            false => {
                builder.push(Cell::Unchanged);
                Ok(())
            }
        };
        match &self.way {
            Way::Same => return Ok(logical.key_of(row)?),
            Way::Columns(columns) => {
                let cells = row.cells().collect::<Result<Vec<_>, _>>()?;
                for (at, (place, conversion)) in columns.iter().enumerate() {
                    let cell = *cells.get(*place).ok_or(Damaged("the row has fewer columns than its schema"))?;
                    add(at, cell, conversion)?;
                }
            }
            Way::Fields(fields) => {
                let mut room = fields.room.lock().unwrap_or_else(PoisonError::into_inner);
                let flat = fields.projection.row(row, &mut room)?;
                for (at, (cell, conversion)) in flat.cells().zip(&fields.conversions).enumerate() {
                    add(at, cell?, conversion)?;
                }
            }
        }
        Ok(logical.key_of(&builder.finish())?)
    }
}

impl fmt::Debug for Normalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Normalizer(to {:?})", self.schema)
    }
}

/// Adds a cell as its column has it; on a refusal nothing of the row is left.
fn put(
    cell: Cell<'_>,
    conversion: &Conversion,
    column: &str,
    builder: &mut RowBuilder,
    scratch: &mut String,
) -> Result<(), Unfit> {
    let value = match cell {
        Cell::Present(Value::Null) | Cell::Unchanged => {
            builder.push(cell);
            return Ok(());
        }
        Cell::Present(value) => value,
    };
    scratch.clear();
    match conversion.apply(value, scratch) {
        Ok(value) => builder.push(Cell::Present(value)),
        Err(refusal) => {
            builder.abandon();
            return Err(Unfit::Refused(column.to_owned(), refusal));
        }
    }
    Ok(())
}

/// A row of which only the key is known.
pub fn key_only(schema: &Schema, key: &Key) -> Result<Row, Damaged> {
    let values = key.cells().collect::<Result<Vec<_>, _>>()?;
    let mut out = BytesMut::with_capacity(key.as_bytes().len() + schema.columns.len());
    for column in 0..schema.columns.len() {
        let cell = schema.key.iter().position(|&part| part == column).and_then(|at| values.get(at));
        cell.unwrap_or(&Cell::Unchanged).encode(&mut out);
    }
    Ok(Row::from_bytes(out.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::kind;
    use crate::document::write::Writer;

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

    const SHORT: ColumnType = ColumnType::Int { bits: 32, unsigned: false };
    const LONG: ColumnType = ColumnType::Int { bits: 64, unsigned: false };

    #[test]
    fn the_wider_types_are_the_logical_ones() {
        let narrow = schema(Engine::Postgres, &[("id", LONG), ("v", SHORT)]);
        let wide = schema(Engine::Postgres, &[("v", LONG), ("id", LONG), ("own", LONG)]);
        let wide = Arc::new(Schema::new("t".into(), Engine::Postgres, wide.columns.clone(), vec![1]));
        let plain = schema(Engine::Postgres, &[("id", LONG), ("v", LONG)]);
        let member = |name: &str, schema: &Arc<Schema>| (DatabaseName::new(name), schema.clone());
        let agreed = agree(&[member("a", &narrow), member("b", &wide), member("c", &plain)]).unwrap().unwrap();
        assert_eq!(agreed.id, plain.id);
        let refused = agree(&[member("a", &narrow), member("b", &wide)]).unwrap_err();
        assert_eq!((refused.member.as_str(), refused.column.as_str()), ("b", "v"));
    }

    #[test]
    fn rows_are_brought_into_the_logical_order_and_types() {
        let logical =
            schema(Engine::Postgres, &[("id", LONG), ("v", ColumnType::Decimal { precision: Some(12), scale: 2 })]);
        let columns = schema(Engine::Mysql, &[("v", SHORT), ("id", LONG)]).columns.clone();
        let theirs = Schema::new("t".into(), Engine::Mysql, columns, vec![1]);
        let normalizer = Normalizer::new(&theirs, logical.clone()).unwrap();
        let (mut builder, mut scratch) = (RowBuilder::default(), String::new());
        builder.push(Cell::Present(Value::Int(5)));
        builder.push(Cell::Present(Value::Int(1)));
        let row = builder.finish();
        let row = normalizer.row(&row, &mut builder, &mut scratch).unwrap();
        let cells = row.cells().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(cells, [Cell::Present(Value::Int(1)), Cell::Present(Value::Decimal("5.00"))]);
        let key = logical.key_of(&row).unwrap();
        let only = key_only(&logical, &key).unwrap();
        assert!(matches!(only.cells().nth(1), Some(Ok(Cell::Unchanged))));
        assert_eq!(logical.key_of(&only).unwrap(), key);
    }

    #[test]
    fn a_table_has_the_columns_and_its_documents_become_rows_of_them() {
        let table = schema(Engine::Postgres, &[("id", LONG), ("v", SHORT)]);
        let collection = schema(Engine::Mongodb, &[("_id", ColumnType::Id), ("document", ColumnType::Document)]);
        let member = |name: &str, schema: &Arc<Schema>| (DatabaseName::new(name), schema.clone());
        let agreed = agree(&[member("a", &collection), member("b", &table)]).unwrap().unwrap();
        assert_eq!(agreed.id, table.id);
        let agreed = agree(&[member("a", &collection), member("b", &collection)]).unwrap().unwrap();
        assert_eq!(agreed.id, collection.id);

        let ignore = DocumentMapping { other_fields: OtherFields::Ignore, ..DocumentMapping::default() };
        let normalizer = Normalizer::of_documents(table.clone(), ignore.clone()).unwrap();
        let (mut builder, mut scratch) = (RowBuilder::default(), String::new());
        let mut document = |put: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::default();
            writer.put(kind::INT32, "_id", &7i32.to_le_bytes()).unwrap();
            put(&mut writer);
            builder.push(Cell::Present(Value::Int(7)));
            builder.push(Cell::Present(Value::Document(&writer.finish().unwrap())));
            let row = builder.finish();
            normalizer.row(&row, &mut builder, &mut scratch)
        };
        let row = document(&|out| {
            out.text("own", "x").unwrap();
            out.put(kind::DOUBLE, "v", &5f64.to_le_bytes()).unwrap();
        });
        let cells = |row: &Row| format!("{:?}", row.cells().collect::<Result<Vec<_>, _>>().unwrap());
        assert_eq!(cells(&row.unwrap()), "[Present(Int(7)), Present(Int(5))]");
        assert_eq!(cells(&document(&|_| {}).unwrap()), "[Present(Int(7)), Present(Null)]");
        let refused = document(&|out| out.text("v", "five").unwrap());
        assert!(matches!(refused, Err(Unfit::Refused(column, _)) if column == "v"));
        let mut writer = Writer::default();
        writer.put(kind::INT32, "_id", &7i32.to_le_bytes()).unwrap();
        writer.text("v", "five").unwrap();
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(7)));
        builder.push(Cell::Present(Value::Document(&writer.finish().unwrap())));
        let row = builder.finish();
        let key = normalizer.key(&row, &mut builder, &mut String::new()).unwrap();
        assert_eq!(key.cells().next().unwrap().unwrap(), Cell::Present(Value::Int(7)));
        let rest = DocumentMapping { other_fields: OtherFields::Column("v".to_owned()), ..ignore };
        assert!(Normalizer::of_documents(table, rest).is_err());
    }
}
