//! What an applier takes from the bus: every record of an origin once and without a hole (invariant 3).

use crate::failure::EngineError;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::Position;
use sync_worker_core::record::Record;

/// The last position taken of each origin.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    last: Vec<(DatabaseName, Position)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    Duplicate,
}

impl Sequence {
    /// Starts behind a record that was taken in an earlier life.
    pub fn resume_after(&mut self, record: &Record) {
        self.set(record);
    }

    /// The same, from what is known of an origin.
    pub fn resume_at(&mut self, origin: DatabaseName, position: Position) {
        self.last.push((origin, position));
    }

    /// The last position taken of each origin.
    pub fn taken(&self) -> impl Iterator<Item = (&DatabaseName, Position)> {
        self.last.iter().map(|(origin, position)| (origin, *position))
    }

    /// Whether a record is new. A record that names a previous one that was not taken is a GAP: the producer lost one.
    pub fn check(&mut self, record: &Record) -> Result<Verdict, EngineError> {
        // It has no place in any stream, and is told from others by what it says.
        if record.is_of_nobody() {
            return Ok(Verdict::Take);
        }
        let Some((_, last)) = self.last.iter().find(|(origin, _)| *origin == record.origin) else {
            self.set(record);
            return Ok(Verdict::Take);
        };
        if record.previous == Some(*last) {
            self.set(record);
            return Ok(Verdict::Take);
        }
        if record.position <= *last {
            return Ok(Verdict::Duplicate);
        }
        let previous = record.previous.map_or_else(|| "nothing".to_owned(), |position| position.to_string());
        Err(EngineError::Gap(format!(
            "the bus lost records of {}: {} follows {previous}, but the last one taken is {last}; take a new snapshot",
            record.origin, record.position
        )))
    }

    /// As it was before a record that was taken last of its origin.
    pub fn take_back(&mut self, record: &Record) {
        if record.is_of_nobody() {
            return;
        }
        self.last.retain_mut(|(origin, last)| {
            if *origin != record.origin {
                return true;
            }
            *last = record.previous.unwrap_or(*last);
            record.previous.is_some()
        });
    }

    fn set(&mut self, record: &Record) {
        match self.last.iter_mut().find(|(origin, _)| *origin == record.origin) {
            Some((_, last)) => *last = record.position,
            None => self.last.push((record.origin.clone(), record.position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::record::Body;

    fn record(position: &str, previous: Option<&str>) -> Record {
        Record {
            origin: DatabaseName::new("crm"),
            position: position.parse().unwrap(),
            previous: previous.map(|text| text.parse().unwrap()),
            transaction: None,
            last: true,
            commit_time: 0,
            body: Body::Commit,
        }
    }

    #[test]
    fn a_repeated_record_is_dropped_and_a_hole_is_a_gap() {
        let mut sequence = Sequence::default();
        let first = record("0/10+0", Some("0/1"));
        let second = record("0/10+1", Some("0/10+0"));
        let fourth = record("0/30+0", Some("0/20+0"));
        assert_eq!(sequence.check(&first).unwrap(), Verdict::Take);
        assert_eq!(sequence.check(&second).unwrap(), Verdict::Take);
        assert_eq!(sequence.check(&first).unwrap(), Verdict::Duplicate);
        assert_eq!(sequence.check(&second).unwrap(), Verdict::Duplicate);
        assert!(matches!(sequence.check(&fourth), Err(EngineError::Gap(_))));
    }

    #[test]
    fn snapshot_rows_do_not_move_the_position() {
        let mut sequence = Sequence::default();
        sequence.check(&record("0/10+0", Some("0/1"))).unwrap();
        let row = record("0/10+0", Some("0/10+0"));
        assert_eq!(sequence.check(&row).unwrap(), Verdict::Take);
        assert_eq!(sequence.check(&row).unwrap(), Verdict::Take);
        assert_eq!(sequence.check(&record("0/20+0", Some("0/10+0"))).unwrap(), Verdict::Take);
    }
}
