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

/// Which entries of a pipeline's conflict ledger, the newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Conflicts {
    pub pipeline: String,
    #[serde(default)]
    pub table: Option<String>,
    /// Only those that wait for a person.
    #[serde(default)]
    pub open: bool,
    /// Only those with a lower number.
    #[serde(default)]
    pub before: Option<i64>,
    #[serde(default)]
    pub limit: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ConflictList {
    pub conflicts: Vec<Conflict>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ConflictId {
    pub pipeline: String,
    pub id: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Conflict {
    pub id: i64,
    pub table: String,
    /// The key's columns as JSON.
    pub key: serde_json::Value,
    /// The contested column of a merged row.
    pub column: Option<String>,
    pub kind: String,
    /// What decided.
    pub strategy: String,
    /// The columns in their order, which a row as JSON has not.
    pub columns: Vec<String>,
    pub winner: Version,
    /// None where a drifted row is not known, and for a row that others have no place for.
    pub loser: Option<Version>,
    /// The merged row, where a column of it was contested.
    #[serde(default)]
    pub stands: Option<serde_json::Value>,
    /// The row as it stands now, where one entry is shown and a member could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Now>,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_unknown: Option<String>,
    /// The member that held a drifted row.
    pub at: Option<String>,
    pub offset: u64,
    /// As in `2024-02-29T23:59:59.000001Z`, as are the others.
    pub time: String,
    /// It waits for a person.
    pub open: bool,
    pub decided_by: Option<String>,
    pub decided_at: Option<String>,
}

/// The row under a key at a member; None where there is none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Now {
    pub at: String,
    pub row: Option<serde_json::Value>,
    /// Names the row for a decision over it.
    pub image: String,
    /// It is not the row that the entry left.
    pub changed: bool,
}

/// Other rules for the whole ledger of a pipeline. At least one is given; what is not given is as configured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WhatIf {
    pub pipeline: String,
    #[serde(default)]
    pub table: Option<String>,
    /// For tables that are merged, in place of `contested`.
    #[serde(default)]
    pub strategy: Option<String>,
    #[serde(default)]
    pub on_delete: Option<String>,
    /// Of members, as in `crm=10,shop=5`.
    #[serde(default)]
    pub priority: Option<String>,
    /// How many changes are listed; all are counted.
    #[serde(default)]
    pub limit: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// Entries with two versions.
    pub looked_at: u64,
    pub would_change: u64,
    /// Entries that do not say enough.
    pub unknown: u64,
    /// The newest first.
    pub changed: Vec<Changed>,
}

/// An entry with another outcome.
#[derive(Debug, Serialize, Deserialize)]
pub struct Changed {
    pub conflict: Conflict,
    /// False where the winner is the same, and a person would be waited for.
    pub loser_wins: bool,
    /// What would decide.
    pub strategy: String,
    /// It would wait for a person.
    pub open: bool,
}

/// A version that took part in a conflict.
#[derive(Debug, Serialize, Deserialize)]
pub struct Version {
    /// The member; None for a person's.
    pub by: Option<String>,
    /// Put together from versions of several members.
    pub merged: bool,
    /// Empty for a row that was copied and has none.
    pub commit_time: String,
    /// None for a delete.
    pub row: Option<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Decide {
    pub pipeline: String,
    pub id: i64,
    pub choice: Choice,
    /// Over the row with this [image](Now::image), which stands there now, rather than over the one that the entry left.
    #[serde(default)]
    pub now: Option<String>,
}

/// What a person wants to stand there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Winner,
    Loser,
    /// Whatever stands there: nothing is written.
    Keep,
    /// Each column by its name.
    Row(serde_json::Map<String, serde_json::Value>),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Repair {
    pub pipeline: String,
    /// The member whose rows go to all others; None: the source of a one-way pipeline.
    #[serde(default)]
    pub from: Option<String>,
    pub table: String,
    /// Keys in that member's canonical bytes, as hexadecimal digits.
    pub keys: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Resume {
    pub pipeline: String,
    pub table: String,
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
