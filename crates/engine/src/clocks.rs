//! Members' clocks, where commit times decide about conflicts.
//!
//! No clock says whether writes conflict, but `timestamp` and `first_write` ask which of two was later. Where clocks go apart
//! further than a pipeline allows (`clock_limit`), it goes by priorities until they are near again. That is a configuration
//! record like any other (invariant 6): it takes effect at its offset, for every applier alike.

use crate::pipeline::{Plan, Resolution};
use std::time::Duration;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::rules::{Strategy, TwoWay};

/// How often they are looked at where there is a limit.
pub const LOOK: Duration = Duration::from_secs(30);

/// Two members whose clocks are the furthest apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    pub slow: DatabaseName,
    pub fast: DatabaseName,
    /// Microseconds.
    pub by: i64,
}

impl Apart {
    #[allow(clippy::cast_precision_loss)] // no exact figure
    pub fn seconds(&self) -> f64 {
        self.by as f64 / 1e6
    }
}

/// Of clocks as microseconds ahead of this machine's. None where fewer than two tell.
pub fn apart(clocks: &[(i64, DatabaseName)]) -> Option<Apart> {
    let ((earliest, slow), (latest, fast)) = (clocks.iter().min()?, clocks.iter().max()?);
    (clocks.len() > 1).then(|| Apart { slow: slow.clone(), fast: fast.clone(), by: latest - earliest })
}

/// Whether commit times decide about rows of some table, or about a group of its columns.
pub fn decide(plan: &Plan) -> bool {
    plan.tables.iter().any(|table| decide_about(&table.resolution))
}

fn decide_about(resolution: &Resolution) -> bool {
    let groups = resolution.merge.iter().flat_map(|merge| &merge.groups).map(|group| group.strategy);
    resolution.timestamp_column.is_none() && std::iter::once(resolution.strategy).chain(groups).any(is_of_time)
}

fn is_of_time(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Timestamp | Strategy::FirstWrite)
}

/// The rules without clocks: what goes by commit times goes by priorities.
pub fn by_priority(mut rules: TwoWay) -> TwoWay {
    for table in rules.tables.iter_mut().filter(|table| table.timestamp_column.is_none()) {
        let groups = table.merge.iter_mut().flat_map(|merge| &mut merge.groups).map(|group| &mut group.strategy);
        let strategies = std::iter::once(&mut table.strategy).chain(groups);
        strategies.filter(|strategy| is_of_time(**strategy)).for_each(|strategy| *strategy = Strategy::Priority);
    }
    rules
}

/// Whether clocks that are so far apart are trusted no more, or again: clocks about the limit do not change that to and fro.
pub fn are_off(apart: &Apart, limit: Duration, were_off: bool) -> bool {
    let by = u128::try_from(apart.by).unwrap_or(0);
    if were_off { by > limit.as_micros() / 2 } else { by > limit.as_micros() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::rules::{ColumnGroup, Merge, OnDelete, TableRules};
    use sync_worker_testkit::memory::schema;

    #[test]
    fn clocks_are_off_beyond_the_limit_until_they_are_near_again() {
        let clocks = |by: i64| apart(&[(5, "b".into()), (by + 5, "a".into()), (7, "c".into())]).unwrap();
        assert_eq!(clocks(9), Apart { slow: "b".into(), fast: "a".into(), by: 9 });
        let limit = Duration::from_micros(100);
        let off = |by, were_off| are_off(&clocks(by), limit, were_off);
        assert_eq!(
            [off(100, false), off(101, false), off(100, true), off(51, true), off(50, true)],
            [false, true, true, true, false]
        );
        assert_eq!(apart(&[(5, "b".into())]), None);
    }

    #[test]
    fn what_goes_by_commit_times_goes_by_priority_and_nothing_else_does() {
        let group = |strategy| ColumnGroup { columns: vec!["note".to_owned()], strategy };
        let table = |strategy, timestamp_column: Option<&str>| TableRules {
            schema: schema("t"),
            strategy,
            on_delete: OnDelete::ByStrategy,
            merge: Some(Merge {
                delta: Vec::new(),
                groups: vec![group(Strategy::FirstWrite), group(Strategy::Manual)],
            }),
            timestamp_column: timestamp_column.map(str::to_owned),
            document: Default::default(),
        };
        let by_column = table(Strategy::Timestamp, Some("at"));
        let tables = vec![table(Strategy::Timestamp, None), table(Strategy::Reject, None), by_column.clone()];
        let rules = by_priority(TwoWay { members: Vec::new(), tables, merged_seeds: false });
        let merge =
            |table: &TableRules| table.merge.as_ref().unwrap().groups.iter().map(|group| group.strategy).collect();
        let found: Vec<(Strategy, Vec<Strategy>)> =
            rules.tables.iter().map(|table| (table.strategy, merge(table))).collect();
        let groups = vec![Strategy::Priority, Strategy::Manual];
        assert_eq!(found[..2], [(Strategy::Priority, groups.clone()), (Strategy::Reject, groups)]);
        assert_eq!(rules.tables[2], by_column);
    }
}
