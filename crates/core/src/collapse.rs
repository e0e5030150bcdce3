//! Collapse: the writes of a batch as sets, one version per key, which a sink writes with one statement per table and
//! effect.
//!
//! Within a set the versions of a table are about different keys, so their order carries no meaning but for unique
//! indexes and foreign keys, which a sink orders its statements for. What can't be told by the key alone, a changed key
//! and a truncate, stands between two sets and is written by itself, in order.

use crate::change::{Change, Op};
use crate::name::TableName;
use crate::row::{Key, KeyMap, Row};
use crate::schema::{Schema, SchemaId};
use crate::sink::Write;
use crate::value::Damaged;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// What a version does to the row with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The row is not there yet.
    Insert,
    /// Nothing is known about whether the row is there.
    Upsert,
    /// The row is there. The image may be partial.
    Update,
    /// The row goes, if it is there.
    Delete,
    /// The row goes, if it is there, and another one with its key comes: a delete, then an insert.
    Replace,
}

/// Several changes of one key as one.
#[derive(Clone, Debug)]
pub struct Version {
    pub effect: Effect,
    pub key: Key,
    /// The image to write; None for a delete.
    pub row: Option<Row>,
    /// The index of the newest write that went into it.
    pub write: usize,
    /// The first change was an insert: a row that is not there when it is deleted again is no surprise.
    pub fresh: bool,
    /// One of the writes has a parked row at the target.
    pub parked: bool,
}

/// The versions of one table, in the order in which their keys first came up.
#[derive(Debug)]
pub struct TableSet {
    pub schema: Arc<Schema>,
    pub versions: Vec<Version>,
}

#[derive(Debug)]
pub enum Step {
    /// In the order in which the tables first came up.
    Set(Vec<TableSet>),
    /// The index of a write that stands by itself: an update that changed its key, or a truncate.
    Alone(usize),
}

/// Versions that the target has refused earlier in the same batch, by table and key: the next version of such a key is
/// made over them.
pub type Refusals = HashMap<(TableName, Key), (Arc<Schema>, Version)>;

/// Collapses `writes[range]`. Indexes in the result count from the start of `writes`.
pub fn collapse(writes: &[Write], range: Range<usize>, refusals: &Refusals) -> Result<Vec<Step>, Damaged> {
    let mut open = Open { refusals, steps: Vec::new(), sets: Vec::new(), by_schema: HashMap::new(), last: 0 };
    for index in range {
        open.push(writes, index)?;
    }
    open.close();
    Ok(open.steps)
}

/// Whether a write is about more than the row with its key.
pub fn stands_alone(change: &Change) -> Result<bool, Damaged> {
    Ok(match change.op {
        Op::Truncate => true,
        Op::Update => change.old_key()?.is_some(),
        Op::Create | Op::Read | Op::Delete => false,
    })
}

/// The deletes among these whose key a later one brings again: of their transaction nobody has seen the row gone, and no row that
/// refers to it went with it. Not those whose key a row from elsewhere gets next, which needs the room. `concerns`: the tables where a
/// delete would take others along.
pub fn coming_back(writes: &[Write], concerns: impl Fn(&Schema) -> bool) -> Result<HashSet<usize>, Damaged> {
    let (mut found, mut later) = (HashSet::new(), HashSet::new());
    for (index, write) in writes.iter().enumerate().rev() {
        let change = &write.change;
        if !concerns(&change.schema) {
            continue;
        }
        let table = change.table();
        match (change.op, change.key()?) {
            (Op::Truncate, _) => later.retain(|(other, _)| other != table),
            (Op::Delete, Some(key)) if later.contains(&(table.clone(), key.clone())) => drop(found.insert(index)),
            (Op::Update, Some(key)) if change.old_key()?.is_some() => drop(later.remove(&(table.clone(), key))),
            (Op::Create | Op::Read | Op::Update, Some(key)) => drop(later.insert((table.clone(), key))),
            (Op::Delete | Op::Create | Op::Read | Op::Update, _) => {}
        }
    }
    Ok(found)
}

struct Open<'a> {
    refusals: &'a Refusals,
    steps: Vec<Step>,
    sets: Vec<(TableSet, KeyMap<usize>)>,
    by_schema: HashMap<SchemaId, usize>,
    /// The set of the write before this one.
    last: usize,
}

