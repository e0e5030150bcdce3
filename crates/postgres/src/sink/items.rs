//! A batch as the statements that write it: one per table, kind and set of columns.

use super::encode::Array;
use super::plan::{NotEncoded, Plan};
use super::statement::{Kind, Mask};
use std::collections::{BTreeMap, HashMap, HashSet};
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Step, TableSet, Version};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::SchemaId;
use sync_worker_core::sink::{Refused, Write};
use sync_worker_core::value::Damaged;

/// Above this many bytes a statement is cut in two: far below what a message or an array can hold, and a bound on what
/// the server has to hold for one statement.
const STATEMENT_BYTES: usize = 64 << 20;

pub type Plans = HashMap<SchemaId, Plan>;

/// The rows of one statement.
pub struct Rows {
    pub schema: SchemaId,
    pub kind: Kind,
    pub mask: Mask,
    pub arrays: Vec<Array>,
    /// The index of the newest write of each row, in the order of the arrays' elements.
    pub writes: Vec<usize>,
    /// How many of a delete's rows need not be there.
    pub fresh: u64,
}

pub enum Item {
    Rows(Rows),
    /// Of several tables, in source order.
    Truncate(Vec<SchemaId>),
}

impl Item {
    /// Of a statement for rows.
    pub fn schema(&self) -> Option<SchemaId> {
        match self {
            Item::Rows(rows) => Some(rows.schema),
            Item::Truncate(_) => None,
        }
    }
}

/// Makes one of truncates that follow one another, in the place of the last: the tables of one `TRUNCATE` may refer to
/// each other.
pub fn join_truncates(steps: &mut [Vec<Item>]) {
    for at in 1..steps.len() {
        let [.., before, here] = &mut steps[..=at] else { continue };
        if let ([Item::Truncate(earlier)], [Item::Truncate(tables)]) = (before.as_mut_slice(), here.as_mut_slice()) {
            tables.splice(..0, std::mem::take(earlier));
            before.clear();
        }
    }
}

pub struct KeyChange<'a> {
    pub schema: SchemaId,
    pub row: &'a Row,
    pub old_key: &'a Key,
    pub write: usize,
}

/// How updates are told apart that find no row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Their statement fails.
    Fails,
    /// Their statement says which rows it found.
    Told,
}

/// Where the rows of one table stand among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Deletes, updates, inserts: a unique value is freed before it is taken. Foreign keys are not checked.
    Unique,
    /// Deletes (children first), inserts (parents first), updates: what an update refers to is there. Deletes that act on
    /// rows that refer to theirs come last, and their parents' behind them: at the source such a row may have been given another
    /// parent before.
    ForeignKeys,
}

pub struct Builder<'a> {
    pub plans: &'a Plans,
    pub missing: Missing,
    /// Inserts overwrite a row with their key.
    pub overwrite: bool,
    pub order: Order,
    /// The depth of each table below those that it refers to.
    pub ranks: &'a HashMap<SchemaId, usize>,
    /// Tables whose deletes come last where foreign keys are checked.
    pub last: &'a HashSet<SchemaId>,
    /// For writes that must meet a certain row, by their indexes: that row.
    pub there: &'a [Option<Row>],
    pub scratch: String,
    /// What can't be encoded, found before anything is sent.
    pub refused: Vec<Refused>,
    /// A write that no set-based statement can do.
    pub needs_row_by_row: bool,
    /// A row that is to be met is none that the target can hold.
    pub needs_look: bool,
    /// Rows that need no statement: updates of nothing.
    pub idle: u64,
}

