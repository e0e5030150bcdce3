//! What a member's own stream shows of the versions that were sent to it.

use super::conflict::{Conflict, Kind};
use super::key::{RowKey, RowMap};
use super::version::{Entry, Expectation, Member, Origin, Send, UnderWay, Version};
use super::{Branch, Outcome, Resolver};
use smallvec::smallvec;
use std::sync::Arc;
use sync_worker_core::guard::{Expected, Image, Seen};
use sync_worker_core::ledger::NO_TIME;
use sync_worker_core::record::Offset;

/// Why a member has not taken a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its row was none of the expected ones.
    Differs,
    /// The same, and what its own stream says about the key was not taken while the version was under way: the row may be
    /// a write that nobody has seen.
    Unseen,
    /// It refused the version, which waits in the retry queue.
    Refused,
}

/// The echo of one of our transactions: what capture publishes instead of its rows.
#[derive(Clone, Debug)]
pub struct Echo {
    pub member: Member,
    /// The record up to which the member has been written to.
    pub offset: Offset,
    /// Keys whose version the member has not taken.
    pub parked: Vec<Parked>,
    /// Keys whose parked row has gone; true where the row itself was written, by a retry.
    pub unparked: Vec<(RowKey, bool)>,
}

#[derive(Clone, Debug)]
pub struct Parked {
    pub key: RowKey,
    /// The record that caused the send.
    pub sent: Offset,
    pub reason: Reason,
    /// What stands there, for the ledger.
    pub seen: Option<Seen>,
}

impl Resolver {
    /// The member has all that was sent to it up to the echo's offset, apart from what is parked.
    pub fn echo(&mut self, at: Offset, echo: &Echo, out: &mut Outcome) {
        let member = echo.member;
        let place = usize::from(member.0);
        let mut dropped = RowMap::default();
        let mut candidates = Vec::new();
        for (key, written) in &echo.unparked {
            let sent = self.parked[place].remove(key);
            if let (Some(sent), false) = (sent, *written) {
                dropped.insert(key.clone(), sent);
            }
            candidates.push(key.clone());
        }
        let mut reasons: RowMap<&Parked> = RowMap::default();
        for parked in &echo.parked {
            self.parked[place].insert(parked.key.clone(), parked.sent);
            reasons.insert(parked.key.clone(), parked);
            candidates.push(parked.key.clone());
        }
        while let Some(hash) = self.sent[place].pop_up_to(echo.offset) {
            self.entries.fetch(hash);
            self.have_arrived(member, echo.offset, hash);
            let rest =
                self.entries.all_of(hash).filter(|entry| entry.of(member).is_some_and(|way| way.sent <= echo.offset));
            candidates.extend(rest.map(|entry| entry.version.key.clone()));
            self.entries.settle(hash);
        }
        for key in candidates {
            self.entries.fetch(key.hash());
            self.arrived(at, echo, &key, &dropped, reasons.get(&key).copied(), out);
            self.entries.settle(key.hash());
        }
    }

    /// What the member has of keys with this hash, without anything more to say about it: most of what is ever sent.
    fn have_arrived(&mut self, member: Member, up_to: Offset, hash: u64) {
        let parked = &self.parked[usize::from(member.0)];
        let has = |entry: &Entry| {
            let is_parked = |way: &UnderWay| parked.get(&entry.version.key) == Some(&way.sent);
            entry.of(member).is_some_and(|way| way.sent <= up_to && !way.unsure && !is_parked(way))
        };
        let mut hits = 0;
        while let Some(mut found) = self.entries.find(hash, has) {
            let under_way = &mut found.get_mut().under_way;
            under_way.retain(|way| way.member != member);
            if under_way.is_empty() {
                found.remove();
            }
            hits += 1;
        }
        self.hits[Branch::Arrived as usize] += hits;
    }

    fn arrived(
        &mut self,
        at: Offset,
        echo: &Echo,
        key: &RowKey,
        dropped: &RowMap<Offset>,
        parked: Option<&Parked>,
        out: &mut Outcome,
    ) {
        let member = echo.member;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(index) = entry.under_way.iter().position(|way| way.member == member && way.sent <= echo.offset) else {
            return;
        };
        let way = &mut entry.under_way[index];
        let taken = self.parked[usize::from(member.0)].get(key) != Some(&way.sent);
        if !taken {
            // A write of the member has won since: the parked version has been superseded, its row goes with the next batch.
            if way.unsure {
                return;
            }
            match parked.map(|parked| parked.reason) {
                Some(Reason::Differs) if self.seeds.seeds(&key.table) => {
                    // A snapshot row of the member, or a write of it, may explain that yet.
                    self.seeds.wait(key, member, way.sent);
                    return self.hit(Branch::SeedWaits);
                }
                Some(Reason::Differs) => {}
                Some(Reason::Unseen) => {
                    // Nothing is under way to the member any more: what it has is its own.
                    let version = entry.version.clone();
                    self.take_out(key, index);
                    out.sends.push(Send { version, before: None, to: smallvec![(member, Expectation::Keep)] });
                    return self.hit(Branch::Unseen);
                }
                Some(Reason::Refused) | None => return self.hit(Branch::Refused),
            }
            // No write of the member has explained the difference: those come before the echo.
            self.hit(Branch::Differs);
            return self.drifted(at, key, member, parked.and_then(|parked| parked.seen.as_ref()), out);
        }
        if way.unsure && dropped.get(key) != Some(&way.sent) {
            // The row had gone back to an image that the send could be written over, so it was.
            way.unsure = false;
            let version = entry.version.clone();
            self.hit(Branch::WrittenAfterAll);
            return self.send_again(at, &version, member, None, out);
        }
        let branch = if way.unsure { Branch::Dropped } else { Branch::Arrived };
        self.take_out(key, index);
        self.hit(branch);
    }

    /// Puts on record that the member holds a row which nothing explains, and sends what is held once more, over that row.
    pub(super) fn drifted(&mut self, at: Offset, key: &RowKey, member: Member, seen: Option<&Seen>, out: &mut Outcome) {
        let Some((entry, way)) = self.entries.get(key).and_then(|entry| Some((entry, entry.of(member)?))) else {
            return;
        };
        let (version, over) = (entry.version.clone(), Expected::Seen(way.sent));
        let known = seen.filter(|seen| seen.row.is_some() || seen.image == Image::Absent);
        let loser = known.map(|seen| {
            let (row, image) = (seen.row.clone(), seen.image);
            let (origin, by) = (Origin::Member(member), Some(member));
            Arc::new(Version { origin, by, commit_time: NO_TIME, row, image, read: false, ..(*version).clone() })
        });
        let kind = if way.over.cut { Kind::Late } else { Kind::Drift };
        let conflict = Conflict {
            offset: at,
            kind,
            winner: version.clone(),
            loser,
            incumbent_won: None,
            column: None,
            stands: None,
            at: Some(member),
        };
        self.dispute(&version, conflict, out);
        self.send_again(at, &version, member, Some(over), out);
    }

    /// Takes a send out of its entry, and with the last one the entry.
    pub(super) fn take_out(&mut self, key: &RowKey, way: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.under_way.swap_remove(way);
        if entry.under_way.is_empty() {
            self.entries.remove(key);
        }
    }
}
