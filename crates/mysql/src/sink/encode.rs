//! The encoder half of the value codec: canonical values as SQL literals.
//!
//! A literal means the value exactly in a strict session of ours, whatever the row's other values are; what the column
//! can't hold is refused here with a reason, before anything is sent (invariant 7). What only the server can know (a
//! text outside the column's character set, a number out of range) the strict session refuses.

use crate::codec::temporal::civil_from_days;
use crate::sink::target::{RawForm, TargetColumn};
use std::io::Write;
use sync_worker_core::convert::Refusal;
use sync_worker_core::json;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::Value;

const DAY_MICROS: i64 = 86_400_000_000;
const SECOND_MICROS: i64 = 1_000_000;

/// 838:59:59, the longest TIME.
const LONGEST_TIME: i64 = (838 * 3600 + 59 * 60 + 59) * SECOND_MICROS;

/// 9999-12-31.
const LAST_DAY: i32 = 2_932_896;

/// 1970-01-01 00:00:01 to 2038-01-19 03:14:07.999999, the range of a TIMESTAMP.
const FIRST_TIMESTAMP: i64 = SECOND_MICROS;
const LAST_TIMESTAMP: i64 = 2_147_483_648 * SECOND_MICROS - 1;

/// Above this, bytes are sent as they are rather than in hexadecimal digits.
const HEX_BYTES: usize = 256;

