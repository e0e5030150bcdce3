//! How the rows of one table in the log become rows of its schema.

use super::collations::{Collation, Collations};
use super::table_map::{MapColumn, TableMap, code};
use crate::catalog::{Table, TableColumn, column_type};
use crate::codec::Format;
use crate::codec::default;
use crate::error::Error;
use std::sync::Arc;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine};

pub struct PlanColumn {
    pub name: String,
    pub format: Format,
    /// It stands in the schema. Generated columns are read and dropped.
    pub wanted: bool,
    pub key: bool,
    /// What an insert gives the column when it is not in its image, as the bytes of a cell; None where nobody knows, and
    /// as long as the plan is not settled.
    pub default: Option<Vec<u8>>,
}

pub struct Plan {
    pub schema: Arc<Schema>,
    pub columns: Vec<PlanColumn>,
    /// The defaults are those of where the stream stands.
    pub settled: bool,
}

/// What the catalog says of a table.
#[derive(Clone, Copy, Default)]
pub struct Catalogs<'a> {
    /// As it is now, which may be newer than the log.
    pub newest: Option<&'a Table>,
    /// As it was where the stream stands.
    pub settled: Option<&'a Table>,
}

impl Plan {
    pub fn new(
        table: &TableName,
        map: &TableMap,
        catalogs: Catalogs<'_>,
        collations: &Collations,
    ) -> Result<Self, Error> {
        let name = format!("{}.{}", map.database, map.table);
        if !map.named {
            return Err(Error::Fatal(format!(
                "the log describes table {name} without column names; SET GLOBAL binlog_row_metadata = FULL, and take a new snapshot if rows were written before"
            )));
        }
        let mut columns = Vec::with_capacity(map.columns.len());
        let mut described = Vec::with_capacity(map.columns.len());
        for column in &map.columns {
            let refused = |problem: String| Error::Value { table: name.clone(), column: column.name.clone(), problem };
            let collation = column.collation.and_then(|id| collations.get(&id));
            let format = format(column, collation).map_err(refused)?;
            let spelled = spelled(column, collation);
            let own = Column {
                kind: column_type(&spelled, spelled.split(['(', ' ']).next().unwrap_or(""), character_set(collation)),
                name: column.name.clone(),
                type_name: spelled,
                nullable: column.nullable,
                generated: false,
            };
            let find = |table: Option<&'_ Table>| {
                table.and_then(|table| table.column(&column.name)).filter(|known| agrees(known, &own, column)).cloned()
            };
            let (known, settled) = (find(catalogs.newest), find(catalogs.settled));
            let default = settled.as_ref().and_then(default::cell);
            let known = known.map_or(own, |known| known.column);
            let literal = matches!(known.kind, ColumnType::Named { .. });
            let format = match format {
                Format::Float { .. } => Format::Float { literal },
                Format::Double { .. } => Format::Double { literal },
                format => format,
            };
            columns.push(PlanColumn {
                name: column.name.clone(),
                format,
                wanted: !known.generated,
                key: false,
                default,
            });
            described.push(known);
        }
        let key: Vec<&str> = match (&map.primary_key[..], catalogs.newest.and_then(|table| table.key.as_ref())) {
            ([], Some(key)) => key.columns.iter().map(String::as_str).collect(),
            ([], None) => Vec::new(),
            (columns, _) => columns.iter().filter_map(|at| map.columns.get(*at)).map(|c| c.name.as_str()).collect(),
        };
        for (column, planned) in described.iter().zip(&mut columns) {
            planned.key = key.contains(&column.name.as_str());
        }
        let described: Vec<Column> = described.into_iter().filter(|column| !column.generated).collect();
        let place = |name: &&str| described.iter().position(|column| column.name == **name);
        let key = key.iter().map(place).collect::<Option<Vec<_>>>().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| {
            Error::Fatal(format!(
                "table {name} has no key; ALTER TABLE {name} ADD PRIMARY KEY (...), then take a new snapshot"
            ))
        })?;
        let schema = Schema::new(table.clone(), Engine::Mysql, described, key);
        Ok(Self { schema: Arc::new(schema), columns, settled: catalogs.settled.is_some() })
    }
}

fn character_set(collation: Option<&Collation>) -> Option<&str> {
    collation.map(|collation| collation.character_set.as_str())
}

/// Whether the catalog describes the column that the log has.
fn agrees(known: &TableColumn, own: &Column, column: &MapColumn) -> bool {
    if known.column.nullable != own.nullable && !known.column.generated {
        return false;
    }
    match &known.column.kind {
        ColumnType::Named { .. } => match column.code {
            code::FLOAT => known.data_type == "float",
            code::DOUBLE => known.data_type == "double",
            _ => matches!(own.kind, ColumnType::Named { .. }),
        },
        kind => *kind == own.kind,
    }
}

