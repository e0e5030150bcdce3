//! MySQL's binary JSON, printed as the server prints it, so that stream and snapshot give equal text.

use super::temporal::{Moment, unpack_time};
use super::{CUT, Invalid, decimal, little, take, take_slice};
use std::fmt::Write;
use sync_worker_core::value::Value;

/// The server itself refuses deeper documents.
const MAX_DEPTH: usize = 101;

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// What a reader of a document is told, in order.
pub trait Visitor {
    fn object(&mut self, members: usize);
    fn array(&mut self, elements: usize);
    /// Before each member's value; the text without quotes.
    fn key(&mut self, key: &str);
    /// Before each element.
    fn element(&mut self);
    fn scalar(&mut self, scalar: Scalar<'_>) -> Result<(), Invalid>;
    /// After the last member or element.
    fn end(&mut self);
}

/// A value without parts.
pub enum Scalar<'a> {
    Literal(&'static str),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(&'a str),
    /// A value of another column type: its type code and its bytes.
    Opaque(u8, &'a [u8]),
}

/// Appends a document's text.
pub fn print(bytes: &[u8], out: &mut String) -> Result<(), Invalid> {
    visit(bytes, &mut Printer { out, open: Vec::new() })
}

/// Walks a document. No bytes at all are the JSON null.
pub fn visit(bytes: &[u8], visitor: &mut impl Visitor) -> Result<(), Invalid> {
    match bytes.split_first() {
        None => visitor.scalar(Scalar::Literal("null")),
        Some((&kind, rest)) => value(kind, rest, visitor, 0),
    }
}

fn value(kind: u8, bytes: &[u8], visitor: &mut impl Visitor, depth: usize) -> Result<(), Invalid> {
    if depth > MAX_DEPTH {
        return Err(Invalid("JSON is nested too deep"));
    }
    let mut rest = bytes;
    match kind {
        SMALL_OBJECT => container(bytes, 2, true, visitor, depth),
        LARGE_OBJECT => container(bytes, 4, true, visitor, depth),
        SMALL_ARRAY => container(bytes, 2, false, visitor, depth),
        LARGE_ARRAY => container(bytes, 4, false, visitor, depth),
        LITERAL => visitor.scalar(Scalar::Literal(match take::<1>(&mut rest)?[0] {
            0 => "null",
            1 => "true",
            2 => "false",
            _ => return Err(Invalid("an unknown JSON literal")),
        })),
        INT16 => visitor.scalar(Scalar::Int(i64::from(i16::from_le_bytes(take(&mut rest)?)))),
        UINT16 => visitor.scalar(Scalar::UInt(u64::from(u16::from_le_bytes(take(&mut rest)?)))),
        INT32 => visitor.scalar(Scalar::Int(i64::from(i32::from_le_bytes(take(&mut rest)?)))),
        UINT32 => visitor.scalar(Scalar::UInt(u64::from(u32::from_le_bytes(take(&mut rest)?)))),
        INT64 => visitor.scalar(Scalar::Int(i64::from_le_bytes(take(&mut rest)?))),
        UINT64 => visitor.scalar(Scalar::UInt(u64::from_le_bytes(take(&mut rest)?))),
        DOUBLE => visitor.scalar(Scalar::Double(f64::from_le_bytes(take(&mut rest)?))),
        STRING => {
            let length = variable_length(&mut rest)?;
            visitor.scalar(Scalar::Text(utf8(take_slice(&mut rest, length)?)?))
        }
        OPAQUE => {
            let [kind] = take(&mut rest)?;
            let length = variable_length(&mut rest)?;
            visitor.scalar(Scalar::Opaque(kind, take_slice(&mut rest, length)?))
        }
        _ => Err(Invalid("an unknown JSON type")),
    }
}

/// An object or array: count and size, then the entries of keys and values, which point into the same bytes.
fn container(
    bytes: &[u8],
    width: usize,
    object: bool,
    visitor: &mut impl Visitor,
    depth: usize,
) -> Result<(), Invalid> {
    let number = |at: usize, width: usize| -> Result<usize, Invalid> {
        let end = at.checked_add(width).ok_or(CUT)?;
        usize::try_from(little(bytes.get(at..end).ok_or(CUT)?)).map_err(|_| CUT)
    };
    let count = number(0, width)?;
    let bytes = bytes.get(..number(width, width)?).ok_or(CUT)?;
    let (key_entry, value_entry) = (if object { width + 2 } else { 0 }, width + 1);
    let keys = 2 * width;
    let values = count.checked_mul(key_entry).and_then(|length| length.checked_add(keys)).ok_or(CUT)?;
    // A count that the bytes can't hold must not make us reserve anything.
    if count.checked_mul(value_entry).and_then(|length| length.checked_add(values)).is_none_or(|end| end > bytes.len())
    {
        return Err(CUT);
    }
    match object {
        true => visitor.object(count),
        false => visitor.array(count),
    }
    for nth in 0..count {
        if object {
            let at = keys + nth * key_entry;
            let (start, length) = (number(at, width)?, number(at + width, 2)?);
            visitor.key(utf8(bytes.get(start..start + length).ok_or(CUT)?)?);
        } else {
            visitor.element();
        }
        let at = values + nth * value_entry;
        let kind = bytes[at];
        // small values stand in the entry itself
        let inline = matches!((kind, width), (LITERAL | INT16 | UINT16, _) | (INT32 | UINT32, 4));
        let start = if inline { at + 1 } else { number(at + 1, width)? };
        let end = if inline { at + 1 + width } else { bytes.len() };
        value(kind, bytes.get(start..end).ok_or(CUT)?, visitor, depth + 1)?;
    }
    visitor.end();
    Ok(())
}

fn variable_length(bytes: &mut &[u8]) -> Result<usize, Invalid> {
    let mut length = 0u64;
    for shift in 0..5 {
        let [byte] = take(bytes)?;
        length |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            return usize::try_from(length).map_err(|_| CUT);
        }
    }
    Err(Invalid("a JSON length is too long"))
}

