//! PostgreSQL's text format to canonical values and back: the one decoder of snapshot and stream.
//!
//! Text is what `client::options` makes the server print: ISO dates, UTC, shortest exact floats, hexadecimal bytea. What has
//! no canonical value travels as [`Value::Raw`]: the latest timestamps.

use crate::calendar;
use std::fmt::Write;
use sync_worker_core::row::RowBuilder;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};

/// How the text of a column is read: its column type, reduced to one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Bool,
    Int,
    Float32,
    Float64,
    Decimal,
    Text,
    Padded,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Bits,
    Raw,
}

impl From<&ColumnType> for Form {
    fn from(kind: &ColumnType) -> Self {
        match kind {
            ColumnType::Bool => Form::Bool,
            ColumnType::Int { .. } | ColumnType::Year => Form::Int,
            ColumnType::Float32 => Form::Float32,
            ColumnType::Float64 => Form::Float64,
            ColumnType::Decimal { .. } => Form::Decimal,
            // What `char(n)` pads says nothing: without it, keys of every engine are alike.
            ColumnType::Text { padded: true, .. } => Form::Padded,
            ColumnType::Text { padded: false, .. } | ColumnType::Enum | ColumnType::Set => Form::Text,
            ColumnType::Bytes { .. } => Form::Bytes,
            ColumnType::Date => Form::Date,
            ColumnType::Time { .. } => Form::Time,
            ColumnType::Timestamp { .. } => Form::Timestamp,
            ColumnType::TimestampTz { .. } => Form::TimestampTz,
            ColumnType::Uuid => Form::Uuid,
            ColumnType::Json { .. } => Form::Json,
            ColumnType::Bits { .. } => Form::Bits,
            ColumnType::Named { .. } | ColumnType::Id | ColumnType::Document | ColumnType::Field => Form::Raw,
        }
    }
}

/// Why a text is not a value of its column. Never holds the text.
pub type Problem = &'static str;

/// Decodes one value that is not NULL and appends it to a row. `scratch` lends room for bytes.
pub fn push(form: Form, text: &[u8], scratch: &mut Vec<u8>, row: &mut RowBuilder) -> Result<(), Problem> {
    let value = match form {
        Form::Int => int(text).ok_or("not an integer")?,
        Form::Text => Value::Text(utf8(text)?),
        Form::Padded => Value::Text(utf8(text)?.trim_end_matches(' ')),
        Form::Decimal => Value::Decimal(utf8(text)?),
        Form::Json => Value::Json(utf8(text)?),
        Form::Raw => Value::Raw(text),
        Form::Bool => match text {
            b"t" => Value::Bool(true),
            b"f" => Value::Bool(false),
            _ => return Err("not a boolean"),
        },
        Form::Float32 => Value::Float32(utf8(text)?.parse().map_err(|_| "not a number")?),
        Form::Float64 => Value::Float64(utf8(text)?.parse().map_err(|_| "not a number")?),
        Form::Bytes => {
            scratch.clear();
            unhex(text.strip_prefix(b"\\x").ok_or("not hexadecimal")?, scratch).ok_or("not hexadecimal")?;
            Value::Bytes(scratch)
        }
        Form::Date => Value::Date(calendar::date(text)?),
        Form::Time => Value::Time(calendar::time(text)?),
        Form::Timestamp => calendar::timestamp(text)?.map_or(Value::Raw(text), Value::Timestamp),
        Form::TimestampTz => calendar::timestamp_utc(text)?.map_or(Value::Raw(text), Value::TimestampTz),
        Form::Uuid => Value::Uuid(uuid(text).ok_or("not a UUID")?),
        Form::Bits => Value::Bits(utf8(text)?),
    };
    row.push(Cell::Present(value));
    Ok(())
}

fn utf8(text: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(text).map_err(|_| "not UTF-8 text; the database's encoding does not say what its bytes mean")
}

fn int(text: &[u8]) -> Option<Value<'static>> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    match negative {
        false => Some(Value::unsigned(number)),
        true => 0i64.checked_sub_unsigned(number).map(Value::Int),
    }
}

