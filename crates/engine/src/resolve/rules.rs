//! How a table decides between two versions, and how it merges their columns.

use super::version::{Event, Member, Origin, Version, VersionId};
use std::cmp::Reverse;
use sync_worker_core::guard::Image;
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::rules::TwoWayMember;
pub use sync_worker_core::rules::{OnDelete, Strategy};
use sync_worker_core::value::{Cell, Damaged, Value};

/// The rules of one table.
#[derive(Clone, Debug)]
pub struct Rules {
    pub strategy: Strategy,
    pub on_delete: OnDelete,
    /// Columns are merged.
    pub merge: Option<Columns>,
    /// The members, first the one that wins a tie: by the higher priority, then by the name that sorts first.
    pub ranks: Vec<Member>,
}

/// How the columns of a row are merged: one by one, but for those of a group.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// By place: it adds up what each member added to it (`delta`).
    pub delta: Vec<bool>,
    pub groups: Vec<Group>,
}

/// Columns that are merged as one.
#[derive(Clone, Debug)]
pub struct Group {
    /// Places.
    pub columns: Vec<usize>,
    pub strategy: Strategy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    Held,
    Event,
}

/// What a decision looks at of a version.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub deleted: bool,
    /// Microseconds since 1970-01-01 UTC by the clock of its origin.
    pub commit_time: i64,
    /// Its place as [`rank`] has it.
    pub rank: usize,
}

/// Whether it is a delete against a change, about which no strategy is asked.
pub fn delete_decides(on_delete: OnDelete, one_deleted: bool, other_deleted: bool) -> bool {
    one_deleted != other_deleted && on_delete != OnDelete::ByStrategy
}

/// Which of two versions stays.
pub fn winner(strategy: Strategy, on_delete: OnDelete, held: Facts, event: Facts) -> Winner {
    let event_if = |wins: bool| if wins { Winner::Event } else { Winner::Held };
    if delete_decides(on_delete, held.deleted, event.deleted) {
        return event_if(event.deleted == (on_delete == OnDelete::DeleteWins));
    }
    match strategy {
        Strategy::Timestamp => {
            event_if((Reverse(event.commit_time), event.rank) < (Reverse(held.commit_time), held.rank))
        }
        Strategy::FirstWrite => event_if((event.commit_time, event.rank) < (held.commit_time, held.rank)),
        Strategy::Priority => event_if(event.rank < held.rank),
        Strategy::Reject | Strategy::Manual => Winner::Held,
    }
}

/// The members, first the one that wins a tie.
pub fn ranks(members: &[TwoWayMember]) -> Vec<Member> {
    let mut ranks: Vec<_> = members.iter().enumerate().collect();
    ranks.sort_by(|(_, one), (_, other)| {
        (Reverse(one.priority), &one.name).cmp(&(Reverse(other.priority), &other.name))
    });
    ranks.iter().filter_map(|(place, _)| u8::try_from(*place).ok()).map(Member).collect()
}

/// A member's place among all. Behind them for a person's version: it was decided over what was there, and a write that
/// it did not see is newer.
pub fn rank<T: PartialEq>(ranks: &[T], by: Option<&T>) -> usize {
    by.and_then(|by| ranks.iter().position(|member| member == by)).unwrap_or(ranks.len())
}

impl Rules {
    pub fn winner(&self, held: &Version, event: &Version) -> Winner {
        self.winner_by(self.strategy, held, event)
    }

    fn winner_by(&self, strategy: Strategy, held: &Version, event: &Version) -> Winner {
        winner(strategy, self.on_delete, self.facts(held), self.facts(event))
    }

    fn facts(&self, version: &Version) -> Facts {
        Facts { deleted: version.row.is_none(), commit_time: version.commit_time, rank: self.rank(version) }
    }

    fn rank(&self, version: &Version) -> usize {
        rank(&self.ranks, version.by.as_ref())
    }

    fn first_of(&self, one: &Version, other: &Version) -> Option<Member> {
        if self.rank(other) < self.rank(one) { other.by } else { one.by }
    }
}

/// Columns merged into one row.
pub struct Merged {
    pub version: Version,
    /// Columns that both sides had changed, each with who won it.
    pub contested: Vec<(usize, Winner)>,
}

/// Why columns can't be merged: the versions then stand against each other as a whole.
pub enum Unmergeable {
    Damaged(Damaged),
    /// A counter left the range of its type.
    Overflow,
}

impl From<Damaged> for Unmergeable {
    fn from(damaged: Damaged) -> Self {
        Unmergeable::Damaged(damaged)
    }
}