fn utf8(bytes: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(bytes).map_err(|_| Invalid("JSON text is not UTF-8"))
}

struct Printer<'a> {
    out: &'a mut String,
    /// Per open container: it is an object, and nothing stands in it yet.
    open: Vec<(bool, bool)>,
}

impl Printer<'_> {
    fn separate(&mut self) {
        if let Some((_, empty)) = self.open.last_mut()
            && !std::mem::take(empty)
        {
            self.out.push_str(", ");
        }
    }
}

impl Visitor for Printer<'_> {
    fn object(&mut self, _members: usize) {
        self.out.push('{');
        self.open.push((true, true));
    }

    fn array(&mut self, _elements: usize) {
        self.out.push('[');
        self.open.push((false, true));
    }

    fn key(&mut self, key: &str) {
        self.separate();
        quote(key, self.out);
        self.out.push_str(": ");
    }

    fn element(&mut self) {
        self.separate();
    }

    fn scalar(&mut self, scalar: Scalar<'_>) -> Result<(), Invalid> {
        scalar.print(self.out)
    }

    fn end(&mut self) {
        let object = self.open.pop().is_some_and(|(object, _)| object);
        self.out.push(if object { '}' } else { ']' });
    }
}

/// Text in quotes, escaped as the server does it.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            // Writing to a String can't fail.
            byte => write!(out, "\\u{byte:04x}").unwrap_or_default(),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

impl Scalar<'_> {
    pub fn print(&self, out: &mut String) -> Result<(), Invalid> {
        match *self {
            Scalar::Literal(text) => out.push_str(text),
            Scalar::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
            Scalar::UInt(value) => out.push_str(itoa::Buffer::new().format(value)),
            Scalar::Double(value) => double(value, out),
            Scalar::Text(text) => quote(text, out),
            Scalar::Opaque(kind, bytes) => opaque(kind, bytes, out)?,
        }
        Ok(())
    }
}

/// The shortest digits that mean this number; with an exponent below 1e-14 and from 1e15 on, and never without a point
/// or an exponent.
fn double(value: f64, out: &mut String) {
    let start = out.len();
    write!(out, "{value:e}").unwrap_or_default();
    let exponent = out[start..].rsplit_once('e').and_then(|(_, digits)| digits.parse::<i32>().ok()).unwrap_or(0);
    if value == 0.0 || (-15..15).contains(&exponent) {
        out.truncate(start);
        write!(out, "{value}").unwrap_or_default();
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
    }
}

fn opaque(kind: u8, bytes: &[u8], out: &mut String) -> Result<(), Invalid> {
    const DATE: u8 = 10;
    const TIME: u8 = 11;
    const DATETIME: u8 = 12;
    const TIMESTAMP: u8 = 7;
    const NEWDECIMAL: u8 = 246;
    let mut rest = bytes;
    match kind {
        NEWDECIMAL => {
            let [precision, scale] = take(&mut rest)?;
            decimal::unpack(precision, scale, &mut rest, out)?;
        }
        TIME => {
            let packed = i64::from_le_bytes(take(&mut rest)?);
            let Value::Time(micros) = unpack_time(packed) else { return Err(CUT) };
            let (size, sign) = (micros.unsigned_abs(), if micros < 0 { "-" } else { "" });
            let seconds = size / 1_000_000;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            write!(out, "\"{sign}{hours:02}:{minutes:02}:{seconds:02}.{:06}\"", size % 1_000_000).unwrap_or_default();
        }
        DATE | DATETIME | TIMESTAMP => {
            let packed = i64::from_le_bytes(take(&mut rest)?).unsigned_abs();
            let moment = Moment::unpack(packed >> 24, u32::try_from(packed & 0xFF_FFFF).unwrap_or(0));
            write!(out, "\"{:04}-{:02}-{:02}", moment.year, moment.month, moment.day).unwrap_or_default();
            if kind != DATE {
                let Moment { hour, minute, second, micros, .. } = moment;
                write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}").unwrap_or_default();
            }
            out.push('"');
        }
        _ => {
            write!(out, "\"base64:type{kind}:").unwrap_or_default();
            base64(bytes, out);
            out.push('"');
        }
    }
    Ok(())
}

/// In lines of 76 characters, as the server's own routine breaks them.
fn base64(bytes: &[u8], out: &mut String) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (nth, part) in bytes.chunks(3).enumerate() {
        if nth > 0 && nth % 19 == 0 {
            out.push_str("\\n");
        }
        let packed =
            part.iter().fold(0usize, |packed, &byte| packed << 8 | usize::from(byte)) << (8 * (3 - part.len()));
        for at in 0..4 {
            match at <= part.len() {
                true => out.push(char::from(LETTERS[packed >> (18 - 6 * at) & 63])),
                false => out.push('='),
            }
        }
    }
}
