//! What is done to one value on its way, after the types have been looked at once.

use super::Refusal;
use crate::decimal::Digits;
use crate::json;
use crate::types::{BITS_WITHOUT_LIMIT, TextLimit};
use crate::value::Value;
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    BoolToInt,
    IntToBool,
    BoolToBit,
    BitToBool,
    IntInRange { low: i64, high: u64 },
    IntToDecimal { precision: Option<u16>, scale: i16 },
    IntToFloat32,
    IntToFloat64,
    IntToYear,
    Float32ToFloat64,
    Float64ToFloat32,
    DecimalToInt { low: i64, high: u64 },
    DecimalToDecimal { precision: u16, scale: i16 },
    /// `strip`: blanks at the end are the source's padding. `padded`: the target would lose a blank at the end.
    Text { room: Room, strip: bool, padded: bool },
    TextToJson { textual: bool },
    JsonToNormalized,
    /// `exact`: a shorter one would be filled.
    Bytes { limit: u64, exact: bool },
    /// `unit`: the microseconds that the target's precision is made of.
    Micros { unit: i64, relabel: Relabel },
    UuidToText,
    TextToUuid,
    BytesToUuid,
    Bits { length: u32, exact: bool },
    BitsToText { room: Room },
    TextToBits { length: u32, exact: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Unlimited,
    Characters(u32),
    Bytes(u64),
}

impl Room {
    pub(super) fn of(limit: TextLimit) -> Self {
        match limit {
            TextLimit::None => Room::Unlimited,
            TextLimit::Characters(n) => Room::Characters(n),
            TextLimit::Bytes(n) => Room::Bytes(n),
        }
    }

    fn check(self, text: &str) -> Result<(), Refusal> {
        let length = text.len() as u64;
        match self {
            Room::Unlimited => Ok(()),
            Room::Bytes(n) if length <= n => Ok(()),
            // No text has more characters than bytes: most are never counted.
            Room::Characters(n) if length <= u64::from(n) || text.chars().count() as u64 <= u64::from(n) => Ok(()),
            Room::Bytes(n) => refuse(format_args!("a text longer than {n} bytes")),
            Room::Characters(n) => refuse(format_args!("a text longer than {n} characters")),
        }
    }
}

/// What kind of microseconds come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relabel {
    Time,
    Timestamp,
    TimestampTz,
    ToTimestamp,
    ToTimestampTz,
}

fn refuse<T>(reason: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal(reason.to_string()))
}

