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

/// The labels of a MySQL `enum(...)` or `set(...)`, in their order; None for any other type. MySQL itself takes a text
/// that is no label by its case-folded form or by its number, so whoever writes to such a column compares exactly.
pub fn mysql_labels(column_type: &str) -> Option<Vec<String>> {
    let (name, rest) = column_type.split_once('(')?;
    if !["enum", "set"].iter().any(|known| name.trim().eq_ignore_ascii_case(known)) {
        return None;
    }
    let mut labels = Vec::new();
    let mut rest = rest.trim_start().strip_prefix('\'')?;
    let mut label = String::new();
    loop {
        let at = rest.find('\'')?;
        label.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\'') {
            label.push('\''); // doubled inside a label
            rest = after;
            continue;
        }
        labels.push(std::mem::take(&mut label));
        match rest.trim_start().strip_prefix(',') {
            Some(after) => rest = after.trim_start().strip_prefix('\'')?,
            None => return rest.trim_start().starts_with(')').then_some(labels),
        }
    }
}

/// The column type that PostgreSQL should give to a column of this type. None: it has no place there.
pub fn postgres_name(kind: &ColumnType) -> Option<String> {
    let seconds = |precision: u8| if precision == 6 { String::new() } else { format!("({precision})") };
    let name = match *kind {
        ColumnType::Bool => "boolean".to_owned(),
        ColumnType::Int { bits: ..=8, .. } | ColumnType::Int { bits: 9..=16, unsigned: false } => "smallint".to_owned(),
        ColumnType::Int { bits: 9..=16, unsigned: true } | ColumnType::Int { bits: 17..=24, .. } => {
            "integer".to_owned()
        }
        ColumnType::Int { bits: 25..=32, unsigned: false } => "integer".to_owned(),
        ColumnType::Int { bits: 25..=32, unsigned: true } => "bigint".to_owned(),
        ColumnType::Int { unsigned: false, .. } => "bigint".to_owned(),
        ColumnType::Int { unsigned: true, .. } => "numeric(20,0)".to_owned(),
        ColumnType::Float32 => "real".to_owned(),
        ColumnType::Float64 => "double precision".to_owned(),
        ColumnType::Decimal { precision: None, .. } => "numeric".to_owned(),
        ColumnType::Decimal { precision: Some(precision), scale } => format!("numeric({precision},{scale})"),
        ColumnType::Text { limit: TextLimit::Characters(n @ 1..=POSTGRES_CHARACTERS), padded } => {
            format!("{}({n})", if padded { "character" } else { "character varying" })
        }
        ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Set => "text".to_owned(),
        ColumnType::Bytes { .. } => "bytea".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Time { precision } => format!("time{} without time zone", seconds(precision)),
        ColumnType::Timestamp { precision } => format!("timestamp{} without time zone", seconds(precision)),
        ColumnType::TimestampTz { precision } => format!("timestamp{} with time zone", seconds(precision)),
        ColumnType::Year => "smallint".to_owned(),
        ColumnType::Uuid => "uuid".to_owned(),
        ColumnType::Json { textual } => if textual { "json" } else { "jsonb" }.to_owned(),
        ColumnType::Bits { length: BITS_WITHOUT_LIMIT, .. } => "bit varying".to_owned(),
        ColumnType::Bits { length, varying } => format!("bit{}({length})", if varying { " varying" } else { "" }),
        ColumnType::Named { engine: Engine::Postgres, ref name } => name.clone(),
        // What a document holds is told by its target's columns, not by its own.
        ColumnType::Id | ColumnType::Document | ColumnType::Field => return None,
        ColumnType::Named { engine: Engine::Mysql | Engine::Mongodb, .. } => return None,
    };
    Some(name)
}

/// The longest length that PostgreSQL lets one declare.
const POSTGRES_CHARACTERS: u32 = 10_485_760;

