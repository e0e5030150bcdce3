//! Merged seeds: the rows that all members have at the start are copied to all others.
//!
//! No table of what was copied is kept: the guard compares. A snapshot row is sent to every other member over nothing; a
//! member that has the same row writes nothing, and one that has another row leaves it alone. Until the table's
//! `Seeded` record says that all snapshot rows are on the log, such a row is not taken for drift: its own snapshot row,
//! or a write of it, is still to come, and then the two are decided. So what is kept grows with what differs and is under
//! way, and not with the tables.

use super::conflict::{Conflict, Kind};
use super::key::RowKey;
use super::rules::Winner;
use super::version::{Entry, Event, Expectation, Member, Send, Version};
use super::{Branch, Outcome, Resolver};
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync_worker_core::guard::Expected;
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;

/// Which tables are being seeded, and what waits for that.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// All tables are seeded so.
    merged: bool,
    /// Tables whose rows have all been copied.
    done: BTreeSet<TableName>,
    /// Sends that have met a row which differs.
    waiting: BTreeMap<(RowKey, Member), Offset>,
}

impl Seeds {
    pub fn seeds(&self, table: &TableName) -> bool {
        self.merged && !self.done.contains(table)
    }

    pub fn wait(&mut self, key: &RowKey, member: Member, sent: Offset) {
        self.waiting.insert((key.clone(), member), sent);
    }

    pub fn done(&self) -> &BTreeSet<TableName> {
        &self.done
    }

    pub fn all_waiting(&self) -> impl ExactSizeIterator<Item = (&RowKey, Member, Offset)> {
        self.waiting.iter().map(|((key, member), sent)| (key, *member, *sent))
    }
}

/// A send that waits for a snapshot row.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub key: RowKey,
    pub member: Member,
    pub sent: Offset,
    /// What is said about the key is not taken: the row stays as it is.
    pub blind: bool,
}

impl Resolver {
    /// Whether all members' rows are copied to all others.
    pub fn merge_seeds(&mut self, merged: bool) {
        self.seeds.merged = merged;
    }

    /// Puts back what a checkpoint has kept.
    pub(super) fn resume_seeds(&mut self, done: BTreeSet<TableName>, waiting: Vec<(RowKey, Member, Offset)>) {
        self.seeds.done = done;
        waiting.into_iter().for_each(|(key, member, sent)| self.seeds.wait(&key, member, sent));
    }

    pub(super) fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    pub fn is_seeding(&self, table: &TableName) -> bool {
        self.seeds.seeds(table)
    }

    /// Forgets tables that have left the pipeline.
    pub fn retain_seeds(&mut self, stays: impl Fn(&TableName) -> bool) {
        self.seeds.done.retain(&stays);
        self.seeds.waiting.retain(|(key, _), _| stays(&key.table));
    }

    /// Members and the sends to them that have met a row which differs, while rows are still being copied.
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.seeds.all_waiting();
        waiting.map(|(key, member, sent)| Waiting { key: key.clone(), member, sent, blind: false }).collect()
    }

    /// All snapshot rows of a table have come. False where that was known.
    pub fn seeded(&mut self, table: &TableName) -> bool {
        self.seeds.merged && self.seeds.done.insert(table.clone())
    }

    /// Nothing can explain any more what a send has met.
    pub fn end_waiting(&mut self, at: Offset, waiting: &Waiting, out: &mut Outcome) {
        let Waiting { key, member, sent, blind } = waiting;
        self.seeds.waiting.remove(&(key.clone(), *member));
        self.entries.fetch(key.hash());
        let parked = self.parked[usize::from(member.0)].get(key) == Some(sent);
        let found = self.entries.get(key).and_then(|entry| {
            let way =
                entry.under_way.iter().position(|way| way.member == *member && way.sent == *sent && !way.unsure)?;
            Some((way, entry.version.clone()))
        });
        if let Some((way, version)) = found.filter(|_| parked) {
            if *blind {
                self.take_out(key, way);
                out.sends.push(Send { version, before: None, to: smallvec![(*member, Expectation::Keep)] });
                self.hit(Branch::Unseen);
            } else {
                self.hit(Branch::SeedDrift);
                self.drifted(at, key, *member, None, out);
            }
        }
        self.entries.settle(key.hash());
    }

    /// A snapshot row of a key of which something is under way: where that goes to the row's member and could not be
    /// written over the row, the two differ.
    pub(super) fn compare(&mut self, at: Offset, read: &Arc<Version>, origin: Member, out: &mut Outcome) {
        self.entries.fetch(read.key.hash());
        self.decide(at, read, origin, out);
        self.entries.settle(read.key.hash());
    }

    fn decide(&mut self, at: Offset, read: &Arc<Version>, origin: Member, out: &mut Outcome) {
        let Some(entry) = self.entries.get(&read.key).filter(|entry| entry.is_pending(origin)) else {
            // It has what is held, or a write of its own has told what it has.
            return self.hit(Branch::ReadDropped);
        };
        let held = entry.version.clone();
        let found = Expected::Image(read.image);
        let fits = entry.of(origin).is_some_and(|way| way.over.as_slice().contains(&found));
        if fits || read.image == held.image {
            return self.hit(Branch::SeedFits);
        }
        let Some(rules) = self.rules.get(&read.key.table) else { return };
        let won = if held.read { rules.winner(&held, read) } else { Winner::Held };
        match won {
            Winner::Event => {
                self.hit(Branch::SeedWins);
                self.dispute(&held, seed(at, read, &held, won), out);
                self.accept_over(at, read, origin, (Expected::Image(held.image), None), out);
            }
            Winner::Held => {
                self.hit(Branch::SeedLoses);
                self.dispute(&held, seed(at, &held, read, won), out);
                self.send_again(at, &held, origin, Some(found), out);
            }
        }
    }

    /// Puts on record that a change has beaten a snapshot row that its member had not seen.
    pub(super) fn beats_seed(&mut self, at: Offset, held: &Arc<Version>, event: &Arc<Version>, out: &mut Outcome) {
        if self.seeds.merged && event.image != held.image {
            self.hit(Branch::SeedBeaten);
            self.dispute(held, seed(at, event, held, Winner::Event), out);
        }
    }

    /// Whether the row that an event was made over has been seen: one that is still to be copied need have nothing in common
    /// with what is held.
    pub(super) fn is_known(&self, entry: &Entry, event: &Event, origin: Member) -> bool {
        if !self.seeds.seeds(&event.version.key.table) || event.before_image == entry.version.image {
            return true;
        }
        let before = Expected::Image(event.before_image);
        let pending = entry.of(origin).filter(|way| !way.unsure);
        pending.is_none_or(|way| way.over.cut || way.over.as_slice().contains(&before))
    }
}

fn seed(at: Offset, winner: &Arc<Version>, loser: &Arc<Version>, won: Winner) -> Conflict {
    Conflict {
        offset: at,
        kind: Kind::Seed,
        winner: winner.clone(),
        loser: Some(loser.clone()),
        incumbent_won: Some(won == Winner::Held),
        column: None,
        stands: None,
        at: None,
    }
}
