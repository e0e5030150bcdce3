//! Documents of MongoDB, read and written as bytes: BSON without a client crate and without an allocation per field.
//!
//! What a reader of this module sees of a document is what the bytes say; nothing is checked before it is looked at, and
//! damage is an error of that look.

pub mod clock;
pub mod decimal;
pub mod extended;
pub mod field;
pub mod id;
pub mod key;
pub mod mapping;
pub mod patch;
pub mod projection;
pub mod write;

use crate::value::Damaged;

/// The server takes no document that is nested deeper than 100 levels from a client; its own events go somewhat deeper.
pub const DEEPEST: usize = 200;

/// BSON's numbers of its types.
pub mod kind {
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOL: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0A;
    pub const REGEX: u8 = 0x0B;
    pub const DB_POINTER: u8 = 0x0C;
    pub const CODE: u8 = 0x0D;
    pub const SYMBOL: u8 = 0x0E;
    pub const CODE_WITH_SCOPE: u8 = 0x0F;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL128: u8 = 0x13;
    pub const MIN_KEY: u8 = 0xFF;
    pub const MAX_KEY: u8 = 0x7F;

    /// As the server's own documentation calls it.
    pub fn name(kind: u8) -> &'static str {
        match kind {
            DOUBLE => "double",
            STRING => "string",
            DOCUMENT => "object",
            ARRAY => "array",
            BINARY => "binData",
            UNDEFINED => "undefined",
            OBJECT_ID => "objectId",
            BOOL => "bool",
            DATE => "date",
            NULL => "null",
            REGEX => "regex",
            DB_POINTER => "dbPointer",
            CODE => "javascript",
            SYMBOL => "symbol",
            CODE_WITH_SCOPE => "javascriptWithScope",
            INT32 => "int",
            TIMESTAMP => "timestamp",
            INT64 => "long",
            DECIMAL128 => "decimal",
            MIN_KEY => "minKey",
            MAX_KEY => "maxKey",
            _ => "unknown",
        }
    }
}

/// The bytes of a document or of an array, whose fields are called "0", "1" and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a>(&'a [u8]);

/// A field of a document, or an element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub kind: u8,
    pub name: &'a str,
    pub bytes: &'a [u8],
}

const ENDS_EARLY: Damaged = Damaged("a document ends early");
/// A server keeps such names where a client wrote them; the field is passed over and reading can go on.
pub const NAME_IS_NO_TEXT: &str = "a field's name is not UTF-8";

impl<'a> Document<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let (head, _) = bytes.split_first_chunk::<4>().ok_or(ENDS_EARLY)?;
        let length = usize::try_from(i32::from_le_bytes(*head)).map_err(|_| ENDS_EARLY)?;
        if length != bytes.len() || length < 5 || bytes.last() != Some(&0) {
            return Err(Damaged("a document is not as long as it says"));
        }
        Ok(Self(bytes))
    }

    /// The document at the front of `bytes`, which moves past it: several may stand one after another.
    pub fn take(bytes: &mut &'a [u8]) -> Result<Self, Damaged> {
        let (head, _) = bytes.split_first_chunk::<4>().ok_or(ENDS_EARLY)?;
        let length = usize::try_from(i32::from_le_bytes(*head)).map_err(|_| ENDS_EARLY)?;
        let (document, rest) = bytes.split_at_checked(length).ok_or(ENDS_EARLY)?;
        *bytes = rest;
        Self::new(document)
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Ends after the first damaged one; goes on after one whose name is no text ([`NAME_IS_NO_TEXT`]).
    pub fn fields(&self) -> Fields<'a> {
        Fields(self.0.get(4..self.0.len() - 1).unwrap_or_default())
    }

    pub fn get(&self, name: &str) -> Result<Option<Element<'a>>, Damaged> {
        for field in self.fields() {
            match field {
                Ok(field) if field.name == name => return Ok(Some(field)),
                Err(error) if error.0 != NAME_IS_NO_TEXT => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    pub fn document(&self, name: &str) -> Result<Option<Document<'a>>, Damaged> {
        self.get(name)?.map(|field| field.document()).transpose()
    }
}

impl<'a> Element<'a> {
    /// A document's or an array's own bytes as a document.
    pub fn document(&self) -> Result<Document<'a>, Damaged> {
        match self.kind {
            kind::DOCUMENT | kind::ARRAY => Document::new(self.bytes),
            _ => Err(Damaged("a field is no document")),
        }
    }

    pub fn text(&self) -> Result<&'a str, Damaged> {
        let text = self.bytes.get(4..self.bytes.len().saturating_sub(1)).ok_or(ENDS_EARLY)?;
        std::str::from_utf8(text).map_err(|_| Damaged("a document's text is not UTF-8"))
    }

    pub fn is_container(&self) -> bool {
        matches!(self.kind, kind::DOCUMENT | kind::ARRAY)
    }

    pub fn array<const N: usize>(&self) -> Result<[u8; N], Damaged> {
        <[u8; N]>::try_from(self.bytes).map_err(|_| Damaged("a field has another length than its type"))
    }
}

#[derive(Clone, Default)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those that were not read yet.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    fn field(&mut self) -> Result<Element<'a>, Damaged> {
        let (&kind, rest) = self.0.split_first().ok_or(ENDS_EARLY)?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or(ENDS_EARLY)?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let length = length(kind, rest)?;
        let (bytes, rest) = rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| Damaged(NAME_IS_NO_TEXT))?;
        Ok(Element { kind, name, bytes })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Element<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.as_ref().is_err_and(|error| error.0 != NAME_IS_NO_TEXT) {
            self.0 = &[];
        }
        Some(field)
    }
}

/// How many bytes a value of this type takes at the front of `bytes`.
pub fn length(kind: u8, bytes: &[u8]) -> Result<usize, Damaged> {
    let number = || -> Result<usize, Damaged> {
        let (head, _) = bytes.split_first_chunk::<4>().ok_or(ENDS_EARLY)?;
        usize::try_from(i32::from_le_bytes(*head)).map_err(|_| Damaged("a length below zero"))
    };
    let text = |from: usize| -> Result<usize, Damaged> {
        let rest = bytes.get(from..).ok_or(ENDS_EARLY)?;
        Ok(from + rest.iter().position(|byte| *byte == 0).ok_or(ENDS_EARLY)? + 1)
    };
    Ok(match kind {
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => 8,
        kind::STRING | kind::CODE | kind::SYMBOL => 4 + number()?.max(1),
        kind::DOCUMENT | kind::ARRAY => number()?.max(5),
        kind::CODE_WITH_SCOPE => number()?.max(14),
        kind::BINARY => 5 + number()?,
        kind::UNDEFINED | kind::NULL | kind::MIN_KEY | kind::MAX_KEY => 0,
        kind::OBJECT_ID => 12,
        kind::BOOL => 1,
        kind::REGEX => text(text(0)?)?,
        kind::DB_POINTER => 4 + number()?.max(1) + 12,
        kind::INT32 => 4,
        kind::DECIMAL128 => 16,
        _ => return Err(Damaged("a field of an unknown type")),
    })
}
