//! Column types in canonical terms. The closed list of engine types that travel is [`crate::type_table`].

pub use crate::type_names::{mysql_type, postgres_type};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    Mongodb,
}

impl Engine {
    pub const ALL: [Engine; 3] = [Engine::Postgres, Engine::Mysql, Engine::Mongodb];

    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Postgres => "postgres",
            Engine::Mysql => "mysql",
            Engine::Mongodb => "mongodb",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long a text may be at its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextLimit {
    None,
    Characters(u32),
    /// MySQL's TEXT family counts bytes.
    Bytes(u64),
}

/// The length of `bit varying` without one, which PostgreSQL alone has.
pub const BITS_WITHOUT_LIMIT: u32 = u32::MAX;

/// What a column holds, whichever engine it belongs to. Its text form (`decimal(10,2)`) stands in schema records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    Bool,
    /// `bits` is 8, 16, 24, 32 or 64.
    Int {
        bits: u8,
        unsigned: bool,
    },
    Float32,
    Float64,
    /// Without a precision any number of digits, PostgreSQL's plain `numeric`.
    Decimal {
        precision: Option<u16>,
        scale: i16,
    },
    /// `padded`: the engine pads or strips trailing blanks (`char(n)`): its values travel without them, or a key would
    /// have two forms.
    Text {
        limit: TextLimit,
        padded: bool,
    },
    /// `padded`: filled with zero bytes (`binary(n)`): its values travel with them.
    Bytes {
        limit: Option<u64>,
        padded: bool,
    },
    Date,
    /// Digits of a second, 0 to 6.
    Time {
        precision: u8,
    },
    Timestamp {
        precision: u8,
    },
    TimestampTz {
        precision: u8,
    },
    /// MySQL's, an [`Int`](crate::value::Value::Int): 0 or 1901 to 2155.
    Year,
    Uuid,
    /// `textual`: the engine keeps the text as it was written (`json` of PostgreSQL), else it normalizes it.
    Json {
        textual: bool,
    },
    /// One of the engine's labels, travels as text.
    Enum,
    /// Labels with commas between them, in the column's order.
    Set,
    Bits {
        length: u32,
        varying: bool,
    },
    /// MongoDB's `_id`, the key of every collection: of any type, in a form that is the same for equal keys.
    Id,
    /// A whole document of MongoDB, its `_id` included.
    Document,
    /// A field of a document, of any BSON type.
    Field,
    /// A type without a canonical value: its exact form travels to engines of the same kind only.
    Named {
        engine: Engine,
        name: String,
    },
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let padded = |padded: bool| if padded { ",padded" } else { "" };
        match self {
            ColumnType::Bool => f.write_str("bool"),
            ColumnType::Int { bits, unsigned: false } => write!(f, "int({bits})"),
            ColumnType::Int { bits, unsigned: true } => write!(f, "uint({bits})"),
            ColumnType::Float32 => f.write_str("float32"),
            ColumnType::Float64 => f.write_str("float64"),
            ColumnType::Decimal { precision: None, .. } => f.write_str("decimal"),
            ColumnType::Decimal { precision: Some(precision), scale } => write!(f, "decimal({precision},{scale})"),
            ColumnType::Text { limit: TextLimit::None, .. } => f.write_str("text"),
            ColumnType::Text { limit: TextLimit::Characters(n), padded: p } => write!(f, "text({n}{})", padded(*p)),
            ColumnType::Text { limit: TextLimit::Bytes(n), .. } => write!(f, "text({n} bytes)"),
            ColumnType::Bytes { limit: None, .. } => f.write_str("bytes"),
            ColumnType::Bytes { limit: Some(n), padded: p } => write!(f, "bytes({n}{})", padded(*p)),
            ColumnType::Date => f.write_str("date"),
            ColumnType::Time { precision } => write!(f, "time({precision})"),
            ColumnType::Timestamp { precision } => write!(f, "timestamp({precision})"),
            ColumnType::TimestampTz { precision } => write!(f, "timestamptz({precision})"),
            ColumnType::Year => f.write_str("year"),
            ColumnType::Uuid => f.write_str("uuid"),
            ColumnType::Json { textual: true } => f.write_str("json(textual)"),
            ColumnType::Json { textual: false } => f.write_str("json"),
            ColumnType::Enum => f.write_str("enum"),
            ColumnType::Set => f.write_str("set"),
            ColumnType::Bits { length, varying: false } => write!(f, "bits({length})"),
            ColumnType::Bits { length, varying: true } => write!(f, "varbits({length})"),
            ColumnType::Id => f.write_str("id"),
            ColumnType::Document => f.write_str("document"),
            ColumnType::Field => f.write_str("field"),
            ColumnType::Named { engine, name } => write!(f, "named({engine},{name})"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a column type: {0:?}")]
pub struct InvalidColumnType(String);

impl FromStr for ColumnType {
    type Err = InvalidColumnType;

    fn from_str(text: &str) -> Result<Self, InvalidColumnType> {
        parse(text).ok_or_else(|| InvalidColumnType(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<ColumnType> {
    let (name, argument) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')')?)),
        None => (text, None),
    };
    let number = || argument?.parse::<u32>().ok();
    let precision = || u8::try_from(number()?).ok().filter(|digits| *digits <= 6);
    let bits = || u8::try_from(number()?).ok().filter(|bits| [8, 16, 24, 32, 64].contains(bits));
    Some(match (name, argument) {
        ("bool", None) => ColumnType::Bool,
        ("int", Some(_)) => ColumnType::Int { bits: bits()?, unsigned: false },
        ("uint", Some(_)) => ColumnType::Int { bits: bits()?, unsigned: true },
        ("float32", None) => ColumnType::Float32,
        ("float64", None) => ColumnType::Float64,
        ("decimal", None) => ColumnType::Decimal { precision: None, scale: 0 },
        ("decimal", Some(argument)) => {
            let (precision, scale) = argument.split_once(',')?;
            ColumnType::Decimal { precision: Some(precision.parse().ok()?), scale: scale.parse().ok()? }
        }
        ("text", None) => ColumnType::Text { limit: TextLimit::None, padded: false },
        ("text", Some(argument)) => match argument.strip_suffix(" bytes") {
            Some(bytes) => ColumnType::Text { limit: TextLimit::Bytes(bytes.parse().ok()?), padded: false },
            None => {
                let (characters, padded) = padding(argument);
                ColumnType::Text { limit: TextLimit::Characters(characters.parse().ok()?), padded }
            }
        },
        ("bytes", None) => ColumnType::Bytes { limit: None, padded: false },
        ("bytes", Some(argument)) => {
            let (bytes, padded) = padding(argument);
            ColumnType::Bytes { limit: Some(bytes.parse().ok()?), padded }
        }
        ("date", None) => ColumnType::Date,
        ("time", Some(_)) => ColumnType::Time { precision: precision()? },
        ("timestamp", Some(_)) => ColumnType::Timestamp { precision: precision()? },
        ("timestamptz", Some(_)) => ColumnType::TimestampTz { precision: precision()? },
        ("year", None) => ColumnType::Year,
        ("uuid", None) => ColumnType::Uuid,
        ("json", None) => ColumnType::Json { textual: false },
        ("json", Some("textual")) => ColumnType::Json { textual: true },
        ("enum", None) => ColumnType::Enum,
        ("set", None) => ColumnType::Set,
        ("bits", Some(_)) => ColumnType::Bits { length: number()?, varying: false },
        ("varbits", Some(_)) => ColumnType::Bits { length: number()?, varying: true },
        ("id", None) => ColumnType::Id,
        ("document", None) => ColumnType::Document,
        ("field", None) => ColumnType::Field,
        ("named", Some(argument)) => {
            let (engine, name) = argument.split_once(',')?;
            let engine = Engine::ALL.into_iter().find(|one| one.as_str() == engine)?;
            ColumnType::Named { engine, name: name.to_owned() }
        }
        _ => return None,
    })
}

fn padding(argument: &str) -> (&str, bool) {
    argument.strip_suffix(",padded").map_or((argument, false), |length| (length, true))
}
