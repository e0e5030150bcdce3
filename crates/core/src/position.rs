//! Where a change stands in its source.
//!
//! Positions of one source are comparable and strictly increasing as long as its [`Epoch`] stays the same. A position
//! is at row grain; the resume point of a source is a [`Checkpoint`], always at a commit boundary.

use std::fmt;
use std::str::FromStr;

/// A PostgreSQL log sequence number, printed as `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| invalid())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| invalid())?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a position: {0:?}")]
pub struct InvalidPosition(String);

/// A row change of PostgreSQL: its transaction's commit LSN, then its place among that transaction's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostgresPosition {
    pub commit: Lsn,
    pub ordinal: u64,
}

/// A row change of MySQL: the number of the binlog file, the offset of its transaction's first event in that file, then
/// its place among that transaction's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MysqlPosition {
    pub file: u64,
    pub offset: u64,
    pub ordinal: u64,
}

/// A row change of MongoDB: the cluster time of its event, then its place among the events of that time, which those of
/// a transaction share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MongodbPosition {
    pub seconds: u32,
    pub increment: u32,
    pub ordinal: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    Postgres(PostgresPosition),
    Mysql(MysqlPosition),
    Mongodb(MongodbPosition),
}

impl Position {
    /// The position of the `ordinal`th row of the same transaction.
    pub fn with_ordinal(self, ordinal: u64) -> Self {
        match self {
            Position::Postgres(p) => Position::Postgres(PostgresPosition { ordinal, ..p }),
            Position::Mysql(p) => Position::Mysql(MysqlPosition { ordinal, ..p }),
            Position::Mongodb(p) => Position::Mongodb(MongodbPosition { ordinal, ..p }),
        }
    }

    pub fn ordinal(self) -> u64 {
        match self {
            Position::Postgres(p) => p.ordinal,
            Position::Mysql(p) => p.ordinal,
            Position::Mongodb(p) => p.ordinal,
        }
    }

    /// Above every row of the same transaction and below every later transaction.
    pub fn end_of_transaction(self) -> Self {
        self.with_ordinal(u64::MAX)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Postgres(p) => write!(f, "{}", p.commit)?,
            Position::Mysql(p) => write!(f, "{:06}:{}", p.file, p.offset)?,
            Position::Mongodb(p) => write!(f, "@{}.{}", p.seconds, p.increment)?,
        }
        match self.ordinal() {
            u64::MAX => Ok(()),
            ordinal => write!(f, "+{ordinal}"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.to_owned());
        let (place, ordinal) = match text.split_once('+') {
            Some((place, ordinal)) => (place, ordinal.parse().map_err(|_| invalid())?),
            None => (text, u64::MAX),
        };
        if let Some(time) = place.strip_prefix('@') {
            let (seconds, increment) = time.split_once('.').ok_or_else(invalid)?;
            let seconds = seconds.parse().map_err(|_| invalid())?;
            let increment = increment.parse().map_err(|_| invalid())?;
            return Ok(Position::Mongodb(MongodbPosition { seconds, increment, ordinal }));
        }
        if let Some((file, offset)) = place.split_once(':') {
            let file = file.parse().map_err(|_| invalid())?;
            let offset = offset.parse().map_err(|_| invalid())?;
            return Ok(Position::Mysql(MysqlPosition { file, offset, ordinal }));
        }
        Ok(Position::Postgres(PostgresPosition { commit: place.parse()?, ordinal }))
    }
}

/// The identity of a source within which its positions may be compared: system identifier and timeline of a PostgreSQL
/// server, server UUID of a MySQL server, replica set of a MongoDB database. A stored position under another epoch is a
/// GAP, never resumed (invariant 8), unless the database [follows](crate::database::Database::follow) it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub String);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place to resume at: everything up to `position`, a commit boundary, has been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub epoch: Epoch,
    pub position: Position,
    /// What the source itself needs to resume: an LSN, or a GTID set with its gaps. Only that adapter reads it.
    pub resume: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_through_text() {
        for text in ["16/B374D848+3", "0/1", "000012:4+0", "000001:157", "@1700000000.3+0", "@1700000000.3"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        for text in ["", "x", "1/2/3", "1:2:3", "@1", "@1.x", "1/x+2", "0/0+-1"] {
            assert!(text.parse::<Position>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_transaction_ends_above_its_rows_and_below_the_next() {
        let first: Position = "0/10+7".parse().unwrap();
        let next: Position = "0/11+0".parse().unwrap();
        assert!(first < first.end_of_transaction() && first.end_of_transaction() < next);
    }
}
