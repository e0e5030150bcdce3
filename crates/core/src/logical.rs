//! The rows of a two-way table as all members see them: the same columns, in the same types.

use crate::convert::{Class, Conversion, Refusal};
use crate::name::DatabaseName;
use crate::row::{Key, Row, RowBuilder};
use crate::schema::Schema;
use crate::value::{Cell, Damaged, Value};
use bytes::BytesMut;
use std::sync::Arc;

/// A column that keeps members from agreeing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub member: DatabaseName,
    pub column: String,
    pub problem: String,
}

/// Picks the member's table whose types hold every value of every other member's: its columns are the logical ones.
/// Columns that others have beside them are theirs alone. On failure, what stands in the way of the first candidate.
///
/// # Panics
///
/// Never; without a member there is nothing to agree on, and no disagreement either.
pub fn agree(members: &[(DatabaseName, Arc<Schema>)]) -> Result<Option<Arc<Schema>>, Disagreement> {
    let mut first = None;
    for (at, (_, candidate)) in members.iter().enumerate() {
        let others = members.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, member)| member);
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
#[derive(Debug)]
pub struct Normalizer {
    schema: Arc<Schema>,
    /// For each logical column its place in the other schema; None: the rows are the same.
    columns: Option<Vec<(usize, Conversion)>>,
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
        Ok(Self { schema: logical, columns: (!same).then_some(columns) })
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Columns that the row leaves unchanged stay so.
    pub fn row(&self, row: &Row, builder: &mut RowBuilder, scratch: &mut String) -> Result<Row, Unfit> {
        let Some(columns) = &self.columns else { return Ok(row.clone()) };
        let cells = row.cells().collect::<Result<Vec<_>, _>>()?;
        for ((place, conversion), column) in columns.iter().zip(&self.schema.columns) {
            let cell = *cells.get(*place).ok_or(Damaged("the row has fewer columns than its schema"))?;
            match cell {
                Cell::Present(Value::Null) | Cell::Unchanged => builder.push(cell),
                Cell::Present(value) => {
                    scratch.clear();
                    match conversion.apply(value, scratch) {
                        Ok(value) => builder.push(Cell::Present(value)),
                        Err(refusal) => {
                            builder.abandon();
                            return Err(Unfit::Refused(column.name.clone(), refusal));
                        }
                    }
                }
            }
        }
        Ok(builder.finish())
    }
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
    use crate::schema::Column;
    use crate::types::{ColumnType, Engine};

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
}
