//! MySQL's values as canonical ones: from row images of the binlog and from rows of the binary protocol, to equal bytes.
//!
//! What has no canonical value travels as [`Value::Raw`]: dates and times that are no day of the calendar and numbers of
//! types with a display width (`float(7,3)`) as MySQL's own literal text, spatial values and vectors as the bytes that
//! the server stores.

pub mod binlog;
pub mod charset;
pub mod decimal;
pub mod default;
pub mod json;
pub mod json_diff;
pub mod protocol;
pub mod temporal;

use crate::catalog::TableColumn;
use charset::Charset;
use std::sync::Arc;
use sync_worker_core::types::ColumnType;

/// Why bytes are no value of their column. Never holds the value (invariant 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

/// Room for text that has to be made, lent to one value at a time.
#[derive(Default)]
pub struct Scratch {
    text: String,
    bytes: Vec<u8>,
}

/// How the values of one column are stored. `prefix` is the number of bytes of a length in the binlog.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// `width` is 1, 2, 3, 4 or 8 bytes.
    Int {
        width: u8,
        unsigned: bool,
    },
    /// `literal`: a type with a display width, which rounds what is written to it.
    Float {
        literal: bool,
    },
    Double {
        literal: bool,
    },
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    Date,
    Time {
        digits: u8,
    },
    DateTime {
        digits: u8,
    },
    Timestamp {
        digits: u8,
    },
    Bit {
        length: u32,
    },
    Text {
        prefix: u8,
        charset: Charset,
    },
    /// `padded` to this many bytes with zeros, which the binlog leaves out; 0 is not padded.
    Bytes {
        prefix: u8,
        padded: usize,
    },
    Enum {
        width: u8,
        labels: Arc<[String]>,
    },
    Set {
        width: u8,
        labels: Arc<[String]>,
    },
    Json {
        prefix: u8,
    },
    /// Spatial values and vectors.
    Opaque {
        prefix: u8,
    },
}

impl Format {
    /// How a column comes in the binary protocol, where lengths and character sets are the protocol's own.
    pub fn of_column(column: &TableColumn) -> Option<Self> {
        let kind = &column.column.kind;
        let named = matches!(kind, ColumnType::Named { .. });
        let unsigned = matches!(kind, ColumnType::Int { unsigned: true, .. });
        let int = |width| Some(Format::Int { width, unsigned });
        match column.data_type.as_str() {
            "tinyint" => int(1),
            "smallint" => int(2),
            "mediumint" => int(3),
            "int" => int(4),
            "bigint" => int(8),
            "float" => Some(Format::Float { literal: named }),
            "double" => Some(Format::Double { literal: named }),
            "decimal" => Some(Format::Decimal { precision: 65, scale: 30 }),
            "year" => Some(Format::Year),
            "date" => Some(Format::Date),
            "time" => Some(Format::Time { digits: 6 }),
            "datetime" => Some(Format::DateTime { digits: 6 }),
            "timestamp" => Some(Format::Timestamp { digits: 6 }),
            "bit" => match kind {
                ColumnType::Bits { length, .. } => Some(Format::Bit { length: *length }),
                _ => None,
            },
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => match kind {
                ColumnType::Bytes { .. } => Some(Format::Bytes { prefix: 0, padded: 0 }),
                _ => Some(Format::Text { prefix: 0, charset: Charset::Utf8 }),
            },
            "enum" | "set" => Some(Format::Text { prefix: 0, charset: Charset::Utf8 }),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                Some(Format::Bytes { prefix: 0, padded: 0 })
            }
            "json" => Some(Format::Json { prefix: 0 }),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geomcollection" | "geometrycollection" | "vector" => Some(Format::Opaque { prefix: 0 }),
            _ => None,
        }
    }
}

/// Takes `N` bytes from the front.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Invalid> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(CUT)?;
    *bytes = rest;
    Ok(*head)
}

pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Invalid> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
    *bytes = rest;
    Ok(head)
}

/// An unsigned integer of 1 to 8 bytes, least significant first.
pub(crate) fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The same, most significant first.
pub(crate) fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

pub(crate) const CUT: Invalid = Invalid("ends early");
