//! Documents as JSON and back: plain JSON where that says everything, else MongoDB's extended JSON in its canonical form.
//!
//! Strings, booleans, null, integers and finite doubles are plain; a double always has a fraction or an exponent, so that
//! it is told from an integer.

mod base64;
mod special;

use super::{DEEPEST, Document, Element, decimal::Decimal, id, kind};
use crate::convert::Refusal;
use crate::json::{Scanner, Token, is_double};
use crate::value::Damaged;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The server takes 100 levels, the document itself among them.
const STORED: usize = 98;

/// Appends a field's value as JSON.
pub fn to_json(element: Element<'_>, out: &mut String) -> Result<(), Damaged> {
    value(element, out, 0)
}

fn value(element: Element<'_>, out: &mut String, depth: usize) -> Result<(), Damaged> {
    if depth > DEEPEST {
        return Err(Damaged("a document is nested too deeply"));
    }
    // Writing into a string can't fail.
    let written = match element.kind {
        kind::DOCUMENT | kind::ARRAY => return container(element, out, depth),
        kind::STRING => {
            quoted(element.text()?, out);
            Ok(())
        }
        kind::BOOL => out.write_str(if element.array::<1>()? == [0] { "false" } else { "true" }),
        kind::NULL => out.write_str("null"),
        kind::INT32 => write!(out, "{}", i32::from_le_bytes(element.array()?)),
        kind::INT64 => write!(out, "{}", i64::from_le_bytes(element.array()?)),
        kind::DOUBLE => match f64::from_le_bytes(element.array()?) {
            number if number.is_finite() => write!(out, "{number:?}"),
            number if number.is_nan() => out.write_str("{\"$numberDouble\":\"NaN\"}"),
            number => {
                write!(out, "{{\"$numberDouble\":\"{}Infinity\"}}", if number < 0.0 { "-" } else { "" })
            }
        },
        _ => return special::write(element, out, depth),
    };
    written.map_err(|_| Damaged("no room"))
}

fn container(element: Element<'_>, out: &mut String, depth: usize) -> Result<(), Damaged> {
    let object = element.kind == kind::DOCUMENT;
    out.push(if object { '{' } else { '[' });
    for (at, field) in element.document()?.fields().enumerate() {
        let field = field?;
        if at > 0 {
            out.push(',');
        }
        if object {
            quoted(field.name, out);
            out.push(':');
        }
        value(field, out, depth + 1)?;
    }
    out.push(if object { '}' } else { ']' });
    Ok(())
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing into a string can't fail.
            control if u32::from(control) < 0x20 => write!(out, "\\u{:04x}", u32::from(control)).unwrap_or_default(),
            character => out.push(character),
        }
    }
    out.push('"');
}

/// A container that is being read.
struct Open {
    object: bool,
    body: Vec<u8>,
    count: usize,
    name: String,
    /// Its first member's name begins with a dollar sign.
    dollar: bool,
}

/// Reads JSON, extended or plain: the type and the bytes of the value.
pub fn from_json(text: &str) -> Result<(u8, Vec<u8>), Refusal> {
    let refuse = |reason: &str| Refusal(reason.to_owned());
    let broken = || refuse("text that is not JSON");
    let mut scanner = Scanner::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut result = None;
    while let Some(token) = scanner.next().ok_or_else(broken)? {
        let (kind, bytes) = match token {
            Token::ObjectStart | Token::ArrayStart => {
                if open.len() >= STORED {
                    return Err(refuse("JSON that is nested too deeply"));
                }
                let object = matches!(token, Token::ObjectStart);
                open.push(Open { object, body: Vec::new(), count: 0, name: String::new(), dollar: false });
                continue;
            }
            Token::Member(raw) => {
                let name = plain(raw).ok_or_else(broken)?;
                if name.contains('\0') {
                    return Err(refuse("JSON with a zero character in a member's name"));
                }
                if let Some(open) = open.last_mut() {
                    open.dollar |= open.count == 0 && name.starts_with('$');
                    open.name = name.into_owned();
                }
                continue;
            }
            Token::ObjectEnd | Token::ArrayEnd => {
                let closed = open.pop().ok_or_else(broken)?;
                let bytes = document_of(closed.body).map_err(|_| refuse("JSON that is too long"))?;
                let special = if closed.dollar { special::read(&bytes) } else { None };
                special.unwrap_or((if closed.object { kind::DOCUMENT } else { kind::ARRAY }, bytes))
            }
            Token::Text(raw) => (kind::STRING, string(&plain(raw).ok_or_else(broken)?)?),
            Token::Number(literal) => number(literal)?,
            Token::Literal("null") => (kind::NULL, Vec::new()),
            Token::Literal(word) => (kind::BOOL, vec![u8::from(word == "true")]),
        };
        match open.last_mut() {
            None => result = Some((kind, bytes)),
            Some(open) => {
                open.body.push(kind);
                match open.object {
                    true => open.body.extend_from_slice(open.name.as_bytes()),
                    false => open.body.extend_from_slice(open.count.to_string().as_bytes()),
                }
                open.body.push(0);
                open.body.extend_from_slice(&bytes);
                open.count += 1;
            }
        }
    }
    result.ok_or_else(broken)
}