impl Builder<'_> {
    pub fn step(&mut self, step: &Step, writes: &[Write], items: &mut Vec<Item>) -> Result<(), Damaged> {
        match step {
            Step::Set(sets) => self.sets(sets, items),
            Step::Alone(index) => {
                let change = &writes[*index].change;
                match change.op {
                    Op::Truncate => items.push(Item::Truncate(vec![change.schema.id])),
                    Op::Create | Op::Read | Op::Update | Op::Delete => {
                        let kind = match self.missing {
                            Missing::Fails => Kind::UpdateKeyAll,
                            Missing::Told => Kind::UpdateKey,
                        };
                        let (Some(row), Some(old_key)) = (&change.after, change.old_key()?) else {
                            return Err(Damaged("a changed key without both images"));
                        };
                        let schema = change.schema.id;
                        let refused = self.refused.len();
                        self.key_change(&KeyChange { schema, row, old_key: &old_key, write: *index }, kind, items)?;
                        if self.refused.len() > refused {
                            // The row has left its old key all the same.
                            self.refused.truncate(refused);
                            self.needs_row_by_row = true;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn sets(&mut self, sets: &[TableSet], items: &mut Vec<Item>) -> Result<(), Damaged> {
        // (place of the kind, place of the table) orders the statements; see [`Order`].
        let mut ordered: BTreeMap<(u8, usize, usize), Vec<Rows>> = BTreeMap::new();
        for (place, set) in sets.iter().enumerate() {
            let rank = self.ranks.get(&set.schema.id).copied().unwrap_or(0);
            let last = self.order == Order::ForeignKeys && self.last.contains(&set.schema.id);
            for rows in self.set(set)? {
                let (kind, rank) = match (rows.kind, self.order) {
                    (Kind::Delete | Kind::DeleteOver, _) if last => (4, usize::MAX - rank),
                    (Kind::Delete | Kind::DeleteOver, _) => (0, usize::MAX - rank),
                    (Kind::Insert | Kind::Upsert, _) => (2, rank),
                    (
                        Kind::UpdateAll | Kind::UpdateFound | Kind::UpdateOver | Kind::UpdateKeyAll | Kind::UpdateKey,
                        order,
                    ) => (if order == Order::Unique { 1 } else { 3 }, rank),
                };
                ordered.entry((kind, rank, place)).or_default().push(rows);
            }
        }
        items.extend(ordered.into_values().flatten().map(Item::Rows));
        Ok(())
    }

    fn set(&mut self, set: &TableSet) -> Result<Vec<Rows>, Damaged> {
        let mut groups: Vec<Rows> = Vec::new();
        for version in &set.versions {
            self.version(set.schema.id, version, &mut groups)?;
        }
        Ok(groups)
    }

    /// The kind of statement for a version; None where there is nothing to do.
    fn kind_of(&self, plan: &Plan, effect: Effect, mask: &Mask) -> Option<Kind> {
        Some(match effect {
            Effect::Insert if self.overwrite => Kind::Upsert,
            Effect::Insert => Kind::Insert,
            // A snapshot's row mostly goes where none is, and an insert costs less than an upsert: as long as everything is
            // tried at once, one that fails costs no more than the try.
            Effect::Upsert if plan.key_infers && !self.overwrite && self.missing == Missing::Fails => Kind::Insert,
            Effect::Upsert | Effect::Replace => Kind::Upsert,
            Effect::Delete => Kind::Delete,
            Effect::Update => {
                let nothing_to_set = match mask {
                    None => !plan.has_settable,
                    Some(_) => plan.included(mask).all(|at| plan.key.contains(&at)),
                };
                match (nothing_to_set, mask, self.missing) {
                    (true, None, _) => Kind::Upsert,
                    (true, Some(_), _) => return None,
                    (false, _, Missing::Fails) => Kind::UpdateAll,
                    (false, _, Missing::Told) => Kind::UpdateFound,
                }
            }
        })
    }

    /// Appends a version to the last group of its kind and columns.
    pub fn version(&mut self, schema: SchemaId, version: &Version, groups: &mut Vec<Rows>) -> Result<(), Damaged> {
        let Some(plan) = self.plans.get(&schema) else { return Err(Damaged("a row without a schema")) };
        let mask = match &version.row {
            Some(row) => plan.mask(row)?,
            None => None,
        };
        let there = self.there.get(version.write).and_then(Option::as_ref);
        let kind = match (there, version.effect) {
            (Some(_), Effect::Update) => Some(Kind::UpdateOver),
            (Some(_), Effect::Delete) => Some(Kind::DeleteOver),
            (Some(_) | None, effect) => self.kind_of(plan, effect, &mask),
        };
        let Some(kind) = kind else {
            self.idle += 1;
            return Ok(());
        };
        if let Some(reason) = incomplete(plan, kind, &mask) {
            self.refused.push(Refused { write: version.write, class: ErrorClass::Dependency, reason });
            return Ok(());
        }
        let at = groups.iter().rposition(|rows| rows.kind == kind && rows.mask == mask);
        let at = at.filter(|&at| groups[at].arrays.iter().map(Array::size).sum::<usize>() < STATEMENT_BYTES);
        let at = at.unwrap_or_else(|| {
            let arrays = plan.arrays(kind, &mask);
            groups.push(Rows { schema, kind, mask, arrays, writes: Vec::new(), fresh: 0 });
            groups.len() - 1
        });
        let rows = &mut groups[at];
        let (all, mark) = (rows.arrays.len(), rows.arrays.first().map_or(0, Array::len));
        let (set, old) = match kind {
            Kind::UpdateOver => rows.arrays.split_at_mut(all - plan.columns.len()),
            Kind::DeleteOver => rows.arrays.split_at_mut(0),
            _ => rows.arrays.split_at_mut(all),
        };
        if let (Some(there), false) = (there, old.is_empty())
            && let Err(not) = plan.push_row(there, old, &mut self.scratch)
        {
            self.needs_look = true;
            return match not {
                NotEncoded::Refused(_) => Ok(()),
                NotEncoded::Damaged(damaged) => Err(damaged),
            };
        }
        let pushed = match &version.row {
            Some(row) => plan.push_row(row, set, &mut self.scratch),
            None if kind == Kind::DeleteOver => Ok(()),
            None => plan.push_key(&version.key, set, &mut self.scratch),
        };
        if pushed.is_err() {
            old.iter_mut().for_each(|array| array.truncate_to(mark));
        }
        match pushed {
            Ok(()) => {
                rows.writes.push(version.write);
                rows.fresh += u64::from(version.fresh);
            }
            // No row has a key that the table can't hold: it is deleted already.
            Err(NotEncoded::Refused(_)) if kind == Kind::Delete => {
                self.idle += 1;
                if rows.writes.is_empty() {
                    groups.remove(at);
                }
            }
            Err(NotEncoded::Refused(reason)) => {
                self.refused.push(Refused { write: version.write, class: ErrorClass::Poison, reason });
                if rows.writes.is_empty() {
                    groups.remove(at);
                }
            }
            Err(NotEncoded::Damaged(damaged)) => return Err(damaged),
        }
        Ok(())
    }

    /// An update of the row with `old_key`, whose new image is `row`.
    pub fn key_change(&mut self, change: &KeyChange<'_>, kind: Kind, items: &mut Vec<Item>) -> Result<(), Damaged> {
        let KeyChange { schema, row, old_key, write } = *change;
        let plan = self.plans.get(&schema).ok_or(Damaged("a row without a schema"))?;
        if plan.key_is_fixed || !plan.holds_key(old_key)? {
            self.needs_row_by_row = true;
            return Ok(());
        }
        let mask = plan.mask(row)?;
        let mut arrays = plan.arrays(kind, &mask);
        let old = arrays.len() - plan.key.len();
        let pushed = plan.push_row(row, &mut arrays[..old], &mut self.scratch);
        let pushed = pushed.and_then(|()| plan.push_key(old_key, &mut arrays[old..], &mut self.scratch));
        match pushed {
            Ok(()) => items.push(Item::Rows(Rows { schema, kind, mask, arrays, writes: vec![write], fresh: 0 })),
            Err(NotEncoded::Refused(reason)) => {
                self.refused.push(Refused { write, class: ErrorClass::Poison, reason });
            }
            Err(NotEncoded::Damaged(damaged)) => return Err(damaged),
        }
        Ok(())
    }
}

/// Why an image is not enough for its statement: a new row needs all columns.
fn incomplete(plan: &Plan, kind: Kind, mask: &Mask) -> Option<String> {
    let lacking = match kind {
        Kind::Insert | Kind::Upsert => mask.as_ref()?.iter().position(|present| !present)?,
        Kind::UpdateAll
        | Kind::UpdateFound
        | Kind::Delete
        | Kind::UpdateOver
        | Kind::DeleteOver
        | Kind::UpdateKeyAll
        | Kind::UpdateKey => return None,
    };
    Some(format!("the row is not there and the change lacks its column {}", plan.columns[lacking].name))
}
