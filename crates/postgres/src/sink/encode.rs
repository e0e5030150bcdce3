//! The encoder half of the value codec: canonical values into PostgreSQL's binary arrays, one array per column.
//!
//! An array is built as it will stand on the wire; handing it to the driver is one copy.

use super::numeric::put_numeric;
use crate::calendar;
use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, ToSql, Type};
use std::error::Error as StdError;
use std::fmt;
use sync_worker_core::convert::Refusal;
use sync_worker_core::value::Value;

/// Days and microseconds from 1970-01-01, where canonical values start, to 2000-01-01, where PostgreSQL's do.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// How the elements of a column's array are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Jsonb,
    /// As text; the statement casts it to the column's type.
    Cast,
}

impl Element {
    /// The element for a type of `pg_catalog`; every other type is cast from text.
    pub fn of(oid: u32) -> Self {
        match Type::from_oid(oid) {
            Some(Type::BOOL) => Element::Bool,
            Some(Type::INT2) => Element::Int2,
            Some(Type::INT4) => Element::Int4,
            Some(Type::INT8) => Element::Int8,
            Some(Type::FLOAT4) => Element::Float4,
            Some(Type::FLOAT8) => Element::Float8,
            Some(Type::NUMERIC) => Element::Numeric,
            Some(Type::TEXT) => Element::Text,
            Some(Type::VARCHAR) => Element::Varchar,
            Some(Type::BPCHAR) => Element::Bpchar,
            Some(Type::BYTEA) => Element::Bytea,
            Some(Type::DATE) => Element::Date,
            Some(Type::TIME) => Element::Time,
            Some(Type::TIMESTAMP) => Element::Timestamp,
            Some(Type::TIMESTAMPTZ) => Element::TimestampTz,
            Some(Type::UUID) => Element::Uuid,
            Some(Type::JSON) => Element::Json,
            Some(Type::JSONB) => Element::Jsonb,
            Some(_) | None => Element::Cast,
        }
    }

    /// The array's type, as a statement writes it.
    pub fn array_type(self) -> &'static str {
        match self {
            Element::Bool => "bool[]",
            Element::Int2 => "int2[]",
            Element::Int4 => "int4[]",
            Element::Int8 => "int8[]",
            Element::Float4 => "float4[]",
            Element::Float8 => "float8[]",
            Element::Numeric => "numeric[]",
            Element::Text | Element::Cast => "text[]",
            Element::Varchar => "varchar[]",
            Element::Bpchar => "bpchar[]",
            Element::Bytea => "bytea[]",
            Element::Date => "date[]",
            Element::Time => "time[]",
            Element::Timestamp => "timestamp[]",
            Element::TimestampTz => "timestamptz[]",
            Element::Uuid => "uuid[]",
            Element::Json => "json[]",
            Element::Jsonb => "jsonb[]",
        }
    }

    fn oid(self) -> u32 {
        let kind = match self {
            Element::Bool => Type::BOOL,
            Element::Int2 => Type::INT2,
            Element::Int4 => Type::INT4,
            Element::Int8 => Type::INT8,
            Element::Float4 => Type::FLOAT4,
            Element::Float8 => Type::FLOAT8,
            Element::Numeric => Type::NUMERIC,
            Element::Text | Element::Cast => Type::TEXT,
            Element::Varchar => Type::VARCHAR,
            Element::Bpchar => Type::BPCHAR,
            Element::Bytea => Type::BYTEA,
            Element::Date => Type::DATE,
            Element::Time => Type::TIME,
            Element::Timestamp => Type::TIMESTAMP,
            Element::TimestampTz => Type::TIMESTAMPTZ,
            Element::Uuid => Type::UUID,
            Element::Json => Type::JSON,
            Element::Jsonb => Type::JSONB,
        };
        kind.oid()
    }

    /// Appends the element's binary form without its length. A value that the type can't hold is refused; what has been
    /// appended by then is the caller's to drop.
    fn put(self, value: Value<'_>, out: &mut BytesMut) -> Result<(), Refusal> {
        match (self, value) {
            (Element::Bool, Value::Bool(value)) => out.put_u8(u8::from(value)),
            (Element::Int2, Value::Int(value)) => out.put_i16(narrow(value)?),
            (Element::Int4, Value::Int(value)) => out.put_i32(narrow(value)?),
            (Element::Int8, Value::Int(value)) => out.put_i64(value),
            (Element::Float4, Value::Float32(value)) => out.put_f32(value),
            (Element::Float8, Value::Float64(value)) => out.put_f64(value),
            (Element::Numeric, Value::Decimal(text)) => put_numeric(text, out)?,
            (Element::Text | Element::Varchar | Element::Bpchar | Element::Cast, Value::Text(text)) => {
                put_text(text, out)?;
            }
            (Element::Json, Value::Json(text)) => put_text(text, out)?,
            (Element::Jsonb, Value::Json(text)) => {
                out.put_u8(1);
                put_text(text, out)?;
            }
            (Element::Bytea, Value::Bytes(bytes)) => out.put_slice(bytes),
            (Element::Date, Value::Date(days)) => out.put_i32(match days {
                i32::MIN | i32::MAX => days,
                days => days.checked_sub(EPOCH_DAYS).ok_or_else(too_early)?,
            }),
            (Element::Time, Value::Time(micros)) => match micros {
                0..=DAY_MICROS => out.put_i64(micros),
                _ => {
                    return Err(Refusal(
                        "a time below 0 or above 24 hours, which PostgreSQL's time does not hold".into(),
                    ));
                }
            },
            (Element::Timestamp, Value::Timestamp(micros)) | (Element::TimestampTz, Value::TimestampTz(micros)) => {
                out.put_i64(match micros {
                    i64::MIN | i64::MAX => micros,
                    micros => micros.checked_sub(EPOCH_MICROS).ok_or_else(too_early)?,
                });
            }
            (Element::Timestamp, Value::Raw(text)) => out.put_i64(late(text, b"")?),
            (Element::TimestampTz, Value::Raw(text)) => out.put_i64(late(text, b"+00")?),
            (Element::Text | Element::Varchar | Element::Bpchar | Element::Json | Element::Jsonb, Value::Raw(_)) => {
                return Err(Refusal("a text with bytes that are no character".into()));
            }
            (Element::Uuid, Value::Uuid(bytes)) => out.put_slice(&bytes),
            (Element::Cast, Value::Bits(digits)) => out.put_slice(digits.as_bytes()),
            (Element::Cast, Value::Raw(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Refusal("a value that is not UTF-8 text".into()))?;
                put_text(text, out)?;
            }
            _ => return Err(Refusal("a value of another type than the column's".into())),
        }
        Ok(())
    }
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| Refusal("a number out of the column's range".into()))
}

