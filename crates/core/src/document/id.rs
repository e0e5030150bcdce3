//! The key of a collection: `_id`, which may be of any type, in a form that has equal bytes for equal keys.

use super::{Element, decimal, kind};
use crate::value::{Damaged, Value};

/// The smallest whole number above every `i64`, as a double.
const ABOVE: f64 = 9_223_372_036_854_775_808.0;

/// The canonical value of an `_id`. The server takes 1, 1.0 and NumberLong(1) for one key: so do we. What has no other
/// canonical form is `Raw`: the number of its type, then its bytes. `scratch` holds what has to be made.
pub fn canonical<'a>(id: Element<'a>, scratch: &'a mut Vec<u8>) -> Result<Value<'a>, Damaged> {
    let whole = match id.kind {
        kind::INT32 => Some(i64::from(i32::from_le_bytes(id.array()?))),
        kind::INT64 => Some(i64::from_le_bytes(id.array()?)),
        kind::DOUBLE => whole(f64::from_le_bytes(id.array()?)),
        kind::DECIMAL128 => decimal::Decimal::from_bytes(id.array()?).whole(),
        _ => None,
    };
    if let Some(number) = whole {
        return Ok(Value::Int(number));
    }
    Ok(match id.kind {
        // What is no text in UTF-8 is a key all the same.
        kind::STRING => match id.text() {
            Ok(text) => Value::Text(text),
            Err(_) => raw(id, scratch),
        },
        kind::BOOL => Value::Bool(id.array::<1>()? != [0]),
        kind::DATE => match i64::from_le_bytes(id.array()?).checked_mul(1_000) {
            Some(micros) if micros != i64::MIN => Value::TimestampTz(micros),
            _ => raw(id, scratch),
        },
        kind::BINARY => {
            let (subtype, bytes) = binary(id)?;
            match (subtype, <[u8; 16]>::try_from(bytes)) {
                (4, Ok(uuid)) => Value::Uuid(uuid),
                (0, _) => Value::Bytes(bytes),
                _ => raw(id, scratch),
            }
        }
        kind::DECIMAL128 => {
            let bytes = decimal::Decimal::from_bytes(id.array()?).reduced().to_bytes();
            raw(Element { bytes: &bytes, ..id }, scratch)
        }
        _ => raw(id, scratch),
    })
}

/// The type and the bytes of a canonical `_id`, in the shortest type that holds it.
pub fn element(id: Value<'_>, out: &mut Vec<u8>) -> Result<u8, Damaged> {
    out.clear();
    let length = |length: usize| i32::try_from(length).map_err(|_| Damaged("a key is too long"));
    Ok(match id {
        Value::Int(number) => match i32::try_from(number) {
            Ok(number) => {
                out.extend_from_slice(&number.to_le_bytes());
                kind::INT32
            }
            Err(_) => {
                out.extend_from_slice(&number.to_le_bytes());
                kind::INT64
            }
        },
        Value::Text(text) => {
            out.extend_from_slice(&length(text.len() + 1)?.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            out.push(0);
            kind::STRING
        }
        Value::Bool(value) => {
            out.push(value.into());
            kind::BOOL
        }
        Value::TimestampTz(micros) => {
            out.extend_from_slice(&micros.div_euclid(1_000).to_le_bytes());
            kind::DATE
        }
        Value::Uuid(uuid) => {
            out.extend_from_slice(&16i32.to_le_bytes());
            out.push(4);
            out.extend_from_slice(&uuid);
            kind::BINARY
        }
        Value::Bytes(bytes) => {
            out.extend_from_slice(&length(bytes.len())?.to_le_bytes());
            out.push(0);
            out.extend_from_slice(bytes);
            kind::BINARY
        }
        Value::Raw(raw) => {
            let (&kind, bytes) = raw.split_first().ok_or(Damaged("a key without a type"))?;
            out.extend_from_slice(bytes);
            kind
        }
        _ => return Err(Damaged("a value that is no form of an _id")),
    })
}

/// A binary's subtype and bytes.
pub fn binary<'a>(element: Element<'a>) -> Result<(u8, &'a [u8]), Damaged> {
    let (subtype, bytes) =
        element.bytes.get(4..).and_then(<[u8]>::split_first).ok_or(Damaged("a binary ends early"))?;
    Ok((*subtype, bytes))
}

fn raw<'a>(id: Element<'_>, scratch: &'a mut Vec<u8>) -> Value<'a> {
    scratch.clear();
    scratch.push(id.kind);
    scratch.extend_from_slice(id.bytes);
    Value::Raw(scratch)
}

/// A double without a fraction, in the range of a long.
pub fn whole(number: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation)] // in range and without a fraction
    let cast = |number: f64| number as i64;
    (number.fract() == 0.0 && (-ABOVE..ABOVE).contains(&number)).then(|| cast(number))
}
