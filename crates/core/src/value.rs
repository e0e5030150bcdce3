//! Canonical values: one meaning per value whichever engine it came from, and one compact byte form.
//!
//! The byte form is self-describing (a tag, then the payload) and canonical: equal values have equal bytes, so that keys
//! and images compare as byte strings. It stands in bus records, keys and the retry queue; `tests/golden/` keeps old ones
//! readable. Integers are zigzag varints, lengths varints, the rest little-endian.

use bytes::{BufMut, BytesMut};

/// A value, borrowed from the bytes of its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    /// Every integer that fits; [`Value::UInt`] holds only what does not, so that equal numbers have equal bytes.
    Int(i64),
    UInt(u64),
    Float32(f32),
    Float64(f64),
    /// Plain decimal digits with sign and scale as the source printed them, or `NaN`, `Infinity`, `-Infinity`.
    Decimal(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since 1970-01-01; `i32::MIN` and `i32::MAX` are -infinity and infinity.
    Date(i32),
    /// Microseconds since midnight; MySQL's may be negative or above a day.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00 of no particular zone; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 00:00 UTC; the same infinities.
    TimestampTz(i64),
    Uuid([u8; 16]),
    /// JSON text as the source printed it.
    Json(&'a str),
    /// A bit string as digits `0` and `1`, most significant first.
    Bits(&'a str),
    /// The source's own exact form of a type that has no canonical value; only an engine of the same kind takes it.
    Raw(&'a [u8]),
    /// A document of MongoDB, byte for byte.
    Document(&'a [u8]),
    /// What changed in a document of MongoDB whose whole is not known: see [`crate::document::patch`].
    Patch(&'a [u8]),
}

/// A column of a row image. Unchanged is what the source did not send; it is never NULL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Present(Value<'a>),
    Unchanged,
}

#[derive(Debug, thiserror::Error)]
#[error("damaged row image: {0}")]
pub struct Damaged(pub &'static str);

pub(crate) const UNCHANGED: u8 = 0;
const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INT: u8 = 4;
const UINT: u8 = 5;
const FLOAT32: u8 = 6;
const FLOAT64: u8 = 7;
const DECIMAL: u8 = 8;
const TEXT: u8 = 9;
const BYTES: u8 = 10;
const DATE: u8 = 11;
const TIME: u8 = 12;
const TIMESTAMP: u8 = 13;
const TIMESTAMP_TZ: u8 = 14;
const UUID: u8 = 15;
const JSON: u8 = 16;
const BITS: u8 = 17;
const RAW: u8 = 18;
const DOCUMENT: u8 = 19;
pub(crate) const PATCH: u8 = 20;

/// Whether equal values under this tag have equal bytes.
pub(crate) fn is_plain(tag: u8) -> bool {
    !matches!(tag, FLOAT32 | FLOAT64 | DECIMAL | JSON)
}

impl<'a> Value<'a> {
    /// The canonical form of an unsigned integer.
    pub fn unsigned(value: u64) -> Self {
        match i64::try_from(value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::UInt(value),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Appends the byte form.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Value::Null => out.put_u8(NULL),
            Value::Bool(false) => out.put_u8(FALSE),
            Value::Bool(true) => out.put_u8(TRUE),
            Value::Int(value) => {
                out.put_u8(INT);
                #[allow(clippy::cast_sign_loss)] // zigzag keeps all bits
                put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
            }
            Value::UInt(value) => {
                out.put_u8(UINT);
                put_varint(out, value);
            }
            Value::Float32(value) => {
                out.put_u8(FLOAT32);
                out.put_u32_le(value.to_bits());
            }
            Value::Float64(value) => {
                out.put_u8(FLOAT64);
                out.put_u64_le(value.to_bits());
            }
            Value::Decimal(text) => put_bytes(out, DECIMAL, text.as_bytes()),
            Value::Text(text) => put_bytes(out, TEXT, text.as_bytes()),
            Value::Bytes(bytes) => put_bytes(out, BYTES, bytes),
            Value::Date(days) => {
                out.put_u8(DATE);
                out.put_i32_le(days);
            }
            Value::Time(micros) => {
                out.put_u8(TIME);
                out.put_i64_le(micros);
            }
            Value::Timestamp(micros) => {
                out.put_u8(TIMESTAMP);
                out.put_i64_le(micros);
            }
            Value::TimestampTz(micros) => {
                out.put_u8(TIMESTAMP_TZ);
                out.put_i64_le(micros);
            }
            Value::Uuid(bytes) => {
                out.put_u8(UUID);
                out.put_slice(&bytes);
            }
            Value::Json(text) => put_bytes(out, JSON, text.as_bytes()),
            Value::Bits(text) => put_bytes(out, BITS, text.as_bytes()),
            Value::Raw(bytes) => put_bytes(out, RAW, bytes),
            Value::Document(bytes) => put_bytes(out, DOCUMENT, bytes),
            Value::Patch(bytes) => put_bytes(out, PATCH, bytes),
        }
    }
}

impl<'a> Cell<'a> {
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Cell::Unchanged => out.put_u8(UNCHANGED),
            Cell::Present(value) => value.encode(out),
        }
    }

    /// Reads one cell from the front of `bytes` and moves past it.
    pub fn decode(bytes: &mut &'a [u8]) -> Result<Cell<'a>, Damaged> {
        let (&tag, rest) = bytes.split_first().ok_or(Damaged("ends early"))?;
        *bytes = rest;
        let value = match tag {
            UNCHANGED => return Ok(Cell::Unchanged),
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => {
                let raw = take_varint(bytes)?;
                #[allow(clippy::cast_possible_wrap)] // zigzag keeps all bits
                Value::Int((raw >> 1) as i64 ^ -((raw & 1) as i64))
            }
            UINT => Value::UInt(take_varint(bytes)?),
            FLOAT32 => Value::Float32(f32::from_bits(u32::from_le_bytes(take(bytes)?))),
            FLOAT64 => Value::Float64(f64::from_bits(u64::from_le_bytes(take(bytes)?))),
            DECIMAL => Value::Decimal(take_text(bytes)?),
            TEXT => Value::Text(take_text(bytes)?),
            BYTES => Value::Bytes(take_bytes(bytes)?),
            DATE => Value::Date(i32::from_le_bytes(take(bytes)?)),
            TIME => Value::Time(i64::from_le_bytes(take(bytes)?)),
            TIMESTAMP => Value::Timestamp(i64::from_le_bytes(take(bytes)?)),
            TIMESTAMP_TZ => Value::TimestampTz(i64::from_le_bytes(take(bytes)?)),
            UUID => Value::Uuid(take(bytes)?),
            JSON => Value::Json(take_text(bytes)?),
            BITS => Value::Bits(take_text(bytes)?),
            RAW => Value::Raw(take_bytes(bytes)?),
            DOCUMENT => Value::Document(take_bytes(bytes)?),
            PATCH => Value::Patch(take_bytes(bytes)?),
            _ => return Err(Damaged("unknown tag")),
        };
        Ok(Cell::Present(value))
    }

    /// Moves past one cell without reading its value.
    pub fn skip(bytes: &mut &'a [u8]) -> Result<(), Damaged> {
        let (&tag, rest) = bytes.split_first().ok_or(Damaged("ends early"))?;
        *bytes = rest;
        let length = match tag {
            UNCHANGED | NULL | FALSE | TRUE => 0,
            INT | UINT => {
                take_varint(bytes)?;
                0
            }
            FLOAT32 | DATE => 4,
            FLOAT64 | TIME | TIMESTAMP | TIMESTAMP_TZ => 8,
            UUID => 16,
            DECIMAL | TEXT | BYTES | JSON | BITS | RAW | DOCUMENT | PATCH => take_length(bytes)?,
            _ => return Err(Damaged("unknown tag")),
        };
        *bytes = bytes.get(length..).ok_or(Damaged("ends early"))?;
        Ok(())
    }
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads an unsigned LEB128 number from the front of `bytes` and moves past it.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    // Most are lengths and small numbers.
    if let [byte @ ..0x80, rest @ ..] = bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(Damaged("number too large"));
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(Damaged("number ends early"))
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Damaged("ends early"))?;
    *bytes = rest;
    Ok(*head)
}

fn take_length(bytes: &mut &[u8]) -> Result<usize, Damaged> {
    usize::try_from(take_varint(bytes)?).map_err(|_| Damaged("length too large"))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = take_length(bytes)?;
    let (head, rest) = bytes.split_at_checked(length).ok_or(Damaged("ends early"))?;
    *bytes = rest;
    Ok(head)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    std::str::from_utf8(take_bytes(bytes)?).map_err(|_| Damaged("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_round_trips_and_can_be_skipped() {
        let cells = [
            Cell::Unchanged,
            Cell::Present(Value::Null),
            Cell::Present(Value::Bool(false)),
            Cell::Present(Value::Bool(true)),
            Cell::Present(Value::Int(0)),
            Cell::Present(Value::Int(-1)),
            Cell::Present(Value::Int(i64::MIN)),
            Cell::Present(Value::Int(i64::MAX)),
            Cell::Present(Value::UInt(u64::MAX)),
            Cell::Present(Value::Float32(-0.0)),
            Cell::Present(Value::Float64(f64::MIN_POSITIVE)),
            Cell::Present(Value::Decimal("-12.340")),
            Cell::Present(Value::Text("žluťoučký")),
            Cell::Present(Value::Bytes(&[0, 255])),
            Cell::Present(Value::Date(i32::MAX)),
            Cell::Present(Value::Time(-1)),
            Cell::Present(Value::Timestamp(i64::MIN)),
            Cell::Present(Value::TimestampTz(1)),
            Cell::Present(Value::Uuid([7; 16])),
            Cell::Present(Value::Json("{}")),
            Cell::Present(Value::Bits("010")),
            Cell::Present(Value::Raw(b"10.0.0.1")),
            Cell::Present(Value::Document(&[5, 0, 0, 0, 0])),
            Cell::Present(Value::Patch(&[])),
        ];
        let mut out = BytesMut::new();
        cells.iter().for_each(|cell| cell.encode(&mut out));
        let (mut reader, mut skipper) = (&out[..], &out[..]);
        for cell in cells {
            assert_eq!(Cell::decode(&mut reader).unwrap(), cell);
            Cell::skip(&mut skipper).unwrap();
            assert_eq!(reader.len(), skipper.len());
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn a_cut_value_is_damage_not_a_panic() {
        let mut out = BytesMut::new();
        Value::Text("hello").encode(&mut out);
        for length in 0..out.len() {
            assert!(Cell::decode(&mut &out[..length]).is_err());
            assert!(Cell::skip(&mut &out[..length]).is_err());
        }
    }
}
