//! Values of result rows in the binary protocol.

use super::binlog::{bits, double, float};
use super::temporal::Moment;
use super::{CUT, Format, Invalid, Scratch, decimal, take, take_slice};
use crate::wire::lenenc_bytes;
use mysql_async::Value as DriverValue;
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
        Format::Date => moment(bytes)?.date(scratch),
        Format::DateTime { .. } => moment(bytes)?.date_time(scratch),
        Format::Timestamp { .. } => moment(bytes)?.timestamp(scratch),
        Format::Time { .. } => time(bytes)?,
        Format::Decimal { .. }
        | Format::Bit { .. }
        | Format::Text { .. }
        | Format::Enum { .. }
        | Format::Set { .. }
        | Format::Bytes { .. }
        | Format::Json { .. }
        | Format::Opaque { .. } => of_bytes(format, lenenc_bytes(bytes).ok_or(CUT)?, scratch)?,
    })
}

/// The same for a value that the driver has taken out of its row.
pub fn of_driver<'a>(format: &Format, value: &'a DriverValue, scratch: &'a mut Scratch) -> Result<Value<'a>, Invalid> {
    Ok(match (format, value) {
        (_, DriverValue::NULL) => Value::Null,
        (Format::Int { .. } | Format::Year, DriverValue::Int(number)) => Value::Int(*number),
        (Format::Int { .. } | Format::Year, DriverValue::UInt(number)) => Value::unsigned(*number),
        (Format::Float { literal }, DriverValue::Float(number)) => float(*number, *literal, scratch),
        (Format::Double { literal }, DriverValue::Double(number)) => double(*number, *literal, scratch),
        (format, &DriverValue::Date(year, month, day, hour, minute, second, micros)) => {
            let moment = Moment {
                year: i32::from(year),
                month: u32::from(month),
                day: u32::from(day),
                hour: u32::from(hour),
                minute: u32::from(minute),
                second: u32::from(second),
                micros,
            };
            match format {
                Format::Date => moment.date(scratch),
                Format::DateTime { .. } => moment.date_time(scratch),
                Format::Timestamp { .. } => moment.timestamp(scratch),
                _ => return Err(OTHER),
            }
        }
        (Format::Time { .. }, &DriverValue::Time(negative, days, hours, minutes, seconds, micros)) => {
            duration(negative, days, [hours, minutes, seconds], micros)?
        }
        (format, DriverValue::Bytes(bytes)) => of_bytes(format, bytes, scratch)?,
        _ => return Err(OTHER),
    })
}

const OTHER: Invalid = Invalid("a value of another type than its column's");

/// Values that come as bytes with their length.
fn of_bytes<'a>(format: &Format, bytes: &'a [u8], scratch: &'a mut Scratch) -> Result<Value<'a>, Invalid> {
    Ok(match format {
        Format::Decimal { .. } => Value::Decimal(decimal::canonical(text(bytes)?, &mut scratch.text)),
        Format::Bit { length } => bits(bytes, *length, scratch),
        Format::Text { charset, .. } => charset.decode(bytes, scratch),
        Format::Enum { .. } | Format::Set { .. } => Value::Text(text(bytes)?),
        Format::Bytes { .. } => Value::Bytes(bytes),
        Format::Json { .. } => Value::Json(text(bytes)?),
        Format::Opaque { .. } => Value::Raw(bytes),
        _ => return Err(OTHER),
    })
}

fn text(bytes: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(bytes).map_err(|_| Invalid("text is not UTF-8"))
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
    let days = u32::from_le_bytes(take(&mut rest)?);
    let clock = take(&mut rest)?;
    let micros = if length >= 12 { u32::from_le_bytes(take(&mut rest)?) } else { 0 };
    duration(negative == 1, days, clock, micros)
}

fn duration(negative: bool, days: u32, clock: [u8; 3], micros: u32) -> Result<Value<'static>, Invalid> {
    if days > 1000 {
        return Err(Invalid("a time is too long"));
    }
    let [hours, minutes, seconds] = clock.map(i64::from);
    let seconds = ((i64::from(days) * 24 + hours) * 60 + minutes) * 60 + seconds;
    let micros = seconds * 1_000_000 + i64::from(micros);
    Ok(Value::Time(if negative { -micros } else { micros }))
}
