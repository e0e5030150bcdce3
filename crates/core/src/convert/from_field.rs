//! From a document's field, which may be of any type, to a column's value.

use super::Refusal;
use super::step::Room;
use crate::decimal::Digits;
use crate::document::decimal::Decimal;
use crate::document::{Element, clock, extended, id, kind};
use crate::types::ColumnType;
use crate::value::{Damaged, Value};
use std::fmt::Write as _;

/// What the column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Bool,
    Int {
        low: i64,
        high: u64,
        small: bool,
    },
    Float32,
    Float64,
    Decimal {
        precision: Option<u16>,
        scale: i16,
    },
    Text {
        room: Room,
        padded: bool,
    },
    /// `exact`: a shorter one would be filled.
    Bytes {
        limit: Option<u64>,
        exact: bool,
    },
    Date,
    Time {
        unit: i64,
    },
    Timestamp {
        unit: i64,
        zoned: bool,
    },
    Year,
    Uuid,
    Json,
    Bits {
        length: u32,
        exact: bool,
    },
}

/// The value as the column takes it. `raw`: the number of the field's type, then its bytes; a type of 0 is a refusal that
/// was found before, in words that a zero byte ends.
pub(super) fn take<'a>(takes: Takes, raw: &'a [u8], scratch: &'a mut String) -> Result<Value<'a>, Refusal> {
    let (&kind, bytes) = raw.split_first().ok_or_else(|| Refusal("a field without a type".to_owned()))?;
    if kind == 0 {
        // What comes after the words is the key that they stand for, which no message shows (invariant 11).
        let words = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Err(Refusal(String::from_utf8_lossy(words).into_owned()));
    }
    let field = Element { kind, name: "", bytes };
    if matches!(kind, kind::NULL | kind::UNDEFINED) {
        return Ok(Value::Null);
    }
    let taken = match takes {
        Takes::Json => {
            scratch.clear();
            extended::to_json(field, scratch).map(|()| Some(Value::Json(scratch)))
        }
        Takes::Text { room, padded } => return text(field, room, padded, scratch),
        Takes::Decimal { precision, scale } => return decimal(field, precision, scale, scratch),
        _ => scalar(takes, field),
    };
    match taken {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(no_way(kind)),
        Err(Damaged(text)) => Err(Refusal(text.to_owned())),
    }
}

fn no_way(kind: u8) -> Refusal {
    Refusal(format!("a field of type {} with a value that the column does not take", kind::name(kind)))
}

fn number(field: Element<'_>) -> Result<Option<i64>, Damaged> {
    Ok(match field.kind {
        kind::INT32 => Some(i64::from(i32::from_le_bytes(field.array()?))),
        kind::INT64 => Some(i64::from_le_bytes(field.array()?)),
        kind::DOUBLE => id::whole(f64::from_le_bytes(field.array()?)),
        kind::DECIMAL128 => Decimal::from_bytes(field.array()?).whole(),
        _ => None,
    })
}

