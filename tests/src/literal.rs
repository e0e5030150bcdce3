//! Values as literals of either engine, and random ones.

use crate::kind::Kind;
use rand::Rng;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use std::fmt::Write;

pub fn text(kind: Kind, value: &str) -> String {
    let quoted = value.replace('\'', "''");
    match kind {
        Kind::Postgres => format!("'{quoted}'"),
        Kind::Mysql => format!("'{}'", quoted.replace('\\', "\\\\")),
        Kind::Mongodb => value.to_owned(),
    }
}

pub fn bytes(kind: Kind, value: &[u8]) -> String {
    let mut hex = String::with_capacity(value.len() * 2);
    for byte in value {
        // Writing to a string can't fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
    }
    match kind {
        Kind::Postgres => format!("'\\x{hex}'"),
        Kind::Mysql => format!("X'{hex}'"),
        Kind::Mongodb => hex,
    }
}

/// Text that does not compress well, so that PostgreSQL stores a long one out of line.
pub fn random_text(rng: &mut StdRng, length: usize) -> String {
    rng.sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

/// What quoting and encodings get wrong first.
pub const AWKWARD: [&str; 6] = ["it''s", "back\\slash", "žluťoučký kůň", "漢字 🐎", "tab\tand\nline", ""];
