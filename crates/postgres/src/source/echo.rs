//! Our own transactions in a member's stream, known by the marker that they carry (invariant 4).

use crate::codec::unhex;
use crate::error::Error;
use crate::own::{Owner, PARKED, PROGRESS, SCHEMA};
use crate::source::pgoutput::{Field, Old, Relation, Tuple};
use crate::source::relation::malformed;
use bytes::Bytes;
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho, WRITTEN};
use sync_worker_core::guard::Seen;
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;

/// One of our tables as a relation message describes it.
#[derive(Debug)]
pub struct OwnTable {
    progress: bool,
    /// Where each of the columns that are read stands.
    places: Vec<usize>,
}

const OWNER: [&str; 4] = ["installation", "pipeline", "database", "partition"];
const OF_PROGRESS: [&str; 5] = [OWNER[0], OWNER[1], OWNER[2], OWNER[3], "offset"];
const OF_PARKED: [&str; 9] = [OWNER[0], OWNER[1], OWNER[2], OWNER[3], "offset", "table_name", "key", "reason", "seen"];

/// The columns of a row that are read; NULL as None.
type Columns<'a> = Vec<Option<&'a [u8]>>;

impl OwnTable {
    /// None for a table that is none of ours.
    pub fn of(relation: &Relation<'_>) -> Result<Option<Self>, Error> {
        let (progress, wanted) = match (relation.schema, relation.table) {
            (SCHEMA, PROGRESS) => (true, &OF_PROGRESS[..]),
            (SCHEMA, PARKED) => (false, &OF_PARKED[..]),
            _ => return Ok(None),
        };
        let columns = relation.columns().map_err(malformed)?;
        let place = |name: &&str| columns.iter().position(|column| column.name == *name);
        let places: Option<Vec<usize>> = wanted.iter().map(place).collect();
        let places = places.ok_or_else(|| {
            Error::Fatal(format!("table {SCHEMA}.{} has not the columns that it was made with", relation.table))
        })?;
        Ok(Some(Self { progress, places }))
    }

    /// Follows a change of one of our rows. Rows of other owners say nothing. Returns the bytes that are kept of it.
    pub fn follow(
        &self,
        owner: &Owner,
        old: Option<&Old<'_>>,
        new: Option<Tuple<'_>>,
        echo: &mut Option<Echo>,
    ) -> Result<usize, Error> {
        let old = old.filter(|old| old.full).map(|old| old.tuple);
        let old_columns = old.map(|tuple| self.columns(tuple, None)).transpose()?;
        let new_columns = new.map(|tuple| self.columns(tuple, old)).transpose()?;
        let ours = |columns: &Columns<'_>| is_of(columns, owner);
        let Some(either) = new_columns.as_ref().or(old_columns.as_ref()) else { return Ok(0) };
        if !ours(either) {
            return Ok(0);
        }
        if self.progress {
            let offset = new_columns.and_then(|columns| columns[4]).map(offset).transpose()?;
            echo.get_or_insert_default().offset = offset;
            return Ok(0);
        }
        // Nobody parks keys without moving the marker.
        let Some(echo) = echo else { return Ok(0) };
        let mut kept = 0;
        if let Some(columns) = &old_columns {
            let (table, key) = name(columns)?;
            let marked = |columns: &Columns<'_>| columns[7] == Some(WRITTEN.as_bytes());
            let written = new_columns.as_ref().is_some_and(marked);
            if !marked(columns) {
                kept += key.as_bytes().len();
                echo.unparked.push(UnparkedEcho { table, key, written });
            }
            if written {
                return Ok(kept);
            }
        }
        if let Some(columns) = &new_columns {
            let (table, key) = name(columns)?;
            kept += key.as_bytes().len();
            let offset =
                columns[4].map(offset).transpose()?.ok_or(Error::Protocol("a parked row without an offset"))?;
            // People may have written to the table: what can't be read differs all the same.
            let seen = |text| bytea(text).ok().and_then(|bytes| Seen::from_bytes(&bytes).ok());
            let seen = columns[8].map(|text| seen(text).unwrap_or(Seen::UNKNOWN));
            kept += seen.as_ref().map_or(0, Seen::size);
            echo.parked.push(ParkedEcho { table, key, offset, seen });
        }
        Ok(kept)
    }

    /// The columns that are read. A stored value that an update did not touch is the old row's.
    fn columns<'a>(&self, tuple: Tuple<'a>, old: Option<Tuple<'a>>) -> Result<Columns<'a>, Error> {
        let fields = |tuple: Tuple<'a>| tuple.fields().collect::<Result<Vec<_>, _>>().map_err(malformed);
        let (new, old) = (fields(tuple)?, old.map(fields).transpose()?);
        let field = |place: &usize| match new.get(*place) {
            Some(Field::Text(text)) => Ok(Some(*text)),
            Some(Field::Unchanged) => match old.as_ref().and_then(|old| old.get(*place)) {
                Some(Field::Text(text)) => Ok(Some(*text)),
                Some(Field::Null) => Ok(None),
                Some(Field::Unchanged) | None => Err(Error::Protocol("a row of ours lacks a column")),
            },
            Some(Field::Null) => Ok(None),
            None => Err(Error::Protocol("a row of ours lacks a column")),
        };
        self.places.iter().map(field).collect()
    }
}

fn is_of(columns: &Columns<'_>, owner: &Owner) -> bool {
    let partition = owner.partition.0.to_string();
    let wanted = [&owner.installation, &owner.pipeline, &owner.database, &partition];
    wanted.into_iter().zip(columns).all(|(wanted, column)| *column == Some(wanted.as_bytes()))
}

fn offset(text: &[u8]) -> Result<Offset, Error> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.map(|number| Offset(number.cast_unsigned())).ok_or(Error::Protocol("a strange offset"))
}

fn name(columns: &Columns<'_>) -> Result<(TableName, Key), Error> {
    let strange = || Error::Protocol("a strange parked row");
    let table = columns[5].and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(strange)?;
    let key = bytea(columns[6].ok_or_else(strange)?)?;
    Ok((TableName::new(table), Key::from_bytes(Bytes::from(key))))
}

fn bytea(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let digits = text.strip_prefix(b"\\x");
    digits.and_then(|digits| unhex(digits, &mut bytes)).ok_or(Error::Protocol("a strange parked row"))?;
    Ok(bytes)
}