pub fn unhex(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    out.reserve(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
        if (high | low) & 0x80 != 0 {
            return None;
        }
        out.push(high << 4 | low);
    }
    Some(())
}

/// The value of each hexadecimal digit; the top bit marks all other bytes.
const HEX: [u8; 256] = {
    let mut table = [0x80; 256];
    let mut digit = 0u8;
    while digit < 16 {
        table[b"0123456789abcdef"[digit as usize] as usize] = digit;
        table[b"0123456789ABCDEF"[digit as usize] as usize] = digit;
        digit += 1;
    }
    table
};

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut at = 0;
    for (index, byte) in bytes.iter_mut().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        let (high, low) = (HEX[usize::from(text[at])], HEX[usize::from(text[at + 1])]);
        if (high | low) & 0x80 != 0 {
            return None;
        }
        *byte = high << 4 | low;
        at += 2;
    }
    Some(bytes)
}

/// Appends a value as the server reads it. NULL has no text: callers write it themselves.
pub fn print(value: Value<'_>, out: &mut String) -> Result<(), Problem> {
    // Writing into a string can't fail.
    let written = match value {
        Value::Null => return Err("NULL has no text"),
        Value::Bool(true) => out.write_str("t"),
        Value::Bool(false) => out.write_str("f"),
        Value::Int(number) => out.write_str(itoa::Buffer::new().format(number)),
        Value::UInt(number) => out.write_str(itoa::Buffer::new().format(number)),
        Value::Float32(number) if number.is_finite() => write!(out, "{number:e}"),
        Value::Float64(number) if number.is_finite() => write!(out, "{number:e}"),
        Value::Float32(number) => out.write_str(not_finite(f64::from(number))),
        Value::Float64(number) => out.write_str(not_finite(number)),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) | Value::Bits(text) => out.write_str(text),
        Value::Bytes(bytes) => {
            out.push_str("\\x");
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Date(days) => calendar::print_date(days, out),
        Value::Time(micros) => calendar::print_time(micros, out),
        Value::Timestamp(micros) => calendar::print_timestamp(micros, "", out),
        Value::TimestampTz(micros) => calendar::print_timestamp(micros, "+00", out),
        Value::Uuid(bytes) => bytes.iter().enumerate().try_for_each(|(index, byte)| {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(out, "{dash}{byte:02x}")
        }),
        Value::Raw(bytes) => out.write_str(utf8(bytes)?),
        Value::Document(_) | Value::Patch(_) => return Err("a document has no text here"),
    };
    written.map_err(|_| "no room")
}

