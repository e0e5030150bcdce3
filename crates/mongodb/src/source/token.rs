//! Resume tokens: what they say about their place, and how they are kept.
//!
//! `_data` begins with the type of a timestamp, the cluster time and, after the format's version, the token's kind. Of the
//! rest nothing is read here.

use crate::error::Error;
use bson::{RawDocument, Timestamp, rawdoc};
use std::fmt::Write;

/// Where a stream starts or goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    At(Timestamp),
    /// The bytes of a token, which is a document.
    After(Vec<u8>),
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub time: Timestamp,
    /// No event's: everything before its time has been sent.
    pub mark: bool,
}

pub fn place(token: &RawDocument) -> Result<Place, Error> {
    const UNREADABLE: Error = Error::Protocol("a resume token that can't be read");
    let data = token.get_str("_data").map_err(|_| UNREADABLE)?;
    let part = |from: usize, to: usize| data.get(from..to).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    // 82: a timestamp; 2B02, 2B04: the version; 29: zero, the kind of a mark.
    let (Some(0x82), Some(seconds), Some(increment)) = (part(0, 2), part(2, 10), part(10, 18)) else {
        return Err(UNREADABLE);
    };
    let mark = part(18, 20) == Some(0x2B) && part(22, 24) == Some(0x29);
    Ok(Place { time: Timestamp { time: seconds, increment }, mark })
}

impl Start {
    /// Moves it behind a token, in the memory that it has: there is one with each event.
    pub fn move_to(&mut self, token: &[u8]) {
        match self {
            Start::After(bytes) => {
                bytes.clear();
                bytes.extend_from_slice(token);
            }
            Start::At(_) => *self = Start::After(token.to_vec()),
        }
    }

    /// The same to where another one stands.
    pub fn copy(&mut self, other: &Start) {
        match other {
            Start::After(token) => self.move_to(token),
            Start::At(_) => *self = other.clone(),
        }
    }

    pub fn is_after(&self, token: &[u8]) -> bool {
        matches!(self, Start::After(bytes) if bytes == token)
    }

    /// As it stands in a checkpoint: a time, the hexadecimal digits of `_data`, or, where a token has more than that, those
    /// of the whole token.
    pub fn to_text(&self) -> String {
        match self {
            Start::At(time) => format!("at:{}.{}", time.time, time.increment),
            Start::After(token) => {
                let document = RawDocument::from_bytes(token).ok();
                let data = document.and_then(|document| document.get_str("_data").ok().map(|data| (document, data)));
                match data {
                    Some((document, data)) if document.iter().count() == 1 => data.to_owned(),
                    Some(_) | None => token.iter().fold("token:".to_owned(), |mut text, byte| {
                        // Writing into a string can't fail.
                        write!(text, "{byte:02X}").unwrap_or_default();
                        text
                    }),
                }
            }
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        if let Some(time) = text.strip_prefix("at:") {
            let (seconds, increment) = time.split_once('.')?;
            return Some(Start::At(Timestamp { time: seconds.parse().ok()?, increment: increment.parse().ok()? }));
        }
        if let Some(digits) = text.strip_prefix("token:") {
            let bytes: Option<Vec<u8>> =
                (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()).collect();
            return bytes.filter(|bytes| RawDocument::from_bytes(bytes).is_ok()).map(Start::After);
        }
        let is_data = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_data.then(|| Start::After(rawdoc! { "_data": text }.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_real_servers_are_read() {
        let event = "8265F0C3A2000000012B042C0100296E5A1004ABCDEF";
        let mark = "8265F0C3A2000000022B0429296E04";
        let place = |data: &str| place(&rawdoc! { "_data": data }).unwrap();
        let time = |increment| Timestamp { time: 0x65F0_C3A2, increment };
        assert_eq!(place(event), Place { time: time(1), mark: false });
        assert_eq!(place(mark), Place { time: time(2), mark: true });
        for broken in ["", "82", "zz", "8365F0C3A2000000012B04"] {
            assert!(super::place(&rawdoc! { "_data": broken }).is_err(), "{broken}");
        }
    }

    #[test]
    fn starts_round_trip_through_text() {
        let typed = rawdoc! { "_data": "82AB", "_typeBits": 7 };
        for start in [
            Start::At(Timestamp { time: 1, increment: 2 }),
            Start::After(rawdoc! { "_data": "82AB" }.into_bytes()),
            Start::After(typed.into_bytes()),
        ] {
            assert_eq!(Start::parse(&start.to_text()), Some(start));
        }
        for text in ["", "at:1", "token:zz", "xyz"] {
            assert_eq!(Start::parse(text), None, "{text}");
        }
    }
}
