//! A relational column's value as a document's field.

use super::clock;
use super::decimal::Decimal;
use super::mapping::Times;
use super::write::Writer;
use super::{extended, kind};
use crate::convert::Refusal;
use crate::types::ColumnType;
use crate::value::{Damaged, Value};

/// Writes a field, or says why the server has no exact form of the value.
pub fn put(out: &mut Writer, name: &str, value: Value<'_>, column: &ColumnType, times: Times) -> Result<(), Refusal> {
    let done = match value {
        Value::Null => out.put(kind::NULL, name, &[]),
        Value::Bool(value) => out.put(kind::BOOL, name, &[value.into()]),
        Value::Int(number) => return integer(out, name, number, column),
        Value::UInt(number) => return decimal(out, name, &number.to_string()),
        Value::Float32(number) => out.put(kind::DOUBLE, name, &f64::from(number).to_le_bytes()),
        Value::Float64(number) => out.put(kind::DOUBLE, name, &number.to_le_bytes()),
        Value::Decimal(digits) => return decimal(out, name, digits),
        Value::Text(text) | Value::Bits(text) => out.text(name, text),
        Value::Bytes(bytes) => out.binary(name, 0, bytes),
        Value::Uuid(uuid) => out.binary(name, 4, &uuid),
        Value::Date(days @ (i32::MIN | i32::MAX)) => {
            return refuse(format_args!("the date {}infinity", if days < 0 { "-" } else { "" }));
        }
        Value::Date(days) => out.put(kind::DATE, name, &(i64::from(days) * 86_400_000).to_le_bytes()),
        Value::Timestamp(micros) if times.are_text(column) => out.text(name, &clock::timestamp(micros, false)),
        Value::TimestampTz(micros) if times.are_text(column) => out.text(name, &clock::timestamp(micros, true)),
        Value::Timestamp(micros) | Value::TimestampTz(micros) => match micros {
            i64::MIN | i64::MAX => return refuse("an infinite timestamp"),
            micros if micros % 1_000 == 0 => out.put(kind::DATE, name, &(micros / 1_000).to_le_bytes()),
            _ => {
                return refuse(
                    "a timestamp with microseconds, where MongoDB has milliseconds: make the column's precision 3, or write document = { times = \"text\" }",
                );
            }
        },
        Value::Time(micros) => out.text(name, &clock::time(micros)),
        Value::Json(text) => {
            let (kind, bytes) = extended::from_json(text)?;
            if kind == kind::NULL {
                return refuse("a JSON null, which a document can't tell from NULL");
            }
            out.put(kind, name, &bytes)
        }
        Value::Document(bytes) => out.put(kind::DOCUMENT, name, bytes),
        Value::Raw(_) => return refuse("a value that only its own engine has"),
        Value::Patch(_) => return refuse("a part of a document"),
    };
    done.map_err(|Damaged(text)| Refusal(text.to_owned()))
}

fn refuse<T>(reason: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal(reason.to_string()))
}

/// The column decides, not the value: all of a column's fields have one type.
fn integer(out: &mut Writer, name: &str, number: i64, column: &ColumnType) -> Result<(), Refusal> {
    let done = match (column, i32::try_from(number)) {
        (ColumnType::Int { bits: ..=32, unsigned: false } | ColumnType::Year, Ok(number)) => {
            out.put(kind::INT32, name, &number.to_le_bytes())
        }
        (ColumnType::Int { bits: ..=24, unsigned: true }, Ok(number)) => {
            out.put(kind::INT32, name, &number.to_le_bytes())
        }
        _ => out.put(kind::INT64, name, &number.to_le_bytes()),
    };
    done.map_err(|Damaged(text)| Refusal(text.to_owned()))
}

fn decimal(out: &mut Writer, name: &str, digits: &str) -> Result<(), Refusal> {
    match Decimal::parse(digits) {
        Some(number) => {
            out.put(kind::DECIMAL128, name, &number.to_bytes()).map_err(|Damaged(text)| Refusal(text.to_owned()))
        }
        None => refuse("a number of more than 34 digits"),
    }
}
