//! Values of keys as literals of a statement that reads.

use crate::codec::temporal::civil_from_days;
use std::fmt::Write;
use sync_worker_core::value::Value;

const DAY: i64 = 86_400_000_000;

/// Appends a literal that compares with its column as the value itself, whatever the session's settings are. None for
/// what no key holds.
pub fn append(value: Value<'_>, out: &mut String) -> Option<()> {
    match value {
        Value::Null => out.push_str("NULL"),
        Value::Bool(value) => out.push(if value { '1' } else { '0' }),
        Value::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
        Value::UInt(value) => out.push_str(itoa::Buffer::new().format(value)),
        // A float column is compared as a double.
        Value::Float32(value) => write!(out, "{:e}", f64::from(value)).ok()?,
        Value::Float64(value) => write!(out, "{value:e}").ok()?,
        Value::Decimal(text) => out.push_str(text),
        Value::Text(text) => {
            out.push_str("_utf8mb4 ");
            hex(text.as_bytes(), out);
        }
        Value::Bytes(bytes) => hex(bytes, out),
        Value::Date(days) => {
            let (year, month, day) = civil_from_days(days);
            write!(out, "DATE'{year:04}-{month:02}-{day:02}'").ok()?;
        }
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            let (year, month, day) = civil_from_days(i32::try_from(micros.div_euclid(DAY)).ok()?);
            write!(out, "TIMESTAMP'{year:04}-{month:02}-{day:02} ").ok()?;
            clock(micros.rem_euclid(DAY).unsigned_abs(), out)?;
            out.push('\'');
        }
        Value::Time(micros) => {
            out.push_str(if micros < 0 { "TIME'-" } else { "TIME'" });
            clock(micros.unsigned_abs(), out)?;
            out.push('\'');
        }
        Value::Bits(digits) => write!(out, "b'{digits}'").ok()?,
        // MySQL's own text of a date that is no day.
        Value::Raw(text) => {
            let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii() && !text.contains(['\'', '\\']))?;
            write!(out, "'{text}'").ok()?;
        }
        Value::Uuid(_) | Value::Json(_) | Value::Document(_) | Value::Patch(_) => return None,
    }
    Some(())
}

fn clock(micros: u64, out: &mut String) -> Option<()> {
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(out, "{hours:02}:{minutes:02}:{seconds:02}.{:06}", micros % 1_000_000).ok()
}

fn hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(2 * bytes.len() + 3);
    out.push_str("X'");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_those_of_mysql() {
        for (value, wanted) in [
            (Value::Int(-1), "-1"),
            (Value::Text("a'"), "_utf8mb4 X'6127'"),
            (Value::Bytes(&[0, 255]), "X'00FF'"),
            (Value::Date(19_782), "DATE'2024-02-29'"),
            (Value::Timestamp(-1), "TIMESTAMP'1969-12-31 23:59:59.999999'"),
            (Value::Time(-3_020_399_000_000), "TIME'-838:59:59.000000'"),
            (Value::Float32(0.1), "1.0000000149011612e-1"),
            (Value::Raw(b"0000-00-00"), "'0000-00-00'"),
        ] {
            let mut out = String::new();
            append(value, &mut out).unwrap();
            assert_eq!(out, wanted);
        }
    }
}