/// The text of a string between its quotes. None: half of a pair of surrogates, which no text can have.
fn plain(raw: &str) -> Option<Cow<'_, str>> {
    match raw.contains('\\') {
        true => serde_json::from_str(&format!("\"{raw}\"")).ok().map(Cow::Owned),
        false => Some(Cow::Borrowed(raw)),
    }
}

fn document_of(body: Vec<u8>) -> Result<Vec<u8>, Damaged> {
    let length = i32::try_from(body.len() + 5).map_err(|_| Damaged("a document is too long"))?;
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.push(0);
    Ok(bytes)
}

fn string(text: &str) -> Result<Vec<u8>, Refusal> {
    let length = i32::try_from(text.len() + 1).map_err(|_| Refusal("a text that is too long".to_owned()))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    Ok(bytes)
}

fn number(literal: &str) -> Result<(u8, Vec<u8>), Refusal> {
    let plain = !literal.contains(['.', 'e', 'E']);
    if plain && let Ok(number) = literal.parse::<i64>() {
        return Ok(match i32::try_from(number) {
            Ok(number) => (kind::INT32, number.to_le_bytes().to_vec()),
            Err(_) => (kind::INT64, number.to_le_bytes().to_vec()),
        });
    }
    if !plain
        && is_double(literal)
        && let Ok(number) = literal.parse::<f64>()
    {
        return Ok((kind::DOUBLE, number.to_le_bytes().to_vec()));
    }
    match Decimal::parse(literal) {
        Some(number) => Ok((kind::DECIMAL128, number.to_bytes().to_vec())),
        None => Err(Refusal("a JSON number of more than 34 digits".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips() {
        for text in [
            r#"{"a":1,"b":[true,null,"x\n\"y\""],"c":{"d":1.5,"e":1e300},"f":9007199254740993}"#,
            r#"[]"#,
            r#""text""#,
            r#"{"$oid":"0102030405060708090a0b0c"}"#,
            r#"{"x":{"$date":{"$numberLong":"-1"}},"y":{"$numberDecimal":"1.50"}}"#,
            r#"{"b":{"$binary":{"base64":"AQID","subType":"80"}}}"#,
            r#"{"r":{"$regularExpression":{"pattern":"^a","options":"i"}},"m":{"$minKey":1},"M":{"$maxKey":1}}"#,
            r#"{"t":{"$timestamp":{"t":1,"i":2}},"n":{"$numberDouble":"-Infinity"},"s":{"$symbol":"q"}}"#,
            r#"{"c":{"$code":"f()"},"w":{"$code":"f()","$scope":{"a":1}},"u":{"$undefined":true}}"#,
        ] {
            let (kind, bytes) = from_json(text).unwrap();
            let mut out = String::new();
            to_json(Element { kind, name: "", bytes: &bytes }, &mut out).unwrap();
            assert_eq!(out, text);
        }
    }

    #[test]
    fn what_is_no_json_or_too_much_is_refused() {
        let deep = "[".repeat(300);
        for text in ["", "{", "nul", "{\"a\":1}x", "1234567890123456789012345678901234567890", &deep] {
            assert!(from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_double_is_told_from_an_integer() {
        let mut out = String::new();
        to_json(Element { kind: kind::DOUBLE, name: "", bytes: &1.0f64.to_le_bytes() }, &mut out).unwrap();
        assert_eq!(out, "1.0");
        assert_eq!(from_json("1.0").unwrap().0, kind::DOUBLE);
        assert_eq!(from_json("1").unwrap().0, kind::INT32);
    }
}