fn too_early() -> Refusal {
    Refusal("a date earlier than PostgreSQL holds".into())
}

fn late(text: &[u8], zone: &[u8]) -> Result<i64, Refusal> {
    let micros = calendar::late_timestamp(text, zone);
    micros.ok_or_else(|| Refusal("a value that only its own engine has, such as a zero date".into()))
}

fn put_text(text: &str, out: &mut BytesMut) -> Result<(), Refusal> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Refusal("a zero character, which PostgreSQL's text does not hold".into()));
    }
    out.put_slice(text.as_bytes());
    Ok(())
}

/// A one-dimensional array under way to the server. Its `Debug` shows no value: the driver prints parameters when its
/// debug log is on (invariant 11).
#[derive(Clone)]
pub struct Array {
    element: Element,
    count: i32,
    nulls: bool,
    body: BytesMut,
    /// Where the last element starts.
    last: usize,
}

impl Array {
    pub fn new(element: Element) -> Self {
        Self { element, count: 0, nulls: false, body: BytesMut::new(), last: 0 }
    }

    /// Appends a value, or refuses it and stays as it was.
    pub fn push(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if value.is_null() {
            self.push_null();
            return Ok(());
        }
        let start = self.body.len();
        self.body.put_i32(0);
        if let Err(refusal) = self.element.put(value, &mut self.body) {
            self.body.truncate(start);
            return Err(refusal);
        }
        let Ok(length) = i32::try_from(self.body.len() - start - 4) else {
            self.body.truncate(start);
            return Err(Refusal("a value above 2 GB".into()));
        };
        self.body[start..start + 4].copy_from_slice(&length.to_be_bytes());
        self.last = start;
        self.count += 1;
        Ok(())
    }

    pub fn push_null(&mut self) {
        self.last = self.body.len();
        self.body.put_i32(-1);
        self.nulls = true;
        self.count += 1;
    }

    pub fn len(&self) -> i32 {
        self.count
    }

    /// Takes back the last element, if there are more than `count`. That an array is said to hold nulls and does not is
    /// allowed.
    pub fn truncate_to(&mut self, count: i32) {
        if self.count > count {
            self.body.truncate(self.last);
            self.count -= 1;
        }
    }

    pub fn size(&self) -> usize {
        self.body.len()
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} elements)", self.element.array_type(), self.count)
    }
}

impl ToSql for Array {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.reserve(20 + self.body.len());
        out.put_i32(i32::from(self.count > 0));
        out.put_i32(i32::from(self.nulls));
        out.put_u32(self.element.oid());
        if self.count > 0 {
            out.put_i32(self.count);
            out.put_i32(1);
            out.put_slice(&self.body);
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(kind.kind(), postgres_types::Kind::Array(_))
    }

    postgres_types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_leaves_the_array_as_it_was() {
        let mut array = Array::new(Element::Int2);
        array.push(Value::Int(1)).unwrap();
        assert!(array.push(Value::Int(40_000)).is_err());
        assert!(array.push(Value::Text("1")).is_err());
        assert_eq!((array.len(), array.size()), (1, 6));
        array.push(Value::Int(2)).unwrap();
        array.truncate_to(1);
        array.truncate_to(1);
        assert_eq!((array.len(), array.size()), (1, 6));
    }

    #[test]
    fn zero_characters_and_times_beyond_a_day_are_refused() {
        assert!(Array::new(Element::Text).push(Value::Text("a\0b")).is_err());
        assert!(Array::new(Element::Jsonb).push(Value::Json("\"\0\"")).is_err());
        assert!(Array::new(Element::Time).push(Value::Time(-1)).is_err());
        assert!(Array::new(Element::Time).push(Value::Time(DAY_MICROS + 1)).is_err());
        Array::new(Element::Time).push(Value::Time(DAY_MICROS)).unwrap();
    }

    #[test]
    fn debug_shows_no_value() {
        let mut array = Array::new(Element::Text);
        array.push(Value::Text("hunter2")).unwrap();
        assert_eq!(format!("{array:?}"), "text[](1 elements)");
    }
}