/// The held row with what the event changed. An event changes the columns in which its before and after differ: a counter
/// gets what was added, another column is contested if the held value differs from the event's before and after, the rest
/// is taken. So it is with a group, by all of its columns together.
pub fn merge(
    held: &Version,
    event: &Event,
    rows: [&Row; 3],
    rules: &Rules,
    columns: &Columns,
    at: Offset,
) -> Result<Merged, Unmergeable> {
    let mut contested = Vec::new();
    let grouped = match columns.groups.is_empty() {
        true => Vec::new(),
        false => grouped(held, event, rows, rules, columns, &mut contested)?,
    };
    let mut builder = RowBuilder::default();
    let [kept, before, after] = rows;
    let triples = kept.cells().zip(before.cells()).zip(after.cells());
    for (column, ((kept, before), after)) in triples.enumerate() {
        let (kept, before, after) = (kept?, before?, after?);
        let of_group = grouped.get(column).copied().flatten();
        let cell = if of_group == Some(Winner::Held) {
            kept
        } else if of_group == Some(Winner::Event) {
            after
        } else if before == after || after == Cell::Unchanged {
            kept
        } else if columns.delta.get(column).copied().unwrap_or(false) {
            match add(kept, before, after)? {
                Some(sum) => {
                    builder.push(sum.cell());
                    continue;
                }
                None => after,
            }
        } else if kept == before || kept == after {
            after
        } else {
            let winner = rules.winner(held, &event.version);
            contested.push((column, winner));
            match winner {
                Winner::Event => after,
                Winner::Held => kept,
            }
        };
        builder.push(cell);
    }
    contested.sort_unstable_by_key(|(column, _)| *column);
    let row = builder.finish();
    let version = Version {
        id: VersionId::Merged(at),
        key: held.key.clone(),
        origin: Origin::Merge,
        by: rules.first_of(held, &event.version),
        commit_time: held.commit_time.max(event.version.commit_time),
        image: Image::of(Some(&row)),
        row: Some(row),
        read: false,
    };
    Ok(Merged { version, contested })
}

/// For each column of a group, whose values the group has.
fn grouped(
    held: &Version,
    event: &Event,
    rows: [&Row; 3],
    rules: &Rules,
    columns: &Columns,
    contested: &mut Vec<(usize, Winner)>,
) -> Result<Vec<Option<Winner>>, Damaged> {
    let [kept, before, after] = rows.map(|row| row.cells().collect::<Result<Vec<_>, _>>());
    let (kept, before, after) = (kept?, before?, after?);
    let mut winners = vec![None; kept.len()];
    for group in &columns.groups {
        let alike =
            |one: &[Cell<'_>], other: &[Cell<'_>]| group.columns.iter().all(|at| one.get(*at) == other.get(*at));
        let winner = if alike(&before, &after) {
            Winner::Held
        } else if alike(&kept, &before) || alike(&kept, &after) {
            Winner::Event
        } else {
            let winner = rules.winner_by(group.strategy, held, &event.version);
            let differ = group.columns.iter().filter(|at| kept.get(**at) != after.get(**at));
            contested.extend(differ.map(|at| (*at, winner)));
            winner
        };
        for at in &group.columns {
            if let Some(place) = winners.get_mut(*at) {
                *place = Some(winner);
            }
        }
    }
    Ok(winners)
}

/// A sum, as the kind of value that its column has.
enum Sum {
    Integer(i128),
    Decimal(String),
}

impl Sum {
    fn cell(&self) -> Cell<'_> {
        Cell::Present(match self {
            Sum::Integer(sum) => match i64::try_from(*sum) {
                Ok(sum) => Value::Int(sum),
                // `add` has seen that it fits.
                Err(_) => Value::UInt(u64::try_from(*sum).unwrap_or(u64::MAX)),
            },
            Sum::Decimal(text) => Value::Decimal(text),
        })
    }
}

/// kept + (after - before); None where one of them is no number, such as NULL: the event's value is taken then.
fn add(kept: Cell<'_>, before: Cell<'_>, after: Cell<'_>) -> Result<Option<Sum>, Unmergeable> {
    let integer = |cell| match cell {
        Cell::Present(Value::Int(value)) => Some(i128::from(value)),
        Cell::Present(Value::UInt(value)) => Some(i128::from(value)),
        Cell::Present(_) | Cell::Unchanged => None,
    };
    if let (Some(kept), Some(before), Some(after)) = (integer(kept), integer(before), integer(after)) {
        let sum = kept + after - before;
        let fits = i64::try_from(sum).is_ok() || u64::try_from(sum).is_ok();
        return if fits { Ok(Some(Sum::Integer(sum))) } else { Err(Unmergeable::Overflow) };
    }
    let decimal = |cell| match cell {
        Cell::Present(Value::Decimal(text)) => Scaled::parse(text),
        Cell::Present(_) | Cell::Unchanged => None,
    };
    let (Some(kept), Some(before), Some(after)) = (decimal(kept), decimal(before), decimal(after)) else {
        return Ok(None);
    };
    let scale = kept.scale.max(before.scale).max(after.scale);
    let at = |number: &Scaled| number.to(scale).ok_or(Unmergeable::Overflow);
    let change = at(&after)?.checked_sub(at(&before)?).ok_or(Unmergeable::Overflow)?;
    let sum = at(&kept)?.checked_add(change).ok_or(Unmergeable::Overflow)?;
    Ok(Some(Sum::Decimal(Scaled { digits: sum, scale }.to_string())))
}

