//! The engines' own spellings of column types: from a catalog to [`ColumnType`], and the column type that is recommended
//! on an engine for a type of another one.
//!
//! What is not listed here is [`ColumnType::Named`]: it travels in its exact form to the same type of the same engine
//! and is refused everywhere else.

use crate::types::{BITS_WITHOUT_LIMIT, ColumnType, Engine, TextLimit};

/// The type of a PostgreSQL column, from `format_type(atttypid, atttypmod)`. A domain is asked for by its base type; an
/// enum is known by its `typtype`, so the catalog's reader makes [`ColumnType::Enum`] itself.
pub fn postgres_type(format_type: &str) -> ColumnType {
    known_postgres_type(format_type)
        .unwrap_or_else(|| ColumnType::Named { engine: Engine::Postgres, name: format_type.to_owned() })
}

fn known_postgres_type(format_type: &str) -> Option<ColumnType> {
    // PostgreSQL puts the modifier inside the name: `timestamp(3) without time zone`.
    let (name, arguments) = match format_type.split_once('(') {
        None => (format_type.to_owned(), None),
        Some((head, rest)) => {
            let (arguments, tail) = rest.split_once(')')?;
            (format!("{head}{tail}"), Some(arguments))
        }
    };
    let precision = || match arguments {
        None => Some(6),
        Some(digits) => digits.parse::<u8>().ok().filter(|digits| *digits <= 6),
    };
    let characters = || match arguments {
        None => Some(TextLimit::None),
        Some(n) => n.parse().ok().map(TextLimit::Characters),
    };
    let kind = match name.as_str() {
        "boolean" => ColumnType::Bool,
        "smallint" => ColumnType::Int { bits: 16, unsigned: false },
        "integer" => ColumnType::Int { bits: 32, unsigned: false },
        "bigint" => ColumnType::Int { bits: 64, unsigned: false },
        "real" => ColumnType::Float32,
        "double precision" => ColumnType::Float64,
        "numeric" => match arguments {
            None => ColumnType::Decimal { precision: None, scale: 0 },
            Some(arguments) => {
                let (precision, scale) = arguments.split_once(',')?;
                ColumnType::Decimal { precision: Some(precision.parse().ok()?), scale: scale.trim().parse().ok()? }
            }
        },
        "text" => ColumnType::Text { limit: TextLimit::None, padded: false },
        "character varying" => ColumnType::Text { limit: characters()?, padded: false },
        // A `bpchar` without a length is not padded, it only compares without trailing blanks.
        "bpchar" => ColumnType::Text { limit: TextLimit::None, padded: false },
        "character" => ColumnType::Text { limit: characters()?, padded: arguments.is_some() },
        "bytea" => ColumnType::Bytes { limit: None, padded: false },
        "date" => ColumnType::Date,
        "time without time zone" => ColumnType::Time { precision: precision()? },
        "timestamp without time zone" => ColumnType::Timestamp { precision: precision()? },
        "timestamp with time zone" => ColumnType::TimestampTz { precision: precision()? },
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json { textual: true },
        "jsonb" => ColumnType::Json { textual: false },
        "bit" => ColumnType::Bits { length: arguments?.parse().ok()?, varying: false },
        "bit varying" => {
            let length = arguments.map_or(Some(BITS_WITHOUT_LIMIT), |n| n.parse().ok())?;
            ColumnType::Bits { length, varying: true }
        }
        _ => return None,
    };
    Some(kind)
}

/// The type of a MySQL or MariaDB column, from `COLUMN_TYPE`, `DATA_TYPE` and `CHARACTER_SET_NAME` (or the collation)
/// of `information_schema.COLUMNS`.
pub fn mysql_type(column_type: &str, data_type: &str, character_set: Option<&str>) -> ColumnType {
    let column_type = column_type.trim().to_ascii_lowercase();
    known_mysql_type(&column_type, &data_type.trim().to_ascii_lowercase(), character_set)
        .unwrap_or(ColumnType::Named { engine: Engine::Mysql, name: column_type })
}

fn known_mysql_type(column_type: &str, data_type: &str, character_set: Option<&str>) -> Option<ColumnType> {
    let arguments = column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let length = || arguments?.trim().parse::<u32>().ok();
    let precision = || match arguments {
        None => Some(0),
        Some(digits) => digits.trim().parse::<u8>().ok().filter(|digits| *digits <= 6),
    };
    // ZEROFILL implies UNSIGNED; neither stands inside the parentheses.
    let attributes = column_type.rsplit_once(')').map_or(column_type, |(_, after)| after);
    let unsigned = attributes.contains("unsigned") || attributes.contains("zerofill");
    let int = |bits| ColumnType::Int { bits, unsigned };
    let binary = character_set == Some("binary");
    let text = |limit: TextLimit, padded| match limit {
        TextLimit::Characters(n) if binary => ColumnType::Bytes { limit: Some(u64::from(n)), padded },
        TextLimit::Bytes(n) if binary => ColumnType::Bytes { limit: Some(n), padded },
        limit => ColumnType::Text { limit, padded },
    };
    let blob = |limit| ColumnType::Bytes { limit: Some(limit), padded: false };
    let kind = match data_type {
        // BOOLEAN is another word for tinyint(1), which also holds 2: it stays a number here.
        "tinyint" => int(8),
        "smallint" => int(16),
        "mediumint" => int(24),
        "int" | "integer" => int(32),
        "bigint" => int(64),
        // float(7,3) rounds what is written to it without a word, so it is no Float32.
        "float" if arguments.is_none_or(|arguments| !arguments.contains(',')) => ColumnType::Float32,
        "double" | "real" if arguments.is_none() => ColumnType::Float64,
        "decimal" | "numeric" => match arguments {
            None => ColumnType::Decimal { precision: Some(10), scale: 0 },
            Some(arguments) => {
                let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
                let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                ColumnType::Decimal { precision: Some(precision), scale }
            }
        },
        "char" => text(TextLimit::Characters(length().unwrap_or(1)), true),
        "varchar" => text(TextLimit::Characters(length()?), false),
        "tinytext" => text(TextLimit::Bytes(TINY), false),
        "text" => text(TextLimit::Bytes(SHORT), false),
        "mediumtext" => text(TextLimit::Bytes(MEDIUM), false),
        "longtext" => text(TextLimit::Bytes(LONG), false),
        "binary" => ColumnType::Bytes { limit: Some(u64::from(length().unwrap_or(1))), padded: true },
        "varbinary" => blob(u64::from(length()?)),
        "tinyblob" => blob(TINY),
        "blob" => blob(SHORT),
        "mediumblob" => blob(MEDIUM),
        "longblob" => blob(LONG),
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { precision: precision()? },
        "datetime" => ColumnType::Timestamp { precision: precision()? },
        "timestamp" => ColumnType::TimestampTz { precision: precision()? },
        "year" => ColumnType::Year,
        "json" => ColumnType::Json { textual: false },
        "enum" => ColumnType::Enum,
        "set" => ColumnType::Set,
        "bit" => ColumnType::Bits { length: length().unwrap_or(1), varying: false },
        _ => return None,
    };
    Some(kind)
}

/// What MySQL's TINY-, plain, MEDIUM- and LONG- TEXT and BLOB hold, in bytes.
const TINY: u64 = 0xFF;
const SHORT: u64 = 0xFFFF;
const MEDIUM: u64 = 0xFF_FFFF;
const LONG: u64 = 0xFFFF_FFFF;