/// The column type that MySQL should give to a column of this type; `in_key`: an index must hold it. None: it has no
/// place there.
pub fn mysql_name(kind: &ColumnType, in_key: bool) -> Option<String> {
    let seconds = |precision: u8| if precision == 0 { String::new() } else { format!("({precision})") };
    let name = match *kind {
        ColumnType::Bool => "tinyint(1)".to_owned(),
        ColumnType::Int { bits, unsigned } => {
            let name = match bits {
                ..=8 => "tinyint",
                9..=16 => "smallint",
                17..=24 => "mediumint",
                25..=32 => "int",
                33.. => "bigint",
            };
            format!("{name}{}", if unsigned { " unsigned" } else { "" })
        }
        ColumnType::Float32 => "float".to_owned(),
        ColumnType::Float64 => "double".to_owned(),
        ColumnType::Decimal { precision, scale } => mysql_decimal(precision, scale),
        ColumnType::Text { limit, padded } => mysql_text(limit, padded, in_key),
        ColumnType::Enum => mysql_text(TextLimit::Characters(255), false, in_key),
        ColumnType::Set => mysql_text(TextLimit::Bytes(SHORT + 1), false, in_key),
        ColumnType::Bytes { limit, padded } => mysql_bytes(limit.unwrap_or(LONG), padded, in_key),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Time { precision } => format!("time{}", seconds(precision)),
        // MySQL's own `timestamp` ends in 2038.
        ColumnType::Timestamp { precision } | ColumnType::TimestampTz { precision } => {
            format!("datetime{}", seconds(precision))
        }
        ColumnType::Year => "year".to_owned(),
        ColumnType::Uuid => "char(36) character set ascii collate ascii_bin".to_owned(),
        ColumnType::Json { .. } => "json".to_owned(),
        ColumnType::Bits { length: length @ 1..=64, varying: false } => format!("bit({length})"),
        ColumnType::Bits { length: BITS_WITHOUT_LIMIT, .. } => mysql_text(TextLimit::None, false, in_key),
        ColumnType::Bits { length, .. } => mysql_text(TextLimit::Characters(length), false, in_key),
        ColumnType::Named { engine: Engine::Mysql, ref name } => name.clone(),
        ColumnType::Id | ColumnType::Document | ColumnType::Field => return None,
        ColumnType::Named { engine: Engine::Postgres | Engine::Mongodb, .. } => return None,
    };
    Some(name)
}

/// At most 65 digits, 30 of them after the point, and no scale below zero or above the precision.
fn mysql_decimal(precision: Option<u16>, scale: i16) -> String {
    let wanted = precision.map(|precision| {
        let whole = (i32::from(precision) - i32::from(scale)).max(0);
        let places = i32::from(scale.max(0));
        ((whole + places).max(1), places)
    });
    match wanted {
        Some((digits @ ..=65, places @ ..=30)) => format!("decimal({digits},{places})"),
        Some(_) | None => "decimal(65,30)".to_owned(),
    }
}

/// Without its own character set a column takes the table's, which need not hold every character; this collation alone
/// tells 'a' from 'A' and from 'a ', as PostgreSQL does.
pub(crate) const EVERY_CHARACTER: &str = " character set utf8mb4 collate utf8mb4_0900_bin";

fn mysql_text(limit: TextLimit, padded: bool, in_key: bool) -> String {
    if in_key {
        // An index holds 3072 bytes.
        let characters = match limit {
            TextLimit::Characters(n) => n.min(768),
            TextLimit::None => 255,
            TextLimit::Bytes(n) => u32::try_from(n).map_or(255, |n| n.min(255)),
        };
        let name = if padded && characters <= 255 { "char" } else { "varchar" };
        return format!("{name}({characters}){EVERY_CHARACTER}");
    }
    let name = match limit {
        TextLimit::Characters(n @ ..=255) if padded => format!("char({n})"),
        // The declared lengths of a row's columns add up to 65,535 bytes: long ones are kept outside of it.
        TextLimit::Characters(n @ ..=1024) => format!("varchar({n})"),
        TextLimit::Characters(n) => text_of(4 * u64::from(n)),
        TextLimit::Bytes(n) => text_of(n),
        TextLimit::None => text_of(LONG),
    };
    format!("{name}{EVERY_CHARACTER}")
}

fn text_of(bytes: u64) -> String {
    format!("{}text", size_of(bytes))
}

fn mysql_bytes(bytes: u64, padded: bool, in_key: bool) -> String {
    match bytes {
        n @ ..=255 if padded => format!("binary({n})"),
        n if in_key => format!("varbinary({})", if n <= 3072 { n } else { 255 }),
        n @ ..=1024 => format!("varbinary({n})"),
        n => format!("{}blob", size_of(n)),
    }
}

/// The first syllable of the TEXT or BLOB that holds so many bytes.
fn size_of(bytes: u64) -> &'static str {
    [(TINY, "tiny"), (SHORT, ""), (MEDIUM, "medium")]
        .into_iter()
        .find(|(most, _)| bytes <= *most)
        .map_or("long", |(_, name)| name)
}

#[cfg(test)]
mod tests;