/// A decimal number of at most 38 digits.
struct Scaled {
    digits: i128,
    scale: u32,
}

impl Scaled {
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits, scale: u32::try_from(fraction.len()).ok()? })
    }

    fn to(&self, scale: u32) -> Option<i128> {
        self.digits.checked_mul(10i128.checked_pow(scale - self.scale)?)
    }
}

impl std::fmt::Display for Scaled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = self.digits.unsigned_abs().to_string();
        let scale = self.scale as usize;
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if scale > 0 { "." } else { "" };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

/// The rows of a merge, where all three are there.
pub fn rows<'a>(held: &'a Version, event: &'a Event) -> Option<[&'a Row; 3]> {
    Some([held.row.as_ref()?, event.before.as_ref()?, event.version.row.as_ref()?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::key::RowKey;
    use std::sync::Arc;
    use sync_worker_core::row::Key;

    fn sum(kept: Value<'_>, before: Value<'_>, after: Value<'_>) -> Option<String> {
        let cell = Cell::Present;
        match add(cell(kept), cell(before), cell(after)) {
            Ok(Some(sum)) => Some(match sum.cell() {
                Cell::Present(Value::Int(sum)) => sum.to_string(),
                Cell::Present(Value::UInt(sum)) => format!("u{sum}"),
                Cell::Present(Value::Decimal(sum)) => sum.to_owned(),
                other => panic!("{other:?}"),
            }),
            Ok(None) => None,
            Err(_) => Some("overflow".to_owned()),
        }
    }

    #[test]
    fn what_was_added_is_added_exactly() {
        let int = Value::Int;
        assert_eq!(sum(int(10), int(3), int(1)).as_deref(), Some("8"));
        assert_eq!(sum(int(i64::MAX), int(0), int(1)).as_deref(), Some("u9223372036854775808"));
        assert_eq!(sum(Value::UInt(u64::MAX), int(0), int(1)).as_deref(), Some("overflow"));
        let decimal = Value::Decimal;
        assert_eq!(sum(decimal("0.05"), decimal("1.50"), decimal("1.4")).as_deref(), Some("-0.05"));
        assert_eq!(sum(decimal("99.99"), decimal("0"), decimal("0.01")).as_deref(), Some("100.00"));
        assert_eq!(sum(decimal("NaN"), decimal("0"), decimal("0.01")), None);
        assert_eq!(sum(Value::Null, int(0), int(1)), None);
    }

    fn version(origin: u8, value: i64) -> Version {
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(value)));
        let row = builder.finish();
        Version {
            id: VersionId::Record(Offset(u64::from(origin))),
            key: RowKey::new("t".into(), Key::from_bytes(row.as_bytes().clone())),
            origin: Origin::Member(Member(origin)),
            by: Some(Member(origin)),
            commit_time: 0,
            image: Image::of(Some(&row)),
            row: Some(row),
            read: false,
        }
    }

    #[test]
    fn a_counter_that_would_leave_its_range_is_not_merged() {
        let (held, before) = (version(0, i64::MAX), version(1, 0));
        let ranks = vec![Member(0), Member(1)];
        let rules = Rules { strategy: Strategy::Timestamp, on_delete: OnDelete::ByStrategy, merge: None, ranks };
        let counter = Columns { delta: vec![true], ..Columns::default() };
        let merged = |after: i64| {
            let event =
                Event { version: Arc::new(version(1, after)), before: before.row.clone(), before_image: before.image };
            let rows = rows(&held, &event).unwrap();
            merge(&held, &event, rows, &rules, &counter, Offset(7)).map(|merged| merged.version.row)
        };
        assert_eq!(merged(-1).ok().flatten(), version(0, i64::MAX - 1).row);
        let held = Version { row: version(0, -1).row, ..version(0, -1) };
        let event =
            Event { version: Arc::new(version(1, i64::MIN)), before: before.row.clone(), before_image: before.image };
        let rows = rows(&held, &event).unwrap();
        assert!(matches!(merge(&held, &event, rows, &rules, &counter, Offset(7)), Err(Unmergeable::Overflow)));
    }
}