fn scalar<'a>(takes: Takes, field: Element<'a>) -> Result<Option<Value<'a>>, Damaged> {
    let string = |field: Element<'a>| if field.kind == kind::STRING { field.text().map(Some) } else { Ok(None) };
    Ok(match takes {
        Takes::Bool => match (field.kind, number(field)?) {
            (kind::BOOL, _) => Some(Value::Bool(field.array::<1>()? != [0])),
            (_, Some(number @ 0..=1)) => Some(Value::Bool(number == 1)),
            _ => None,
        },
        Takes::Int { low, high, small } => match (field.kind, number(field)?) {
            (kind::BOOL, _) if small => Some(Value::Int(i64::from(field.array::<1>()? != [0]))),
            (kind::DECIMAL128, None) => {
                let text = Decimal::from_bytes(field.array()?).to_string();
                let whole = Digits::parse(&text).and_then(|digits| digits.integer());
                let fits = whole.and_then(|whole| u64::try_from(whole).ok()).filter(|whole| *whole <= high);
                fits.map(Value::unsigned)
            }
            (_, Some(number)) => {
                let fits = number >= low && (number < 0 || number.cast_unsigned() <= high);
                fits.then_some(Value::Int(number))
            }
            _ => None,
        },
        Takes::Float32 => match field.kind {
            kind::DOUBLE => {
                let double = f64::from_le_bytes(field.array()?);
                #[allow(clippy::cast_possible_truncation)] // compared below
                let single = double as f32;
                let same = f64::from(single).to_bits() == double.to_bits() || double.is_nan();
                same.then_some(Value::Float32(single))
            }
            #[allow(clippy::cast_precision_loss)] // small enough
            _ => number(field)?
                .filter(|number| number.unsigned_abs() <= 1 << 24)
                .map(|number| Value::Float32(number as f32)),
        },
        Takes::Float64 => match field.kind {
            kind::DOUBLE => Some(Value::Float64(f64::from_le_bytes(field.array()?))),
            #[allow(clippy::cast_precision_loss)] // small enough
            _ => number(field)?
                .filter(|number| number.unsigned_abs() <= 1 << 53)
                .map(|number| Value::Float64(number as f64)),
        },
        Takes::Bytes { limit, exact } => {
            let bytes = match field.kind {
                kind::OBJECT_ID => Some(field.bytes),
                kind::BINARY => match id::binary(field)? {
                    (0 | 4, bytes) => Some(bytes),
                    _ => None,
                },
                _ => None,
            };
            let fits = |length: u64| limit.is_none_or(|limit| if exact { length == limit } else { length <= limit });
            bytes.filter(|bytes| fits(bytes.len() as u64)).map(Value::Bytes)
        }
        Takes::Uuid => match field.kind {
            kind::BINARY => match id::binary(field)? {
                (4, bytes) => <[u8; 16]>::try_from(bytes).ok().map(Value::Uuid),
                _ => None,
            },
            _ => string(field)?.and_then(uuid).map(Value::Uuid),
        },
        Takes::Date => match field.kind {
            kind::DATE => {
                let millis = i64::from_le_bytes(field.array()?);
                let days = i32::try_from(millis.div_euclid(86_400_000)).ok();
                days.filter(|days| millis % 86_400_000 == 0 && *days != i32::MAX && *days != i32::MIN).map(Value::Date)
            }
            _ => None,
        },
        Takes::Timestamp { unit, zoned } => match field.kind {
            // As `core::document::field` writes them where dates have too few digits.
            kind::STRING => {
                let micros = clock::read_timestamp(field.text()?, zoned);
                let fits = micros.filter(|micros| matches!(micros, &i64::MIN | &i64::MAX) || micros % unit == 0);
                fits.map(|micros| if zoned { Value::TimestampTz(micros) } else { Value::Timestamp(micros) })
            }
            kind::DATE => {
                let micros = i64::from_le_bytes(field.array()?).checked_mul(1_000);
                let fits = micros.filter(|micros| micros % unit == 0 && *micros != i64::MAX && *micros != i64::MIN);
                fits.map(|micros| if zoned { Value::TimestampTz(micros) } else { Value::Timestamp(micros) })
            }
            _ => None,
        },
        Takes::Time { unit } => {
            string(field)?.and_then(clock::read_time).filter(|micros| micros % unit == 0).map(Value::Time)
        }
        Takes::Year => number(field)?.filter(|year| matches!(year, 0 | 1901..=2155)).map(Value::Int),
        Takes::Bits { length, exact } => string(field)?
            .filter(|digits| digits.bytes().all(|digit| matches!(digit, b'0' | b'1')))
            .filter(|digits| {
                let count = digits.len() as u64;
                if exact { count == u64::from(length) } else { count <= u64::from(length) }
            })
            .map(Value::Bits),
        Takes::Text { .. } | Takes::Decimal { .. } | Takes::Json => None,
    })
}