impl Step {
    pub(super) fn take<'a>(&self, value: Value<'a>, scratch: &'a mut String) -> Result<Value<'a>, Refusal> {
        match (*self, value) {
            (Step::Keep, value) => Ok(value),
            (_, Value::Null) => Ok(Value::Null),
            (Step::BoolToInt, Value::Bool(value)) => Ok(Value::Int(i64::from(value))),
            (Step::IntToBool, Value::Int(value @ (0 | 1))) => Ok(Value::Bool(value == 1)),
            (Step::IntToBool, Value::Int(_) | Value::UInt(_)) => refuse("a number other than 0 and 1"),
            (Step::BoolToBit, Value::Bool(value)) => Ok(Value::Bits(if value { "1" } else { "0" })),
            (Step::BitToBool, Value::Bits(digit @ ("0" | "1"))) => Ok(Value::Bool(digit == "1")),
            (Step::IntInRange { low, high }, Value::Int(_) | Value::UInt(_)) => in_range(value, low, high),
            (Step::IntToDecimal { precision, scale }, Value::Int(_) | Value::UInt(_)) => {
                scratch.clear();
                write_int(scratch, value)?;
                let text: &'a String = scratch_with_scale(scratch, precision, scale)?;
                Ok(Value::Decimal(text))
            }
            (Step::IntToFloat32, Value::Int(_) | Value::UInt(_)) => int_to_float32(value),
            (Step::IntToFloat64, Value::Int(_) | Value::UInt(_)) => int_to_float64(value),
            (Step::IntToYear, Value::Int(0 | 1901..=2155)) => Ok(value),
            (Step::IntToYear, Value::Int(_) | Value::UInt(_)) => refuse("a year other than 0 and 1901 to 2155"),
            (Step::Float32ToFloat64, Value::Float32(value)) => Ok(Value::Float64(f64::from(value))),
            (Step::Float64ToFloat32, Value::Float64(value)) => float64_to_float32(value),
            (Step::DecimalToInt { low, high }, Value::Decimal(text)) => decimal_to_int(text, low, high),
            (Step::DecimalToDecimal { precision, scale }, Value::Decimal(text)) => {
                decimal_to_decimal(text, precision, scale, scratch)
            }
            (Step::Text { room, strip, padded }, Value::Text(text) | Value::Json(text)) => {
                let text = if strip { text.trim_end_matches(' ') } else { text };
                if padded && text.ends_with(' ') {
                    return refuse("a text that ends in a blank, for a column that drops such blanks");
                }
                room.check(text)?;
                Ok(Value::Text(text))
            }
            (Step::TextToJson { textual }, Value::Text(text)) => match json::survey(text) {
                None => refuse("a text that is not JSON"),
                Some(survey) if survey.duplicate_members && !textual => duplicate_members(),
                Some(_) => Ok(Value::Json(text)),
            },
            (Step::JsonToNormalized, Value::Json(text)) => match json::survey(text) {
                None => refuse("a text that is not JSON"),
                Some(survey) if survey.duplicate_members => duplicate_members(),
                Some(_) => Ok(value),
            },
            (Step::Bytes { limit, exact }, Value::Bytes(bytes)) => match bytes.len() as u64 {
                length if length > limit => refuse(format_args!("longer than {limit} bytes")),
                length if exact && length < limit => {
                    refuse(format_args!("shorter than {limit} bytes, for a column that fills up with zero bytes"))
                }
                _ => Ok(value),
            },
            (Step::Micros { unit, relabel }, value) => micros(value, unit, relabel),
            (Step::UuidToText, Value::Uuid(bytes)) => {
                write_uuid(scratch, bytes);
                Ok(Value::Text(scratch))
            }
            (Step::TextToUuid, Value::Text(text)) => {
                read_uuid(text).map(Value::Uuid).map_or_else(|| refuse("a text that is no uuid in lower case"), Ok)
            }
            (Step::BytesToUuid, Value::Bytes(bytes)) => {
                bytes.try_into().map(Value::Uuid).or_else(|_| refuse("not the 16 bytes of a uuid"))
            }
            (Step::Bits { length, exact }, Value::Bits(digits)) => bits(digits, length, exact),
            (Step::BitsToText { room }, Value::Bits(digits)) => room.check(digits).map(|()| Value::Text(digits)),
            (Step::TextToBits { length, exact }, Value::Text(text)) => {
                if !text.bytes().all(|byte| matches!(byte, b'0' | b'1')) {
                    return refuse("a text with other characters than 0 and 1");
                }
                bits(text, length, exact)
            }
            (step, _) => refuse(format_args!("a value of another kind than its column's type ({})", step.name())),
        }
    }

    /// What the value should have been, for a message that never comes unless a definition changed unseen.
    fn name(self) -> &'static str {
        match self {
            Step::Keep => "any",
            Step::BoolToInt | Step::BoolToBit => "bool",
            Step::IntToBool
            | Step::IntInRange { .. }
            | Step::IntToDecimal { .. }
            | Step::IntToFloat32
            | Step::IntToFloat64
            | Step::IntToYear => "int",
            Step::Float32ToFloat64 | Step::Float64ToFloat32 => "float",
            Step::DecimalToInt { .. } | Step::DecimalToDecimal { .. } => "decimal",
            Step::Text { .. } | Step::TextToJson { .. } | Step::TextToUuid | Step::TextToBits { .. } => "text",
            Step::JsonToNormalized => "json",
            Step::Bytes { .. } | Step::BytesToUuid => "bytes",
            Step::Micros { .. } => "time",
            Step::UuidToText => "uuid",
            Step::BitToBool | Step::Bits { .. } | Step::BitsToText { .. } => "bits",
        }
    }
}
