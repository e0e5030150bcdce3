//! Bus records as Debezium's JSON envelope, for a person who looks at them with `sync-worker tail`.

use serde_json::{Map, Number, Value as Json, json};
use sync_worker_core::record::{Body, Delivered};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Damaged, Value};

/// The envelope of a row change; None for records that carry none.
pub fn envelope(delivered: &Delivered) -> Result<Option<Json>, Damaged> {
    let record = &delivered.record;
    let (change, decision) = match &record.body {
        Body::Change(change) => (change, false),
        Body::Decision(decision) => (&decision.change, true),
        Body::Marker(echo) => {
            let parked = echo.parked.iter().map(|parked| {
                json!({ "table": parked.table.as_str(), "offset": parked.offset.0, "differs": parked.seen.is_some() })
            });
            let unparked = echo
                .unparked
                .iter()
                .map(|unparked| json!({ "table": unparked.table.as_str(), "written": unparked.written }));
            let (parked, unparked): (Vec<Json>, Vec<Json>) = (parked.collect(), unparked.collect());
            return Ok(Some(json!({
                "marker": {
                    "database": record.origin.as_str(),
                    "offset": echo.offset.map(|offset| offset.0),
                    "parked": parked,
                    "unparked": unparked,
                },
                "offset": delivered.offset.0,
            })));
        }
        Body::Configuration(rules) => {
            let members: Vec<&str> = rules.members.iter().map(|member| member.name.as_str()).collect();
            let tables: Vec<&str> = rules.tables.iter().map(|table| table.schema.table.as_str()).collect();
            let configuration = json!({ "members": members, "tables": tables });
            return Ok(Some(json!({ "configuration": configuration, "offset": delivered.offset.0 })));
        }
        Body::Resume(table) => {
            return Ok(Some(json!({ "resume": table.as_str(), "offset": delivered.offset.0 })));
        }
        Body::Seeded(table) => {
            return Ok(Some(json!({ "seeded": table.as_str(), "offset": delivered.offset.0 })));
        }
        Body::Schema(_) | Body::Commit => return Ok(None),
    };
    let image = |image: &Option<Row>| image.as_ref().map(|image| row(&change.schema, image)).transpose();
    Ok(Some(json!({
        "op": change.op.code().to_string(),
        "before": image(&change.before)?,
        "after": image(&change.after)?,
        "source": {
            "connector": change.schema.engine.as_str(),
            "name": record.origin.as_str(),
            "table": change.table().as_str(),
            "position": record.position.to_string(),
            "snapshot": change.op == sync_worker_core::change::Op::Read,
            "ts_us": record.commit_time,
        },
        "transaction": record.transaction.as_deref(),
        "offset": delivered.offset.0,
        "last": record.last,
        "decision": decision,
    })))
}

/// A moment as people read it, in UTC.
pub fn instant(micros: i64) -> String {
    format!("{}Z", timestamp(micros))
}

/// A row image as an object; columns that the source did not send are left out.
pub fn row(schema: &Schema, row: &Row) -> Result<Json, Damaged> {
    let mut object = Map::new();
    for (cell, column) in row.cells().zip(&schema.columns) {
        if let Cell::Present(value) = cell? {
            object.insert(column.name.clone(), json(value));
        }
    }
    Ok(Json::Object(object))
}

/// A key as an object of its columns.
pub fn key(schema: &Schema, key: &Key) -> Result<Json, Damaged> {
    let mut object = Map::new();
    for (cell, &column) in key.cells().zip(&schema.key) {
        if let Cell::Present(value) = cell? {
            object.insert(schema.columns[column].name.clone(), json(value));
        }
    }
    Ok(Json::Object(object))
}

/// Numbers that JSON can't hold exactly, dates and bytes become text.
fn json(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(value),
        Value::Int(value) => Json::Number(value.into()),
        Value::UInt(value) => Json::Number(value.into()),
        Value::Float32(value) => float(f64::from(value)),
        Value::Float64(value) => float(value),
        Value::Decimal(text) | Value::Text(text) | Value::Bits(text) => Json::String(text.to_owned()),
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned())),
        // As text once extended JSON is written (`core::document`).
        Value::Document(bytes) | Value::Patch(bytes) => Json::String(hex(bytes)),
        Value::Bytes(bytes) | Value::Raw(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if matches!(value, Value::Raw(_)) => Json::String(text.to_owned()),
            Ok(_) | Err(_) => Json::String(hex(bytes)),
        },
        Value::Date(days) => Json::String(date(i64::from(days))),
        Value::Time(micros) => Json::String(time(micros)),
        Value::Timestamp(micros) => Json::String(timestamp(micros)),
        Value::TimestampTz(micros) => Json::String(format!("{}Z", timestamp(micros))),
        Value::Uuid(bytes) => {
            let text = hex(&bytes);
            let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
            Json::String(parts.join("-"))
        }
    }
}

fn float(value: f64) -> Json {
    Number::from_f64(value).map_or_else(|| Json::String(value.to_string()), Json::Number)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

fn timestamp(micros: i64) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (days, rest) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
            format!("{}T{}", date(days), time(rest))
        }
    }
}

fn time(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{:06}", micros % 1_000_000)
}

/// The proleptic Gregorian date of a day counted from 1970-01-01, years before 1 as ISO 8601 counts them.
fn date(days: i64) -> String {
    if days == i64::from(i32::MAX) || days == i64::from(i32::MIN) {
        return if days > 0 { "infinity" } else { "-infinity" }.to_owned();
    }
    // Counted from 0000-03-01, so that the leap day ends a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_read_as_people_write_them() {
        assert_eq!(json(Value::Date(0)), "1970-01-01");
        assert_eq!(json(Value::Date(11_016)), "2000-02-29");
        assert_eq!(json(Value::Timestamp(-1)), "1969-12-31T23:59:59.999999");
        assert_eq!(json(Value::TimestampTz(i64::MAX)), "infinityZ");
        assert_eq!(json(Value::Time(-3_600_000_001)), "-01:00:00.000001");
    }

    #[test]
    fn numbers_beyond_json_stay_exact_as_text() {
        assert_eq!(json(Value::UInt(u64::MAX)), Json::from(u64::MAX));
        assert_eq!(json(Value::Decimal("0.10")), "0.10");
        assert_eq!(json(Value::Float64(f64::NAN)), "NaN");
        assert_eq!(json(Value::Uuid([0xAB; 16])), "abababab-abab-abab-abab-abababababab");
    }
}