fn not_finite(number: f64) -> &'static str {
    match (number.is_nan(), number.is_sign_negative()) {
        (true, _) => "NaN",
        (false, true) => "-Infinity",
        (false, false) => "Infinity",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(form: Form, text: &str) {
        let mut row = RowBuilder::default();
        push(form, text.as_bytes(), &mut Vec::new(), &mut row).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let row = row.finish();
        let Some(Ok(Cell::Present(value))) = row.cells().next() else { panic!("{text}: no value") };
        let mut printed = String::new();
        print(value, &mut printed).unwrap();
        let mut again = RowBuilder::default();
        push(form, printed.as_bytes(), &mut Vec::new(), &mut again).unwrap();
        assert_eq!(again.finish(), row, "{text} came back as {printed}");
    }

    #[test]
    fn edges_round_trip() {
        for (form, texts) in [
            (Form::Bool, &["t", "f"][..]),
            (Form::Int, &["0", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615"]),
            (Form::Float32, &["0", "-0", "1e-45", "3.4028235e+38", "NaN", "Infinity", "-Infinity"]),
            (Form::Float64, &["0.1", "5e-324", "1.7976931348623157e+308", "NaN", "-Infinity"]),
            (Form::Decimal, &["0", "-0.00", "123456789012345678901234567890.5", "NaN", "Infinity"]),
            (Form::Text, &["", "žluťoučký\nkůň\t\\"]),
            (Form::Bytes, &["\\x", "\\x00ff7F"]),
            (Form::Date, &["1970-01-01", "0001-01-01", "4713-01-01 BC", "5874897-12-31", "infinity", "-infinity"]),
            (Form::Time, &["00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.7"]),
            (
                Form::Timestamp,
                &["2024-02-29 12:00:00.5", "4714-11-24 00:00:00 BC", "294246-12-31 23:59:59", "infinity"],
            ),
            (Form::TimestampTz, &["1969-12-31 23:59:59.999999+00", "0044-03-15 00:00:00+00 BC", "-infinity"]),
            (Form::Uuid, &["00000000-0000-0000-0000-000000000000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]),
            (Form::Json, &["{\"a\": 1}"]),
            (Form::Bits, &["", "0101"]),
            (Form::Raw, &["P1Y2M", "{1,2}"]),
        ] {
            texts.iter().for_each(|text| round_trip(form, text));
        }
    }

    #[test]
    fn known_values_are_what_they_should_be() {
        let decode = |form, text: &str| {
            let mut row = RowBuilder::default();
            push(form, text.as_bytes(), &mut Vec::new(), &mut row).unwrap();
            row.finish()
        };
        let encode = |value| {
            let mut row = RowBuilder::default();
            row.push(Cell::Present(value));
            row.finish()
        };
        assert_eq!(decode(Form::Date, "2000-01-01"), encode(Value::Date(10_957)));
        assert_eq!(decode(Form::Date, "0001-12-31 BC"), encode(Value::Date(-719_163)));
        assert_eq!(decode(Form::Timestamp, "1970-01-02 00:00:00.000001"), encode(Value::Timestamp(86_400_000_001)));
        assert_eq!(decode(Form::TimestampTz, "1969-12-31 23:59:59+00"), encode(Value::TimestampTz(-1_000_000)));
        let (last, next) = ("294247-01-10 04:00:54.775806", "294247-01-10 04:00:54.775807");
        assert_eq!(decode(Form::Timestamp, last), encode(Value::Timestamp(i64::MAX - 1)));
        assert_eq!(decode(Form::Timestamp, next), encode(Value::Raw(next.as_bytes())));
        let latest = "294276-12-31 23:59:59.999999+00";
        assert_eq!(decode(Form::TimestampTz, latest), encode(Value::Raw(latest.as_bytes())));
    }

    #[test]
    fn nonsense_is_refused() {
        for (form, text) in [
            (Form::Int, "1a"),
            (Form::Int, "-"),
            (Form::Int, "18446744073709551616"),
            (Form::Bytes, "\\x1"),
            (Form::Bytes, "00"),
            (Form::Date, "2024-1-1"),
            (Form::Date, "2024-13-01"),
            (Form::Time, "25:00:00"),
            (Form::TimestampTz, "2024-01-01 00:00:00+01"),
            (Form::Timestamp, "294276-12-32 23:59:59"),
            (Form::Uuid, "f81d4fae7dec11d0a76500a0c91e6bf6"),
        ] {
            let refused = push(form, text.as_bytes(), &mut Vec::new(), &mut RowBuilder::default());
            assert!(refused.is_err(), "{text} was taken");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..48), form in 0usize..15) {
            let forms = [
                Form::Bool, Form::Int, Form::Float32, Form::Float64, Form::Decimal, Form::Text, Form::Bytes, Form::Date,
                Form::Time, Form::Timestamp, Form::TimestampTz, Form::Uuid, Form::Json, Form::Bits, Form::Raw,
            ];
            let taken = push(forms[form], &bytes, &mut Vec::new(), &mut RowBuilder::default());
            prop_assert!(taken.is_ok() || taken.is_err());
        }

        #[test]
        fn timestamps_round_trip(micros in -200_000_000_000_000_000i64..9_000_000_000_000_000_000) {
            let mut text = String::new();
            print(Value::Timestamp(micros), &mut text).unwrap();
            prop_assert_eq!(calendar::timestamp(text.as_bytes()), Ok(Some(micros)));
        }
    }
}
