//! What goes over HTTP, for the server and for the command line alike.

use serde::{Deserialize, Serialize};
use sync_worker_engine::status::TaskStatus;

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub tasks: Vec<TaskStatus>,
}

/// Which dead letters. Without an offset all of the target.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letters {
    pub pipeline: String,
    pub database: String,
    #[serde(default)]
    pub offset: Option<u64>,
    /// Also those that still wait for a retry; for listing only.
    #[serde(default)]
    pub waiting: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Letter {
    pub table: String,
    /// The key's columns as JSON.
    pub key: serde_json::Value,
    pub op: String,
    pub offset: u64,
    pub class: String,
    pub reason: String,
    pub attempts: u32,
    /// No further attempt is made unless a person asks for it.
    pub dead: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct LetterList {
    pub letters: Vec<Letter>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Repair {
    pub pipeline: String,
    pub table: String,
    /// Keys in the source's canonical bytes, as hexadecimal digits.
    pub keys: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Tail {
    pub pipeline: String,
    /// Where to begin; None: with the next record that comes.
    #[serde(default)]
    pub from: Option<u64>,
}

/// How many things an action was done to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
}

pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_the_rest() {
        assert_eq!(to_hex(&[0, 171, 255]), "00abff");
        assert_eq!(from_hex("00abff"), Some(vec![0, 171, 255]));
        for text in ["0", "0g", "é"] {
            assert_eq!(from_hex(text), None);
        }
    }
}
