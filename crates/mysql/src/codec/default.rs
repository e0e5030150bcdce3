//! Values that a column takes when an insert does not name it. Minimal row images leave them out.

use super::temporal::Moment;
use super::{Scratch, decimal};
use crate::catalog::{ColumnDefault, TableColumn};
use bytes::BytesMut;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};

/// The default as the bytes of a cell. None where it can't be known exactly from the catalog's text.
pub fn cell(column: &TableColumn) -> Option<Vec<u8>> {
    let mut scratch = Scratch::default();
    let text = match &column.default {
        ColumnDefault::None if column.column.nullable => return encode(Value::Null),
        ColumnDefault::None | ColumnDefault::Expression => return None,
        ColumnDefault::Literal(text) => text.as_str(),
    };
    let value = match &column.column.kind {
        ColumnType::Int { unsigned: true, .. } => Value::unsigned(text.parse().ok()?),
        ColumnType::Int { unsigned: false, .. } | ColumnType::Year => Value::Int(text.parse().ok()?),
        ColumnType::Float64 => Value::Float64(text.parse().ok()?),
        ColumnType::Decimal { .. } => Value::Decimal(decimal::canonical(text, &mut scratch.text)),
        ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Set => Value::Text(text),
        ColumnType::Date => moment(text)?.date(&mut scratch),
        ColumnType::Timestamp { .. } => moment(text)?.date_time(&mut scratch),
        ColumnType::Bits { length, .. } => {
            let digits = text.strip_prefix("b'")?.strip_suffix('\'')?;
            let missing = usize::try_from(*length).ok()?.checked_sub(digits.len())?;
            scratch.text.push_str(&"0".repeat(missing));
            scratch.text.push_str(digits);
            Value::Bits(&scratch.text)
        }
        // Rounded, in the time zone of whoever looks, or with unprintable bytes.
        ColumnType::Float32
        | ColumnType::TimestampTz { .. }
        | ColumnType::Time { .. }
        | ColumnType::Bytes { .. }
        | ColumnType::Bool
        | ColumnType::Uuid
        | ColumnType::Json { .. }
        | ColumnType::Id
        | ColumnType::Document
        | ColumnType::Field
        | ColumnType::Named { .. } => return None,
    };
    encode(value)
}

fn encode(value: Value<'_>) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    Cell::Present(value).encode(&mut out);
    Some(out.to_vec())
}

/// `2024-01-31` or `2024-01-31 12:34:56.789`
fn moment(text: &str) -> Option<Moment> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut date = date.split('-');
    let mut time = time.split(':');
    let micros = format!("{fraction:0<6}");
    Some(Moment {
        year: date.next()?.parse().ok()?,
        month: date.next()?.parse().ok()?,
        day: date.next()?.parse().ok()?,
        hour: time.next()?.parse().ok()?,
        minute: time.next()?.parse().ok()?,
        second: time.next()?.parse().ok()?,
        micros: micros.parse().ok().filter(|_| micros.len() == 6)?,
    })
}