fn format(column: &MapColumn, collation: Option<&Collation>) -> Result<Format, String> {
    let int = |width| Ok(Format::Int { width, unsigned: column.unsigned });
    let digits = column.meta[0];
    match column.code {
        code::TINY => int(1),
        code::SHORT => int(2),
        code::INT24 => int(3),
        code::LONG => int(4),
        code::LONGLONG => int(8),
        code::FLOAT => Ok(Format::Float { literal: false }),
        code::DOUBLE => Ok(Format::Double { literal: false }),
        code::NEWDECIMAL => Ok(Format::Decimal { precision: column.meta[0], scale: column.meta[1] }),
        code::YEAR => Ok(Format::Year),
        code::DATE => Ok(Format::Date),
        code::TIME2 => Ok(Format::Time { digits }),
        code::DATETIME2 => Ok(Format::DateTime { digits }),
        code::TIMESTAMP2 => Ok(Format::Timestamp { digits }),
        code::BIT => Ok(Format::Bit { length: u32::from(column.meta[0]) + 8 * u32::from(column.meta[1]) }),
        code::VARCHAR | code::VAR_STRING | code::STRING => {
            let length = column.max_length();
            let prefix = if length > 255 { 2 } else { 1 };
            let padded = if column.code == code::STRING { length } else { 0 };
            string(prefix, padded, collation)
        }
        code::TINY_BLOB..=code::BLOB => string(column.meta[0], 0, collation),
        code::ENUM | code::SET => {
            let width = column.meta[1];
            let charset = collation.and_then(|collation| collation.charset.as_ref());
            let charset = charset.ok_or_else(|| unknown_set(collation))?;
            let mut labels = Vec::with_capacity(column.labels.len());
            for label in &column.labels {
                let mut text = String::new();
                charset.append(label, &mut text).map_err(|invalid| invalid.0.to_owned())?;
                labels.push(text);
            }
            let labels = Arc::from(labels);
            Ok(match column.code {
                code::ENUM => Format::Enum { width, labels },
                _ => Format::Set { width, labels },
            })
        }
        code::JSON => Ok(Format::Json { prefix: column.meta[0] }),
        code::GEOMETRY | code::VECTOR => Ok(Format::Opaque { prefix: column.meta[0] }),
        _ => Err("has a type from before MySQL 5.6; ALTER TABLE ... FORCE rebuilds the table".to_owned()),
    }
}

fn string(prefix: u8, padded: usize, collation: Option<&Collation>) -> Result<Format, String> {
    match collation {
        Some(Collation { charset: Some(charset), .. }) => Ok(Format::Text { prefix, charset: charset.clone() }),
        Some(Collation { character_set, .. }) if character_set == "binary" => Ok(Format::Bytes { prefix, padded }),
        other => Err(unknown_set(other)),
    }
}

fn unknown_set(collation: Option<&Collation>) -> String {
    let name = character_set(collation).unwrap_or("unknown");
    format!("character set {name} can't be read from the log; convert the column to utf8mb4")
}

/// The type as the catalog would spell it.
fn spelled(column: &MapColumn, collation: Option<&Collation>) -> String {
    let int = |name: &str| format!("{name}{}", if column.unsigned { " unsigned" } else { "" });
    let binary = character_set(collation) == Some("binary");
    let digits = |name: &str| match column.meta[0] {
        0 => name.to_owned(),
        digits => format!("{name}({digits})"),
    };
    let length = || column.max_length() / collation.map_or(1, |collation| collation.width.max(1));
    let either = |text: &str, bytes: &str| if binary { bytes.to_owned() } else { text.to_owned() };
    let labels = |name: &str| {
        let labels: Vec<_> =
            column.labels.iter().map(|label| String::from_utf8_lossy(label).replace('\'', "''")).collect();
        format!("{name}('{}')", labels.join("','"))
    };
    match column.code {
        code::TINY => int("tinyint"),
        code::SHORT => int("smallint"),
        code::INT24 => int("mediumint"),
        code::LONG => int("int"),
        code::LONGLONG => int("bigint"),
        code::FLOAT => int("float"),
        code::DOUBLE => int("double"),
        code::NEWDECIMAL => int(&format!("decimal({},{})", column.meta[0], column.meta[1])),
        code::YEAR => "year".to_owned(),
        code::DATE => "date".to_owned(),
        code::TIME2 => digits("time"),
        code::DATETIME2 => digits("datetime"),
        code::TIMESTAMP2 => digits("timestamp"),
        code::BIT => format!("bit({})", u32::from(column.meta[0]) + 8 * u32::from(column.meta[1])),
        code::VARCHAR | code::VAR_STRING => format!("{}({})", either("varchar", "varbinary"), length()),
        code::STRING => format!("{}({})", either("char", "binary"), length()),
        code::TINY_BLOB..=code::BLOB => match column.meta[0] {
            1 => either("tinytext", "tinyblob"),
            2 => either("text", "blob"),
            3 => either("mediumtext", "mediumblob"),
            _ => either("longtext", "longblob"),
        },
        code::ENUM => labels("enum"),
        code::SET => labels("set"),
        code::JSON => "json".to_owned(),
        code::VECTOR => "vector".to_owned(),
        _ => "geometry".to_owned(),
    }
}