fn text<'a>(field: Element<'a>, room: Room, padded: bool, scratch: &'a mut String) -> Result<Value<'a>, Refusal> {
    let damaged = |Damaged(text): Damaged| Refusal(text.to_owned());
    scratch.clear();
    let text: &str = match field.kind {
        kind::STRING => field.text().map_err(damaged)?,
        kind::OBJECT_ID => {
            hex(field.bytes, scratch);
            scratch
        }
        kind::BINARY => match id::binary(field).map_err(damaged)? {
            (4, uuid) if uuid.len() == 16 => {
                for (at, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
                    scratch.push_str(if at == 0 { "" } else { "-" });
                    hex(&uuid[part], scratch);
                }
                scratch
            }
            _ => return Err(no_way(field.kind)),
        },
        other => return Err(no_way(other)),
    };
    room.check(text)?;
    if padded && text.ends_with(' ') {
        return Err(Refusal("a text with a blank at its end, which the column would lose".to_owned()));
    }
    Ok(Value::Text(text))
}

fn decimal<'a>(
    field: Element<'_>,
    precision: Option<u16>,
    scale: i16,
    scratch: &'a mut String,
) -> Result<Value<'a>, Refusal> {
    let damaged = |Damaged(text): Damaged| Refusal(text.to_owned());
    scratch.clear();
    let decimal = match field.kind {
        kind::DECIMAL128 => Some(Decimal::from_bytes(field.array().map_err(damaged)?)),
        _ => None,
    };
    // Writing into a string can't fail.
    match (decimal, number(field).map_err(damaged)?) {
        (Some(number), _) => write!(scratch, "{number}").unwrap_or_default(),
        (None, Some(number)) => write!(scratch, "{number}").unwrap_or_default(),
        (None, None) => return Err(no_way(field.kind)),
    }
    let fits = match (Digits::parse(scratch), precision) {
        (Some(digits), Some(precision)) => digits.fits(precision, scale),
        // Its own engine refuses what it has no word for.
        (Some(_) | None, None) => true,
        (None, Some(_)) => scratch == "NaN",
    };
    if !fits {
        return Err(no_way(field.kind));
    }
    Ok(Value::Decimal(scratch))
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing into a string can't fail.
        write!(out, "{byte:02x}").unwrap_or_default();
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut uuid = [0; 16];
    for (at, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(uuid)
}

/// None: no field goes there.
pub(super) fn takes(column: &ColumnType) -> Option<Takes> {
    let unit = |precision: u8| 10i64.pow(u32::from(6 - precision.min(6)));
    Some(match *column {
        ColumnType::Bool => Takes::Bool,
        ColumnType::Int { bits, unsigned } => {
            let (low, high) = super::plan::range(bits, unsigned);
            Takes::Int { low, high, small: bits == 8 }
        }
        ColumnType::Float32 => Takes::Float32,
        ColumnType::Float64 => Takes::Float64,
        ColumnType::Decimal { precision, scale } => Takes::Decimal { precision, scale },
        ColumnType::Text { limit, padded } => Takes::Text { room: Room::of(limit), padded },
        // The target itself refuses a label that it does not have.
        ColumnType::Enum => Takes::Text { room: Room::Unlimited, padded: false },
        ColumnType::Bytes { limit, padded } => Takes::Bytes { limit, exact: padded },
        ColumnType::Date => Takes::Date,
        ColumnType::Time { precision } => Takes::Time { unit: unit(precision) },
        ColumnType::Timestamp { precision } => Takes::Timestamp { unit: unit(precision), zoned: false },
        ColumnType::TimestampTz { precision } => Takes::Timestamp { unit: unit(precision), zoned: true },
        ColumnType::Year => Takes::Year,
        ColumnType::Uuid => Takes::Uuid,
        ColumnType::Json { .. } => Takes::Json,
        ColumnType::Bits { length, varying } => Takes::Bits { length, exact: !varying },
        // MySQL puts the labels of a set in order and drops doubles without a word.
        ColumnType::Set | ColumnType::Id | ColumnType::Document | ColumnType::Field | ColumnType::Named { .. } => {
            return None;
        }
    })
}
