//! Character sets of strings in the binlog; in the protocol all text is UTF-8.

use super::{Invalid, Scratch};
use std::sync::Arc;
use sync_worker_core::value::Value;

/// What stands in a table for a byte that is no character of its set. No set has this one.
pub const UNDEFINED: char = char::REPLACEMENT_CHARACTER;

#[derive(Clone, Debug, PartialEq)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii.
    Utf8,
    /// utf16 and ucs2.
    Utf16Be,
    Utf16Le,
    Utf32,
    /// One byte a character, or [`UNDEFINED`]; the table comes from the server itself.
    Single(Arc<[char]>),
}

impl Charset {
    /// None for `binary`, which holds no characters, and for sets that need the server's table.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Charset::Utf8,
            "utf16" | "ucs2" => Charset::Utf16Be,
            "utf16le" => Charset::Utf16Le,
            "utf32" => Charset::Utf32,
            _ => return None,
        })
    }

    /// Whether strings of a character set can be read from the log. Of those with more than one byte a character only
    /// the Unicode ones can.
    pub fn is_readable(name: &str) -> bool {
        !matches!(name, "big5" | "cp932" | "eucjpms" | "euckr" | "gb18030" | "gb2312" | "gbk" | "sjis" | "ujis")
    }

    /// The bytes themselves where one of them is no character of the set.
    pub fn decode<'a>(&self, bytes: &'a [u8], scratch: &'a mut Scratch) -> Value<'a> {
        if let Charset::Utf8 = self {
            return std::str::from_utf8(bytes).map_or(Value::Raw(bytes), Value::Text);
        }
        let text = &mut scratch.text;
        text.clear();
        match self.append(bytes, text) {
            Ok(()) => Value::Text(text),
            Err(_) => Value::Raw(bytes),
        }
    }

    /// Appends text of this character set.
    pub fn append(&self, bytes: &[u8], text: &mut String) -> Result<(), Invalid> {
        match self {
            Charset::Utf8 => text.push_str(std::str::from_utf8(bytes).map_err(|_| Invalid("text is not UTF-8"))?),
            Charset::Utf16Be => utf16(bytes, u16::from_be_bytes, text)?,
            Charset::Utf16Le => utf16(bytes, u16::from_le_bytes, text)?,
            Charset::Utf32 => {
                for unit in bytes.chunks(4) {
                    let unit = unit.try_into().map(u32::from_be_bytes).ok().and_then(char::from_u32);
                    text.push(unit.ok_or(Invalid("text is not UTF-32"))?);
                }
            }
            Charset::Single(table) => {
                for &byte in bytes {
                    let character = table.get(usize::from(byte)).copied().filter(|one| *one != UNDEFINED);
                    text.push(character.ok_or(Invalid("text has a byte that its character set does not define"))?);
                }
            }
        }
        Ok(())
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, text: &mut String) -> Result<(), Invalid> {
    const NOT: Invalid = Invalid("text is not UTF-16");
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(NOT);
    }
    for character in char::decode_utf16(units.iter().map(|bytes| unit(*bytes))) {
        text.push(character.map_err(|_| NOT)?);
    }
    Ok(())
}
