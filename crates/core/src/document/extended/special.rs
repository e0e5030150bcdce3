//! The types of BSON that JSON has no word for.

use super::{Damaged, Decimal, Document, Element, base64, id, kind, quoted, string, value};
use crate::document::write::Writer;
use std::fmt::Write as _;

/// Appends a value of such a type.
pub fn write(element: Element<'_>, out: &mut String, depth: usize) -> Result<(), Damaged> {
    // Writing into a string can't fail.
    let written = match element.kind {
        kind::OBJECT_ID => {
            out.push_str("{\"$oid\":\"");
            hex(element.bytes, out);
            out.write_str("\"}")
        }
        kind::DATE => {
            write!(out, "{{\"$date\":{{\"$numberLong\":\"{}\"}}}}", i64::from_le_bytes(element.array()?))
        }
        kind::DECIMAL128 => {
            write!(out, "{{\"$numberDecimal\":\"{}\"}}", Decimal::from_bytes(element.array()?))
        }
        kind::BINARY => {
            let (subtype, bytes) = id::binary(element)?;
            out.push_str("{\"$binary\":{\"base64\":\"");
            base64::encode(bytes, out);
            write!(out, "\",\"subType\":\"{subtype:02x}\"}}}}")
        }
        kind::TIMESTAMP => {
            let bits = u64::from_le_bytes(element.array()?);
            write!(out, "{{\"$timestamp\":{{\"t\":{},\"i\":{}}}}}", bits >> 32, bits & 0xFFFF_FFFF)
        }
        kind::REGEX => {
            let (pattern, rest) = zero_ended(element.bytes)?;
            let (options, _) = zero_ended(rest)?;
            out.push_str("{\"$regularExpression\":{\"pattern\":");
            quoted(pattern, out);
            out.push_str(",\"options\":");
            quoted(options, out);
            out.write_str("}}")
        }
        kind::CODE => {
            out.push_str("{\"$code\":");
            quoted(element.text()?, out);
            out.write_str("}")
        }
        kind::CODE_WITH_SCOPE => {
            let rest = element.bytes.get(4..).ok_or(Damaged("code ends early"))?;
            let length = crate::document::length(kind::STRING, rest)?;
            let (code, scope) = rest.split_at_checked(length).ok_or(Damaged("code ends early"))?;
            out.push_str("{\"$code\":");
            quoted(Element { kind: kind::STRING, name: "", bytes: code }.text()?, out);
            out.push_str(",\"$scope\":");
            value(Element { kind: kind::DOCUMENT, name: "", bytes: scope }, out, depth + 1)?;
            out.write_str("}")
        }
        kind::SYMBOL => {
            out.push_str("{\"$symbol\":");
            quoted(element.text()?, out);
            out.write_str("}")
        }
        kind::DB_POINTER => {
            let (name, oid) = element.bytes.split_last_chunk::<12>().ok_or(Damaged("a pointer ends early"))?;
            out.push_str("{\"$dbPointer\":{\"$ref\":");
            quoted(Element { kind: kind::STRING, name: "", bytes: name }.text()?, out);
            out.push_str(",\"$id\":{\"$oid\":\"");
            hex(oid, out);
            out.write_str("\"}}}")
        }
        kind::UNDEFINED => out.write_str("{\"$undefined\":true}"),
        kind::MIN_KEY => out.write_str("{\"$minKey\":1}"),
        kind::MAX_KEY => out.write_str("{\"$maxKey\":1}"),
        _ => return Err(Damaged("a field of an unknown type")),
    };
    written.map_err(|_| Damaged("no room"))
}

