//! Resume tokens. Their `_data` sorts as text in the order of the events, and is laid out like the server's:
//!
//! ```text
//! 82 <cluster time, 8 bytes> 2B04 <kind> <place in the commit> <6E event, 6F invalidate> [<fragment>] 04
//! ```

use std::fmt::Write;

use bson::{RawDocument, RawDocumentBuf, rawdoc};

use crate::failure::Failure;
use crate::storage::clock::Time;
use crate::value::read::Read;

const EVENT: u32 = 128;
const HIGH_WATER_MARK: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Everything before this time has been seen.
    Mark(Time),
    Event {
        time: Time,
        ordinal: u32,
        invalidate: bool,
        fragment: Option<u32>,
    },
}

impl Token {
    pub fn event(time: Time, ordinal: u32) -> Self {
        Self::Event { time, ordinal, invalidate: false, fragment: None }
    }

    pub fn time(self) -> Time {
        match self {
            Self::Mark(time) | Self::Event { time, .. } => time,
        }
    }

    pub fn data(self) -> String {
        let mut text = String::with_capacity(48);
        let written = write!(text, "82{:016X}2B04", self.time().0);
        debug_assert!(written.is_ok(), "text takes everything");
        match self {
            Self::Mark(_) => {
                number(&mut text, HIGH_WATER_MARK);
                number(&mut text, 0);
                text.push_str("6E");
            }
            Self::Event { ordinal, invalidate, fragment, .. } => {
                number(&mut text, EVENT);
                number(&mut text, ordinal);
                text.push_str(if invalidate { "6F" } else { "6E" });
                if let Some(fragment) = fragment {
                    number(&mut text, fragment + 1);
                }
            }
        }
        text.push_str("04");
        text
    }

    pub fn document(self) -> RawDocumentBuf {
        rawdoc! { "_data": self.data() }
    }

    pub fn parse(document: &RawDocument) -> Result<Self, Failure> {
        document
            .text("_data")
            .and_then(|data| Parser(data).token())
            .ok_or_else(|| Failure::unparsable("resume token string was not a valid hex string"))
    }
}

/// A whole number so that longer ones sort after shorter ones: a byte for the length, then twice the number.
fn number(text: &mut String, number: u32) {
    let written = match number {
        0 => write!(text, "29"),
        1..0x80 => write!(text, "2B{:02X}", number << 1),
        0x80..0x8000 => write!(text, "2C{:04X}", number << 1),
        0x8000..0x80_0000 => write!(text, "2D{:06X}", number << 1),
        _ => write!(text, "2E{:08X}", u64::from(number) << 1),
    };
    debug_assert!(written.is_ok(), "text takes everything");
}

struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn token(mut self) -> Option<Token> {
        self.literal("82")?;
        let time = Time(self.hex(16)?);
        self.literal("2B04")?;
        let kind = self.number()?;
        let ordinal = self.number()?;
        if kind == HIGH_WATER_MARK {
            return Some(Token::Mark(time));
        }
        let invalidate = self.hex(2)? == 0x6F;
        let fragment = if self.0 == "04" { None } else { self.number()?.checked_sub(1) };
        self.literal("04")?;
        self.0.is_empty().then_some(Token::Event { time, ordinal, invalidate, fragment })
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    fn hex(&mut self, digits: usize) -> Option<u64> {
        let value = u64::from_str_radix(self.0.get(..digits)?, 16).ok()?;
        self.0 = &self.0[digits..];
        Some(value)
    }

    fn number(&mut self) -> Option<u32> {
        let digits = match self.hex(2)? {
            0x29 => return Some(0),
            length @ 0x2B..=0x2E => (length - 0x2A) as usize * 2,
            _ => return None,
        };
        u32::try_from(self.hex(digits)? >> 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_sort_as_their_events() {
        let at = |ordinal, invalidate, fragment| Token::Event { time: Time(7), ordinal, invalidate, fragment };
        let in_order = [
            Token::Mark(Time(7)),
            at(0, false, None),
            at(0, false, Some(0)),
            at(0, false, Some(1)),
            at(0, true, None),
            at(1, false, None),
            at(127, false, None),
            at(128, false, None),
            at(40_000, false, None),
            at(9_000_000, false, None),
            Token::Mark(Time(8)),
        ];
        for token in in_order {
            assert_eq!(Token::parse(&token.document()).expect("parses"), token);
        }
        assert!(in_order.windows(2).all(|pair| pair[0].data() < pair[1].data()));
    }
}
