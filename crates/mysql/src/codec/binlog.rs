//! Values of row images in the binlog.

use super::{CUT, Format, Invalid, Scratch, big, decimal, json, little, take, take_slice, temporal};
use std::fmt::Write;
use sync_worker_core::value::Value;
use temporal::Moment;

/// Reads one value that is not NULL from the front of `bytes` and moves past it.
pub fn decode<'a, 'b: 'a>(
    format: &Format,
    bytes: &mut &'b [u8],
    scratch: &'a mut Scratch,
) -> Result<Value<'a>, Invalid> {
    Ok(match format {
        Format::Int { width, unsigned } => int(*width, *unsigned, bytes)?,
        Format::Float { literal } => float(f32::from_le_bytes(take(bytes)?), *literal, scratch),
        Format::Double { literal } => double(f64::from_le_bytes(take(bytes)?), *literal, scratch),
        Format::Decimal { precision, scale } => {
            scratch.text.clear();
            decimal::unpack(*precision, *scale, bytes, &mut scratch.text)?;
            Value::Decimal(&scratch.text)
        }
        Format::Year => match take::<1>(bytes)?[0] {
            0 => Value::Int(0),
            year => Value::Int(1900 + i64::from(year)),
        },
        Format::Date => {
            let [low, middle, high] = take(bytes)?;
            Moment::unpack_date(u32::from_le_bytes([low, middle, high, 0])).date(scratch)
        }
        Format::Time { digits } => temporal::unpack_time(time(*digits, bytes)?),
        Format::DateTime { digits } => {
            // The sign bit is set in every value that there is.
            let packed = big(&take::<5>(bytes)?) & 0x7F_FFFF_FFFF;
            let micros = temporal::fraction(*digits, bytes)?;
            Moment::unpack(packed, micros).date_time(scratch)
        }
        Format::Timestamp { digits } => {
            let seconds = u32::from_be_bytes(take(bytes)?);
            let micros = temporal::fraction(*digits, bytes)?;
            temporal::from_epoch(seconds, micros, scratch)
        }
        Format::Bit { length } => {
            let packed = take_slice(bytes, usize::try_from(length.div_ceil(8)).unwrap_or(0))?;
            bits(packed, *length, scratch)
        }
        Format::Text { prefix, charset } => charset.decode(prefixed(*prefix, bytes)?, scratch),
        Format::Bytes { prefix, padded } => {
            let stored = prefixed(*prefix, bytes)?;
            if stored.len() >= *padded {
                return Ok(Value::Bytes(stored));
            }
            // `binary(n)`: the binlog leaves its trailing zeros out.
            scratch.bytes.clear();
            scratch.bytes.extend_from_slice(stored);
            scratch.bytes.resize(*padded, 0);
            Value::Bytes(&scratch.bytes)
        }
        Format::Enum { width, labels } => {
            let index = usize::try_from(little(take_slice(bytes, usize::from(*width))?)).unwrap_or(usize::MAX);
            match index.checked_sub(1) {
                // what an invalid label became in a server that is not strict
                None => Value::Text(""),
                Some(at) => {
                    scratch.text.clear();
                    scratch.text.push_str(labels.get(at).ok_or(Invalid("an enum label is unknown"))?);
                    Value::Text(&scratch.text)
                }
            }
        }
        Format::Set { width, labels } => {
            let mask = little(take_slice(bytes, usize::from(*width).min(8))?);
            scratch.text.clear();
            if labels.len() < 64 && mask >> labels.len() != 0 {
                return Err(Invalid("a set label is unknown"));
            }
            let members = labels.iter().take(64).enumerate().filter(|(at, _)| mask >> at & 1 == 1);
            for (nth, (_, label)) in members.enumerate() {
                if nth > 0 {
                    scratch.text.push(',');
                }
                scratch.text.push_str(label);
            }
            Value::Text(&scratch.text)
        }
        Format::Json { prefix } => {
            let stored = prefixed(*prefix, bytes)?;
            scratch.text.clear();
            json::print(stored, &mut scratch.text)?;
            Value::Json(&scratch.text)
        }
        Format::Opaque { prefix } => Value::Raw(prefixed(*prefix, bytes)?),
    })
}

fn int(width: u8, unsigned: bool, bytes: &mut &[u8]) -> Result<Value<'static>, Invalid> {
    Ok(match (width, unsigned) {
        (1, false) => Value::Int(i64::from(i8::from_le_bytes(take(bytes)?))),
        (1, true) => Value::Int(i64::from(u8::from_le_bytes(take(bytes)?))),
        (2, false) => Value::Int(i64::from(i16::from_le_bytes(take(bytes)?))),
        (2, true) => Value::Int(i64::from(u16::from_le_bytes(take(bytes)?))),
        (3, unsigned) => {
            let [low, middle, high] = take(bytes)?;
            let fill = if !unsigned && high & 0x80 != 0 { 0xFF } else { 0 };
            Value::Int(i64::from(i32::from_le_bytes([low, middle, high, fill])))
        }
        (4, false) => Value::Int(i64::from(i32::from_le_bytes(take(bytes)?))),
        (4, true) => Value::Int(i64::from(u32::from_le_bytes(take(bytes)?))),
        (8, false) => Value::Int(i64::from_le_bytes(take(bytes)?)),
        (8, true) => Value::unsigned(u64::from_le_bytes(take(bytes)?)),
        _ => return Err(Invalid("an integer of impossible width")),
    })
}

pub(super) fn float(value: f32, literal: bool, scratch: &mut Scratch) -> Value<'_> {
    if !literal {
        return Value::Float32(value);
    }
    scratch.text.clear();
    // Writing to a String can't fail.
    write!(scratch.text, "{value}").unwrap_or_default();
    Value::Raw(scratch.text.as_bytes())
}

pub(super) fn double(value: f64, literal: bool, scratch: &mut Scratch) -> Value<'_> {
    if !literal {
        return Value::Float64(value);
    }
    scratch.text.clear();
    write!(scratch.text, "{value}").unwrap_or_default();
    Value::Raw(scratch.text.as_bytes())
}

pub(super) fn bits<'a>(packed: &[u8], length: u32, scratch: &'a mut Scratch) -> Value<'a> {
    let value = big(packed);
    scratch.text.clear();
    for at in (0..length.min(64)).rev() {
        scratch.text.push(if value >> at & 1 == 1 { '1' } else { '0' });
    }
    Value::Bits(&scratch.text)
}

/// The packed form of a TIME as one signed number; the fraction of a negative one counts up from the second below.
fn time(digits: u8, bytes: &mut &[u8]) -> Result<i64, Invalid> {
    let signed = |value: u64, zero: i64| i64::try_from(value).map(|value| value - zero).map_err(|_| CUT);
    match digits {
        0 => Ok(signed(big(&take::<3>(bytes)?), 0x80_0000)? << 24),
        1..=4 => {
            let mut whole = signed(big(&take::<3>(bytes)?), 0x80_0000)?;
            let (length, unit) = if digits < 3 { (1, 10_000) } else { (2, 100) };
            let mut part = signed(big(take_slice(bytes, length)?), 0)?;
            if whole < 0 && part > 0 {
                whole += 1;
                part -= 1 << (8 * length);
            }
            Ok((whole << 24) + part * unit)
        }
        _ => signed(big(&take::<6>(bytes)?), 0x8000_0000_0000),
    }
}

/// Bytes with a length of `prefix` bytes before them.
pub fn prefixed<'a>(prefix: u8, bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    let length = little(take_slice(bytes, usize::from(prefix))?);
    take_slice(bytes, usize::try_from(length).map_err(|_| CUT)?)
}