impl Open<'_> {
    fn push(&mut self, writes: &[Write], index: usize) -> Result<(), Damaged> {
        let write = &writes[index];
        let change = &write.change;
        if stands_alone(change)? {
            self.close();
            self.steps.push(Step::Alone(index));
            return Ok(());
        }
        let key = change.key()?.ok_or(Damaged("a change without an image"))?;
        let row = match change.op {
            Op::Delete | Op::Truncate => None,
            Op::Create | Op::Read | Op::Update => {
                Some(change.after.clone().ok_or(Damaged("a change without its after image"))?)
            }
        };
        let set = self.set_of(&change.schema);
        let (TableSet { schema, versions }, keys) = &mut self.sets[set];
        if let Some(&at) = keys.get(&key) {
            let version = &mut versions[at];
            if let Some(effect) = followed_by(version.effect, change.op, version.fresh) {
                take(version, effect, row)?;
                version.write = index;
                version.parked |= write.parked;
                return Ok(());
            }
            // An update of a row that this set deletes: it can only come after it.
            self.close();
            return self.push(writes, index);
        }
        let mut version = Version {
            effect: first_effect(change.op),
            key: key.clone(),
            row,
            write: index,
            fresh: change.op == Op::Create,
            parked: write.parked,
        };
        if !self.refusals.is_empty()
            && let Some((old_schema, refused)) = self.refusals.get(&(schema.table.clone(), key.clone()))
            && let Some(effect) = followed_by(refused.effect, change.op, refused.fresh)
        {
            let mut merged = refused.clone();
            if let Some(row) = &mut merged.row {
                *row = schema.row_of(row, old_schema)?;
            }
            take(&mut merged, effect, version.row.take())?;
            version = Version { write: index, parked: merged.parked || write.parked, ..merged };
        }
        keys.insert(key, versions.len());
        versions.push(version);
        Ok(())
    }

    /// The set of a schema; another schema of the same table ends the sets before it.
    fn set_of(&mut self, schema: &Arc<Schema>) -> usize {
        if self.sets.get(self.last).is_some_and(|(set, _)| set.schema.id == schema.id) {
            return self.last;
        }
        if let Some(&at) = self.by_schema.get(&schema.id) {
            self.last = at;
            return at;
        }
        if self.sets.iter().any(|(set, _)| set.schema.table == schema.table) {
            self.close();
        }
        self.last = self.sets.len();
        self.by_schema.insert(schema.id, self.last);
        self.sets.push((TableSet { schema: schema.clone(), versions: Vec::new() }, KeyMap::default()));
        self.last
    }

    fn close(&mut self) {
        if !self.sets.is_empty() {
            self.steps.push(Step::Set(self.sets.drain(..).map(|(set, _)| set).collect()));
            self.by_schema.clear();
        }
    }
}

fn first_effect(op: Op) -> Effect {
    match op {
        Op::Create => Effect::Insert,
        Op::Read => Effect::Upsert,
        Op::Update => Effect::Update,
        Op::Delete | Op::Truncate => Effect::Delete,
    }
}

/// The effect of a version and the change after it together; None where there is no such effect.
fn followed_by(effect: Effect, op: Op, fresh: bool) -> Option<Effect> {
    Some(match (effect, op) {
        (_, Op::Delete | Op::Truncate) => Effect::Delete,
        (Effect::Insert | Effect::Upsert | Effect::Update, Op::Create | Op::Read) => Effect::Upsert,
        (Effect::Insert, Op::Update) => Effect::Insert,
        (Effect::Upsert, Op::Update) => Effect::Upsert,
        (Effect::Update, Op::Update) => Effect::Update,
        (Effect::Delete, Op::Create | Op::Read) if fresh => Effect::Insert,
        (Effect::Delete | Effect::Replace, Op::Create | Op::Read) => Effect::Replace,
        (Effect::Delete, Op::Update) => return None,
        (Effect::Replace, Op::Update) => Effect::Replace,
    })
}

/// Puts the newer image over the version's. A new row owes nothing to the one that was deleted before it.
fn take(version: &mut Version, effect: Effect, newer: Option<Row>) -> Result<(), Damaged> {
    version.row = match (version.row.take(), newer) {
        (Some(older), Some(newer)) if newer.is_partial()? => Some(newer.over(&older)?),
        (_, newer) => newer,
    };
    version.effect = effect;
    Ok(())
}

#[cfg(test)]
#[path = "collapse_tests.rs"]
mod tests;