/// The type and bytes that an object of extended JSON stands for; None: it is an object like any other.
pub fn read(bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let object = Document::new(bytes).ok()?;
    let fields: Vec<Element<'_>> = object.fields().collect::<Result<_, _>>().ok()?;
    let number = |element: &Element<'_>| match element.kind {
        kind::INT32 => element.array().ok().map(|bytes| i64::from(i32::from_le_bytes(bytes))),
        kind::INT64 => element.array().ok().map(i64::from_le_bytes),
        _ => None,
    };
    let inner = |element: &Element<'_>, one: &str, two: &str| {
        let document = element.document().ok()?;
        let (one, two) = (document.get(one).ok()??, document.get(two).ok()??);
        (document.fields().count() == 2).then_some((one.kind, one.bytes.to_vec(), two.kind, two.bytes.to_vec()))
    };
    let element = |(kind, bytes): (u8, &'_ [u8])| -> Option<String> {
        Element { kind, name: "", bytes }.text().ok().filter(|_| kind == self::kind::STRING).map(str::to_owned)
    };
    if let [code, scope] = &fields[..] {
        if code.name != "$code" || scope.name != "$scope" || scope.kind != kind::DOCUMENT {
            return None;
        }
        let code = string(text(code)?).ok()?;
        let mut whole = i32::try_from(4 + code.len() + scope.bytes.len()).ok()?.to_le_bytes().to_vec();
        whole.extend_from_slice(&code);
        whole.extend_from_slice(scope.bytes);
        return Some((kind::CODE_WITH_SCOPE, whole));
    }
    let [field] = &fields[..] else { return None };
    Some(match field.name {
        "$oid" => (kind::OBJECT_ID, unhex(text(field)?)?),
        "$numberDecimal" => (kind::DECIMAL128, Decimal::parse(text(field)?)?.to_bytes().to_vec()),
        "$numberLong" => (kind::INT64, text(field)?.parse::<i64>().ok()?.to_le_bytes().to_vec()),
        "$numberInt" => (kind::INT32, text(field)?.parse::<i32>().ok()?.to_le_bytes().to_vec()),
        "$numberDouble" => {
            let number: f64 = match text(field)? {
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                "NaN" => f64::NAN,
                digits => digits.parse().ok()?,
            };
            (kind::DOUBLE, number.to_le_bytes().to_vec())
        }
        // The number of milliseconds has been read by then.
        "$date" => (kind::DATE, number(field)?.to_le_bytes().to_vec()),
        "$symbol" => (kind::SYMBOL, string(text(field)?).ok()?),
        "$code" => (kind::CODE, string(text(field)?).ok()?),
        "$undefined" => (kind::UNDEFINED, Vec::new()),
        "$minKey" => (kind::MIN_KEY, Vec::new()),
        "$maxKey" => (kind::MAX_KEY, Vec::new()),
        "$binary" => {
            let (one_kind, one, two_kind, two) = inner(field, "base64", "subType")?;
            let (data, subtype) = (element((one_kind, &one))?, element((two_kind, &two))?);
            let mut writer = Writer::default();
            writer.binary("b", u8::from_str_radix(&subtype, 16).ok()?, &base64::decode(&data)?).ok()?;
            let document = writer.finish().ok()?;
            (kind::BINARY, Document::new(&document).ok()?.get("b").ok()??.bytes.to_vec())
        }
        "$regularExpression" => {
            let (one_kind, one, two_kind, two) = inner(field, "pattern", "options")?;
            let (pattern, options) = (element((one_kind, &one))?, element((two_kind, &two))?);
            if pattern.contains('\0') || options.contains('\0') {
                return None;
            }
            (kind::REGEX, [pattern.as_bytes(), &[0], options.as_bytes(), &[0]].concat())
        }
        "$timestamp" => {
            let (one_kind, one, two_kind, two) = inner(field, "t", "i")?;
            let part = |kind, bytes: &[u8]| u32::try_from(number(&Element { kind, name: "", bytes })?).ok();
            let bits = u64::from(part(one_kind, &one)?) << 32 | u64::from(part(two_kind, &two)?);
            (kind::TIMESTAMP, bits.to_le_bytes().to_vec())
        }
        "$dbPointer" => {
            let (one_kind, one, two_kind, two) = inner(field, "$ref", "$id")?;
            let name = string(&element((one_kind, &one))?).ok()?;
            (two_kind == kind::OBJECT_ID).then(|| (kind::DB_POINTER, [name, two].concat()))?
        }
        _ => return None,
    })
}

fn text<'a>(element: &Element<'a>) -> Option<&'a str> {
    (element.kind == kind::STRING).then(|| element.text().ok()).flatten()
}

pub fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing into a string can't fail.
        write!(out, "{byte:02x}").unwrap_or_default();
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 24 || !text.is_ascii() {
        return None;
    }
    (0..12).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

fn zero_ended(bytes: &[u8]) -> Result<(&str, &[u8]), Damaged> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Damaged("a pattern ends early"))?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Damaged("a pattern is not UTF-8"))?;
    Ok((text, &bytes[end + 1..]))
}
