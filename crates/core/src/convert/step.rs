//! What is done to one value on its way, after the types have been looked at once.

use super::Refusal;
use super::from_field::{self, Takes};
use crate::decimal::Digits;
use crate::json;
use crate::types::{BITS_WITHOUT_LIMIT, TextLimit};
use crate::value::Value;
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    FromField(Takes),
    BoolToInt,
    IntToBool,
    BoolToBit,
    BitToBool,
    IntInRange {
        low: i64,
        high: u64,
    },
    IntToDecimal {
        precision: Option<u16>,
        scale: i16,
    },
    IntToFloat32,
    IntToFloat64,
    IntToYear,
    Float32ToFloat64,
    Float64ToFloat32,
    DecimalToInt {
        low: i64,
        high: u64,
    },
    DecimalToDecimal {
        precision: u16,
        scale: i16,
    },
    /// `strip`: blanks at the end are the source's padding. `padded`: the target would lose a blank at the end.
    Text {
        room: Room,
        strip: bool,
        padded: bool,
    },
    TextToJson {
        textual: bool,
    },
    JsonToNormalized,
    /// `exact`: a shorter one would be filled.
    Bytes {
        limit: u64,
        exact: bool,
    },
    /// `unit`: the microseconds that the target's precision is made of.
    Micros {
        unit: i64,
        relabel: Relabel,
    },
    UuidToText,
    TextToUuid,
    BytesToUuid,
    Bits {
        length: u32,
        exact: bool,
    },
    BitsToText {
        room: Room,
    },
    TextToBits {
        length: u32,
        exact: bool,
    },
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

    pub(super) fn check(self, text: &str) -> Result<(), Refusal> {
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
            (Step::FromField(takes), Value::Raw(raw)) => from_field::take(takes, raw, scratch),
            (_, Value::Null) => Ok(Value::Null),
            (Step::BoolToInt, Value::Bool(value)) => Ok(Value::Int(i64::from(value))),
            (Step::IntToBool, Value::Int(value @ (0 | 1))) => Ok(Value::Bool(value == 1)),
            (Step::IntToBool, Value::Int(_) | Value::UInt(_)) => refuse("a number other than 0 and 1"),
            (Step::BoolToBit, Value::Bool(value)) => Ok(Value::Bits(if value { "1" } else { "0" })),
            (Step::BitToBool, Value::Bits(digit @ ("0" | "1"))) => Ok(Value::Bool(digit == "1")),
            (Step::IntInRange { low, high }, Value::Int(_) | Value::UInt(_)) => in_range(value, low, high),
            (Step::IntToDecimal { precision, scale }, Value::Int(_) | Value::UInt(_)) => {
                int_to_decimal(value, precision, scale, scratch)
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
                scratch.clear();
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
            // A codec's way to say that the value is none of the calendar's, the number line's or the character set's.
            (Step::Text { .. } | Step::TextToJson { .. } | Step::JsonToNormalized, Value::Raw(_)) => {
                refuse("a text with bytes that are no character")
            }
            (_, Value::Raw(_)) => refuse("a value that only its own engine has, such as a zero date"),
            (step, _) => refuse(format_args!("a value of another kind than its column's type ({})", step.name())),
        }
    }

    /// What the value should have been, for a message that never comes unless a definition changed unseen.
    fn name(self) -> &'static str {
        match self {
            Step::Keep => "any",
            Step::FromField(_) => "field",
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

fn in_range(value: Value<'_>, low: i64, high: u64) -> Result<Value<'_>, Refusal> {
    let fits = match value {
        Value::Int(number) => number >= low && u64::try_from(number).map_or(true, |number| number <= high),
        Value::UInt(number) => number <= high,
        _ => false,
    };
    if fits { Ok(value) } else { refuse(format_args!("a number that is not from {low} to {high}")) }
}

fn number(value: Value<'_>) -> i128 {
    match value {
        Value::Int(number) => i128::from(number),
        Value::UInt(number) => i128::from(number),
        _ => 0,
    }
}

fn int_to_decimal<'a>(
    value: Value<'_>,
    precision: Option<u16>,
    scale: i16,
    scratch: &'a mut String,
) -> Result<Value<'a>, Refusal> {
    scratch.clear();
    if write!(scratch, "{}", number(value)).is_err() {
        return refuse("a number that can't be written");
    }
    if let Some(precision) = precision {
        if !Digits::parse(scratch).is_some_and(|digits| digits.fits(precision, scale)) {
            return too_many_digits(precision, scale);
        }
        fill_fraction(scratch, 0, scale);
    }
    Ok(Value::Decimal(scratch))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // looked at: back in the integer it must be equal
fn int_to_float32(value: Value<'_>) -> Result<Value<'_>, Refusal> {
    let number = number(value);
    let float = number as f32;
    if float as i128 == number { Ok(Value::Float32(float)) } else { refuse("an integer that a float does not hold") }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // as above
fn int_to_float64(value: Value<'_>) -> Result<Value<'_>, Refusal> {
    let number = number(value);
    let float = number as f64;
    if float as i128 == number { Ok(Value::Float64(float)) } else { refuse("an integer that a double does not hold") }
}

#[allow(clippy::cast_possible_truncation)] // looked at: back in the double it must have the same bits
fn float64_to_float32<'a>(value: f64) -> Result<Value<'a>, Refusal> {
    let float = value as f32;
    if f64::from(float).to_bits() == value.to_bits() || value.is_nan() {
        return Ok(Value::Float32(float));
    }
    refuse("a double that a float does not hold")
}

fn decimal_to_int(text: &str, low: i64, high: u64) -> Result<Value<'_>, Refusal> {
    let Some(digits) = Digits::parse(text) else { return refuse("no finite number, for a column of integers") };
    let number = digits.integer().filter(|number| (i128::from(low)..=i128::from(high)).contains(number));
    let value = number.and_then(|number| match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => Some(Value::Int(number)),
        (_, Ok(number)) => Some(Value::UInt(number)),
        (Err(_), Err(_)) => None,
    });
    value.map_or_else(|| refuse(format_args!("a number that is not a whole one from {low} to {high}")), Ok)
}

/// With exactly as many places as the column shows, so that equal numbers have equal bytes at the target.
fn decimal_to_decimal<'a>(
    text: &'a str,
    precision: u16,
    scale: i16,
    scratch: &'a mut String,
) -> Result<Value<'a>, Refusal> {
    let Some(digits) = Digits::parse(text) else {
        return refuse("no finite number, for a column of decimals with a precision");
    };
    if !digits.fits(precision, scale) {
        return too_many_digits(precision, scale);
    }
    let places = usize::try_from(scale).unwrap_or(0);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() >= places {
        let end = if places == 0 { whole.len() } else { whole.len() + 1 + places };
        return Ok(Value::Decimal(&text[..end]));
    }
    scratch.clear();
    scratch.push_str(text);
    fill_fraction(scratch, fraction.len(), scale);
    Ok(Value::Decimal(scratch))
}

