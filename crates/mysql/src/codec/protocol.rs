//! Values of result rows in the binary protocol.

use super::binlog::{bits, double, float};
use super::temporal::Moment;
use super::{CUT, Format, Invalid, Scratch, decimal, take, take_slice};
use crate::wire::lenenc_bytes;
use sync_worker_core::value::Value;

/// Reads one value that is not NULL from the front of `bytes` and moves past it.
pub fn decode<'a, 'b: 'a>(
    format: &Format,
    bytes: &mut &'b [u8],
    scratch: &'a mut Scratch,
) -> Result<Value<'a>, Invalid> {
    Ok(match format {
        Format::Int { width: 1, unsigned: false } => Value::Int(i64::from(i8::from_le_bytes(take(bytes)?))),
        Format::Int { width: 1, unsigned: true } => Value::Int(i64::from(u8::from_le_bytes(take(bytes)?))),
        Format::Int { width: 2, unsigned: false } => Value::Int(i64::from(i16::from_le_bytes(take(bytes)?))),
        Format::Int { width: 2, unsigned: true } | Format::Year => {
            Value::Int(i64::from(u16::from_le_bytes(take(bytes)?)))
        }
        Format::Int { width: 8, unsigned: false } => Value::Int(i64::from_le_bytes(take(bytes)?)),
        Format::Int { width: 8, unsigned: true } => Value::unsigned(u64::from_le_bytes(take(bytes)?)),
        // three bytes come as four
        Format::Int { unsigned: false, .. } => Value::Int(i64::from(i32::from_le_bytes(take(bytes)?))),
        Format::Int { unsigned: true, .. } => Value::Int(i64::from(u32::from_le_bytes(take(bytes)?))),
        Format::Float { literal } => float(f32::from_le_bytes(take(bytes)?), *literal, scratch),
        Format::Double { literal } => double(f64::from_le_bytes(take(bytes)?), *literal, scratch),
        Format::Decimal { .. } => {
            let printed = text(bytes)?;
            Value::Decimal(decimal::canonical(printed, &mut scratch.text))
        }
        Format::Date => moment(bytes)?.date(scratch),
        Format::DateTime { .. } => moment(bytes)?.date_time(scratch),
        Format::Timestamp { .. } => moment(bytes)?.timestamp(scratch),
        Format::Time { .. } => time(bytes)?,
        Format::Bit { length } => bits(lenenc_bytes(bytes).ok_or(CUT)?, *length, scratch),
        Format::Text { charset, .. } => charset.decode(lenenc_bytes(bytes).ok_or(CUT)?, scratch)?,
        Format::Enum { .. } | Format::Set { .. } => Value::Text(text(bytes)?),
        Format::Bytes { .. } => Value::Bytes(lenenc_bytes(bytes).ok_or(CUT)?),
        Format::Json { .. } => Value::Json(text(bytes)?),
        Format::Opaque { .. } => Value::Raw(lenenc_bytes(bytes).ok_or(CUT)?),
    })
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Invalid> {
    std::str::from_utf8(lenenc_bytes(bytes).ok_or(CUT)?).map_err(|_| Invalid("text is not UTF-8"))
}

/// A date or a point in time: 0, 4, 7 or 11 bytes, what is left out being zero.
fn moment(bytes: &mut &[u8]) -> Result<Moment, Invalid> {
    let [length] = take(bytes)?;
    let mut rest = take_slice(bytes, usize::from(length))?;
    let mut moment = Moment::default();
    if length >= 4 {
        moment.year = i32::from(u16::from_le_bytes(take(&mut rest)?));
        moment.month = u32::from(take::<1>(&mut rest)?[0]);
        moment.day = u32::from(take::<1>(&mut rest)?[0]);
    }
    if length >= 7 {
        let [hour, minute, second] = take(&mut rest)?;
        (moment.hour, moment.minute, moment.second) = (u32::from(hour), u32::from(minute), u32::from(second));
    }
    if length >= 11 {
        moment.micros = u32::from_le_bytes(take(&mut rest)?);
    }
    Ok(moment)
}

fn time(bytes: &mut &[u8]) -> Result<Value<'static>, Invalid> {
    let [length] = take(bytes)?;
    let mut rest = take_slice(bytes, usize::from(length))?;
    if length < 8 {
        return Ok(Value::Time(0));
    }
    let [negative] = take(&mut rest)?;
    let days = i64::from(u32::from_le_bytes(take(&mut rest)?));
    if days > 1000 {
        return Err(Invalid("a time is too long"));
    }
    let [hours, minutes, seconds] = take(&mut rest)?;
    let micros = if length >= 12 { i64::from(u32::from_le_bytes(take(&mut rest)?)) } else { 0 };
    let seconds = ((days * 24 + i64::from(hours)) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    let micros = seconds * 1_000_000 + micros;
    Ok(Value::Time(if negative == 1 { -micros } else { micros }))
}
