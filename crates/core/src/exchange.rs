//! Rows that take unique values from each other, refused one by one: which of them a sink tries together.
//!
//! Some belong together, a circle of three say, and others stay refused whatever goes with them. A sink writes a group whole or
//! not at all, says which rows were refused, and is given the rest.

use crate::collapse::Version;
use crate::schema::{Schema, SchemaId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// After so many rounds, each without the rows that others stand in the way of, a group is tried by halves: a long chain of rows may
/// be stuck, and others beside it not.
const ROUNDS: usize = 3;

/// So many rows or fewer are worth as many rounds as they take.
const FEW: usize = 16;

/// How many rows are tried in all of that. What is left then waits as refused rows do.
pub const TRIES: usize = 20_000;

/// Refused versions, those of one table in the order of their writes.
pub type Group = Vec<(Arc<Schema>, Version)>;

/// In the order of the first write of each table.
pub fn by_table(versions: Group) -> Vec<Group> {
    let mut groups: HashMap<SchemaId, Group> = HashMap::new();
    for (schema, version) in versions {
        groups.entry(schema.id).or_default().push((schema, version));
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by_key(|(_, version)| version.write);
    }
    groups.sort_by_key(|group| group.first().map(|(_, version)| version.write));
    groups
}

/// What is left to try of one table.
pub struct Trials {
    waiting: Vec<Trial>,
    tries: usize,
}

/// A group that is to be written whole or not at all.
pub struct Trial {
    pub group: Group,
    rounds: usize,
}

impl Trials {
    pub fn new(group: Group) -> Self {
        let tries = TRIES.max(group.len());
        Self { waiting: vec![Trial { group, rounds: 0 }], tries }
    }

    /// The next group; None where nothing is left that a try may help.
    pub fn take(&mut self) -> Option<Trial> {
        while let Some(trial) = self.waiting.pop() {
            if !trial.group.is_empty() && trial.group.len() <= self.tries {
                self.tries -= trial.group.len();
                return Some(Trial { rounds: trial.rounds + 1, ..trial });
            }
        }
        None
    }

    /// Takes back a group that could not be written for these writes of it.
    pub fn refused(&mut self, mut trial: Trial, writes: &HashSet<usize>) {
        trial.group.retain(|(_, version)| !writes.contains(&version.write));
        if trial.rounds < ROUNDS || trial.group.len() <= FEW {
            self.waiting.push(trial);
            return;
        }
        let rest = trial.group.split_off(trial.group.len() / 2);
        // A row by itself has been refused already.
        let halves = [rest, trial.group].into_iter().filter(|half| half.len() > 1);
        self.waiting.extend(halves.map(|group| Trial { group, rounds: 0 }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collapse::Effect;
    use crate::name::TableName;
    use crate::row::RowBuilder;
    use crate::schema::Column;
    use crate::types::{ColumnType, Engine};
    use crate::value::{Cell, Value};
    use std::ops::Range;

    fn schema(table: &str) -> Arc<Schema> {
        let id = Column {
            name: "id".to_owned(),
            kind: ColumnType::Int { bits: 64, unsigned: false },
            type_name: "bigint".to_owned(),
            nullable: false,
            generated: false,
        };
        Arc::new(Schema::new(TableName::new(table), Engine::Mysql, vec![id], vec![0]))
    }

    fn group(schema: &Arc<Schema>, writes: Range<usize>) -> Group {
        let version = |write: usize| {
            let mut row = RowBuilder::default();
            row.push(Cell::Present(Value::Int(write as i64)));
            let row = row.finish();
            let key = schema.key_of(&row).unwrap();
            let version = Version { effect: Effect::Update, key, row: Some(row), write, fresh: false, parked: false };
            (schema.clone(), version)
        };
        writes.map(version).collect()
    }

    fn writes(group: &Group) -> Vec<usize> {
        group.iter().map(|(_, version)| version.write).collect()
    }

    /// Tries until nothing is left, where a write is refused unless the one that it needs is in its group; returns what was
    /// written and how many rows were tried.
    fn tried(count: usize, needs: impl Fn(usize) -> Option<usize>) -> (Vec<usize>, usize) {
        let (mut trials, mut written, mut rows) = (Trials::new(group(&schema("t"), 0..count)), Vec::new(), 0);
        while let Some(trial) = trials.take() {
            rows += trial.group.len();
            let here = writes(&trial.group);
            let fits = |write: &&usize| needs(**write).is_some_and(|other| here.contains(&other));
            let refused: HashSet<usize> = here.iter().filter(|write| !fits(write)).copied().collect();
            if refused.is_empty() {
                written.extend(here);
            } else {
                trials.refused(trial, &refused);
            }
        }
        written.sort_unstable();
        (written, rows)
    }

    #[test]
    fn a_circle_is_written_without_the_rows_that_stay_refused() {
        let (written, _) = tried(6, |write| [Some(1), Some(2), Some(0), None, Some(3), Some(3)][write]);
        assert_eq!(written, [0, 1, 2]);
    }

    #[test]
    fn a_pair_is_written_beside_a_chain_that_is_longer_than_the_rounds() {
        // 0 to 9: each needs the next one, and the last one stays refused.
        let (written, _) = tried(12, |write| match write {
            9 => None,
            10 => Some(11),
            11 => Some(10),
            _ => Some(write + 1),
        });
        assert_eq!(written, [10, 11]);
    }

    #[test]
    fn trials_end() {
        assert_eq!(tried(2_000, |_| None).0, [0; 0]);
        let (written, rows) = tried(8_000, |write| Some(write + 1));
        assert!(written.is_empty() && rows <= TRIES, "{rows}");
        let (written, rows) = tried(TRIES + 1, |write| Some(write ^ 1));
        assert_eq!((written.len(), rows), (0, TRIES + 1), "the last one has no partner, and the rest is too many");
    }

    #[test]
    fn groups_are_of_one_table_and_in_the_order_of_writes() {
        let (one, other) = (schema("one"), schema("other"));
        let mixed = [group(&other, 3..4), group(&one, 1..2), group(&other, 0..1), group(&one, 2..3)].concat();
        let groups = by_table(mixed);
        assert_eq!(groups.iter().map(writes).collect::<Vec<_>>(), [vec![0, 3], vec![1, 2]]);
    }
}