fn fill_fraction(number: &mut String, places: usize, scale: i16) {
    let wanted = usize::try_from(scale).unwrap_or(0);
    if wanted > 0 && !number.contains('.') {
        number.push('.');
    }
    number.extend(std::iter::repeat_n('0', wanted.saturating_sub(places)));
}

fn too_many_digits<T>(precision: u16, scale: i16) -> Result<T, Refusal> {
    refuse(format_args!("a number with more digits than decimal({precision},{scale}) holds"))
}

fn duplicate_members<T>() -> Result<T, Refusal> {
    refuse("JSON with a member twice, of which the column would keep one")
}

fn micros<'a>(value: Value<'_>, unit: i64, relabel: Relabel) -> Result<Value<'a>, Refusal> {
    let (count, value) = match (relabel, value) {
        (Relabel::Time, Value::Time(count)) => (count, Value::Time(count)),
        (Relabel::Timestamp, Value::Timestamp(count)) => (count, Value::Timestamp(count)),
        (Relabel::TimestampTz, Value::TimestampTz(count)) => (count, Value::TimestampTz(count)),
        (Relabel::ToTimestamp, Value::TimestampTz(count)) => (count, Value::Timestamp(count)),
        (Relabel::ToTimestampTz, Value::Timestamp(count)) => (count, Value::TimestampTz(count)),
        _ => return refuse("a value of another kind than its column's type (time)"),
    };
    let infinite = relabel != Relabel::Time && matches!(count, i64::MIN | i64::MAX);
    if infinite || count % unit == 0 {
        Ok(value)
    } else {
        refuse("a time with more digits of a second than the column's")
    }
}

fn bits(digits: &str, length: u32, exact: bool) -> Result<Value<'_>, Refusal> {
    let length = if length == BITS_WITHOUT_LIMIT { u64::MAX } else { u64::from(length) };
    match digits.len() as u64 {
        have if have > length => refuse(format_args!("more than {length} bits")),
        have if exact && have < length => refuse(format_args!("fewer than {length} bits")),
        _ => Ok(Value::Bits(digits)),
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The form that both engines print: lower case, hyphens.
fn write_uuid(out: &mut String, bytes: [u8; 16]) {
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// Only the form that is written: another would come back as another text.
fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0u8; 16];
    let mut digits = 0;
    for (at, character) in text.bytes().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let digit = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return None,
        };
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}