/// Appends a value, already converted to the column's type. `typed`: the literal must have the column's type by itself,
/// for it will be compared as the column of a derived table.
pub fn literal(out: &mut Vec<u8>, value: Value<'_>, column: &TargetColumn, typed: bool) -> Result<(), Refusal> {
    match value {
        Value::Null => out.extend_from_slice(b"NULL"),
        Value::Bool(value) => out.push(if value { b'1' } else { b'0' }),
        Value::Int(value) => {
            if column.kind == ColumnType::Year && value != 0 && !(1901..=2155).contains(&value) {
                return refuse("a YEAR holds 0 and 1901 to 2155");
            }
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        Value::UInt(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        // The exact value as a double: what a FLOAT column compares and stores without rounding.
        Value::Float32(value) => float(out, f64::from(value))?,
        Value::Float64(value) => float(out, value)?,
        Value::Decimal(digits) => decimal(out, digits, &column.kind)?,
        Value::Text(text) => {
            if let Some(labels) = &column.labels {
                labels.check(text)?;
            }
            quoted(out, text.as_bytes());
        }
        Value::Bytes(bytes) => binary(out, bytes),
        Value::Date(days) => {
            let day = civil(i64::from(days), column)?;
            date(out, if typed { "DATE'" } else { "'" }, day);
            out.push(b'\'');
        }
        Value::Time(micros) => time(out, micros, typed)?,
        Value::Timestamp(micros) => moment(out, micros, column, typed)?,
        Value::TimestampTz(micros) => {
            if !(FIRST_TIMESTAMP..=LAST_TIMESTAMP).contains(&micros) && column.data_type == "timestamp" {
                return refuse("a TIMESTAMP holds 1970-01-01 00:00:01 to 2038-01-19 03:14:07.999999 UTC");
            }
            moment(out, micros, column, typed)?;
        }
        Value::Uuid(_) => return refuse("a uuid is written as text or bytes, which this column is not"),
        Value::Json(text) => {
            check_json(text)?;
            quoted(out, text.as_bytes());
        }
        Value::Bits(digits) => {
            let number = u64::from_str_radix(digits, 2).map_err(|_| Refusal("a BIT holds 1 to 64 bits".into()))?;
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        Value::Raw(_) if matches!(column.kind, ColumnType::Text { .. } | ColumnType::Json { .. }) => {
            return refuse("a text with bytes that are no character");
        }
        Value::Raw(bytes) => match column.raw {
            RawForm::Text => quoted(out, bytes),
            RawForm::Binary => binary(out, bytes),
        },
        Value::Document(_) | Value::Patch(_) => return Err(Refusal("a document where a column's value is due".into())),
    }
    Ok(())
}

fn refuse<T>(reason: &str) -> Result<T, Refusal> {
    Err(Refusal(reason.to_owned()))
}

/// A string literal in a session without NO_BACKSLASH_ESCAPES, which ours are.
pub fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    let mut from = 0;
    for at in memchr::memchr2_iter(b'\'', b'\\', bytes) {
        out.extend_from_slice(&bytes[from..at]);
        out.push(b'\\');
        from = at;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'\'');
}

pub fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > HEX_BYTES {
        out.extend_from_slice(b"_binary");
        quoted(out, bytes);
        return;
    }
    out.extend_from_slice(b"x'");
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
    out.push(b'\'');
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The shortest digits that read back as the same number. The exponent makes it a DOUBLE literal.
fn float(out: &mut Vec<u8>, value: f64) -> Result<(), Refusal> {
    if !value.is_finite() {
        return refuse("MySQL has no NaN and no infinity");
    }
    // A Vec takes everything.
    let _written = write!(out, "{value:e}");
    Ok(())
}

fn decimal(out: &mut Vec<u8>, digits: &str, kind: &ColumnType) -> Result<(), Refusal> {
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return refuse("MySQL has no NaN and no infinity");
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if let ColumnType::Decimal { precision: Some(precision), scale } = kind {
        let scale = usize::try_from(*scale).unwrap_or(0);
        if fraction.len() > scale {
            return Err(Refusal(format!("has more than {scale} digits after the point")));
        }
        if whole.len() > usize::from(*precision).saturating_sub(scale) {
            return Err(Refusal(format!("has more than {} digits before the point", usize::from(*precision) - scale)));
        }
    }
    if digits.starts_with('-') {
        out.push(b'-');
    }
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
    Ok(())
}

/// Two digits.
fn two(out: &mut Vec<u8>, number: i64) {
    out.push(b'0' + u8::try_from(number / 10 % 10).unwrap_or(0));
    out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
}

/// The day in the calendar, if MySQL takes it. Days before the year 1000 are outside of what it documents, but what it
/// holds itself it may take back.
fn civil(days: i64, column: &TargetColumn) -> Result<(i32, u32, u32), Refusal> {
    match i32::try_from(days) {
        Ok(days) if (column.first_day..=LAST_DAY).contains(&days) => Ok(civil_from_days(days)),
        Ok(_) | Err(_) => refuse("a date in MySQL lies between 1000-01-01 and 9999-12-31"),
    }
}

fn date(out: &mut Vec<u8>, opening: &str, (year, month, day): (i32, u32, u32)) {
    out.extend_from_slice(opening.as_bytes());
    let year = i64::from(year);
    two(out, year / 100);
    two(out, year % 100);
    out.push(b'-');
    two(out, i64::from(month));
    out.push(b'-');
    two(out, i64::from(day));
}

fn clock(out: &mut Vec<u8>, hours: i64, micros: i64) {
    if hours > 99 {
        out.push(b'0' + u8::try_from(hours / 100 % 10).unwrap_or(0));
    }
    two(out, hours % 100);
    let seconds = micros / SECOND_MICROS;
    out.push(b':');
    two(out, seconds / 60 % 60);
    out.push(b':');
    two(out, seconds % 60);
    let fraction = micros % SECOND_MICROS;
    if fraction != 0 {
        out.push(b'.');
        two(out, fraction / 10_000);
        two(out, fraction / 100 % 100);
        two(out, fraction % 100);
    }
}

fn time(out: &mut Vec<u8>, micros: i64, typed: bool) -> Result<(), Refusal> {
    let size = micros.saturating_abs();
    if size > LONGEST_TIME {
        return refuse("a TIME in MySQL lies between -838:59:59 and 838:59:59");
    }
    out.extend_from_slice(if typed { b"TIME'" } else { b"'" });
    if micros < 0 {
        out.push(b'-');
    }
    clock(out, size / (3600 * SECOND_MICROS), size);
    out.push(b'\'');
    Ok(())
}

fn moment(out: &mut Vec<u8>, micros: i64, column: &TargetColumn, typed: bool) -> Result<(), Refusal> {
    if micros == i64::MIN || micros == i64::MAX {
        return refuse("MySQL has no infinite date");
    }
    let day = civil(micros.div_euclid(DAY_MICROS), column)?;
    let micros = micros.rem_euclid(DAY_MICROS);
    date(out, if typed { "TIMESTAMP'" } else { "'" }, day);
    out.push(b' ');
    clock(out, micros / (3600 * SECOND_MICROS), micros);
    out.push(b'\'');
    Ok(())
}

/// MySQL keeps a number in JSON as a 64-bit integer or a double: one that is neither would come back as another.
fn check_json(text: &str) -> Result<(), Refusal> {
    match json::survey(text) {
        None => refuse("this is not JSON"),
        Some(survey) if survey.beyond_double => refuse("MySQL would round a number in this JSON"),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::target::Labels;

    fn column(kind: ColumnType, data_type: &str) -> TargetColumn {
        TargetColumn::for_tests(kind, data_type)
    }

    fn shown(value: Value<'_>, column: &TargetColumn) -> Result<String, Refusal> {
        let mut out = Vec::new();
        literal(&mut out, value, column, false)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn literals_mean_their_values() {
        let any = column(ColumnType::Float64, "double");
        for (value, text) in [
            (Value::Null, "NULL"),
            (Value::Bool(true), "1"),
            (Value::Int(i64::MIN), "-9223372036854775808"),
            (Value::UInt(u64::MAX), "18446744073709551615"),
            (Value::Float32(0.1), "1.0000000149011612e-1"),
            (Value::Float64(1e300), "1e300"),
            (Value::Float64(-0.0), "-0e0"),
            (Value::Decimal("-007.500"), "-7.5"),
            (Value::Decimal("0.00"), "0"),
            (Value::Text("it's \\ \0"), "'it\\'s \\\\ \0'"),
            (Value::Bytes(&[0, 0xAB]), "x'00ab'"),
            (Value::Date(0), "'1970-01-01'"),
            (Value::Date(-1), "'1969-12-31'"),
            (Value::Date(11_016), "'2000-02-29'"),
            (Value::Date(2_932_896), "'9999-12-31'"),
            (Value::Date(-354_285), "'1000-01-01'"),
            (Value::Time(-1), "'-00:00:00.000001'"),
            (Value::Time(LONGEST_TIME), "'838:59:59'"),
            (Value::Timestamp(-1), "'1969-12-31 23:59:59.999999'"),
            (Value::TimestampTz(FIRST_TIMESTAMP), "'1970-01-01 00:00:01'"),
            (Value::Json("{\"a\": 1.5}"), "'{\"a\": 1.5}'"),
            (Value::Bits("101"), "5"),
            (Value::Raw(b"0000-00-00"), "'0000-00-00'"),
        ] {
            assert_eq!(shown(value, &any).unwrap(), text);
        }
    }

    #[test]
    fn what_mysql_can_not_hold_is_refused() {
        let timestamp = column(ColumnType::TimestampTz { precision: 6 }, "timestamp");
        let decimal = column(ColumnType::Decimal { precision: Some(4), scale: 2 }, "decimal");
        let mut label = column(ColumnType::Enum, "enum");
        label.labels = Some(Labels::parse("enum('a','it''s','1')", false));
        for (value, column) in [
            (Value::Float64(f64::NAN), &decimal),
            (Value::Float32(f32::INFINITY), &decimal),
            (Value::Decimal("NaN"), &decimal),
            (Value::Decimal("-Infinity"), &decimal),
            (Value::Decimal("1.234"), &decimal),
            (Value::Decimal("100"), &decimal),
            (Value::Date(i32::MAX), &decimal),
            (Value::Date(-354_286), &decimal),
            (Value::Timestamp(i64::MAX), &decimal),
            (Value::Timestamp(i64::MIN), &decimal),
            (Value::Time(LONGEST_TIME + 1), &decimal),
            (Value::Time(i64::MIN), &decimal),
            (Value::TimestampTz(0), &timestamp),
            (Value::TimestampTz(LAST_TIMESTAMP + 1), &timestamp),
            (Value::Json("[123456789012345678901]"), &decimal),
            (Value::Json("[1e400]"), &decimal),
            (Value::Json("[0.12345678901234567890123]"), &decimal),
            (Value::Text("b"), &label),
            (Value::Text("2"), &label),
        ] {
            assert!(shown(value, column).is_err(), "{value:?} was taken");
        }
        for text in ["1", "a", "it's"] {
            shown(Value::Text(text), &label).unwrap();
        }
        let json = "[1.10, -0, 1e2, 0.1, 18446744073709551615, \"12345678901234567890123\", \"a\\\"1e999\"]";
        shown(Value::Json(json), &decimal).unwrap();
    }
}
