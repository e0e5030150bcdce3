//! Resolve: conflicts found by causality, decided the same on every applier (invariant 6).
//!
//! The resolver is a deterministic state machine over the records of one partition. Every winning version is *under way*
//! to each member until that member's own stream shows the echo of our transaction. A write of a member that appears while
//! something is under way to it, and that was not made over that version, is concurrent, and only then the table's rules
//! decide. A version is sent together with the images that it may be written over. `tests/model/resolver_model.py` is the
//! specification; a test holds both against each other record by record.

pub mod applier;
pub mod checkpoint;
pub mod conflict;
pub mod entry;
pub mod flips;
pub mod intake;
pub mod rules;
pub mod stage;
pub mod version;

use conflict::{Conflict, Kind};
use rules::{Rules, Winner, merge};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use version::{Entry, Event, Expectation, Member, Origin, RowKey, Send, UnderWay, Version};

/// Why a member has not taken a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its row was none of the expected ones.
    Differs,
    /// It refused the version, which waits in the retry queue.
    Refused,
}

/// The echo of one of our transactions: what capture publishes instead of its rows.
#[derive(Clone, Debug)]
pub struct Echo {
    pub member: Member,
    /// The record up to which the member has been written to.
    pub offset: Offset,
    /// Keys whose version the member has not taken, with the offset of the send.
    pub parked: Vec<(RowKey, Offset, Reason)>,
    /// Keys whose parked row has gone; true where the row itself was written, by a retry.
    pub unparked: Vec<(RowKey, bool)>,
}

/// A person's choice: a version of nobody's, valid only on the state that the person saw.
#[derive(Clone, Debug)]
pub struct Decision {
    pub version: Arc<Version>,
    pub seen: Image,
}

/// What a record leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sends: Vec<Send>,
    pub conflicts: Vec<Conflict>,
}

/// The paths through the resolver, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Branch {
    /// Nothing was under way to the event's origin.
    Unopposed,
    /// The event was made over the version under way, or that is a version of its own origin.
    Seen,
    /// A snapshot row was under way: it loses without a conflict.
    BeatsRead,
    EventWins,
    HeldWins,
    /// Columns were merged, and the result is the event.
    MergedToEvent,
    Merged,
    /// A column was contested.
    Contested,
    /// A counter left its range: the rows stand against each other as a whole.
    Overflow,
    ReadTaken,
    ReadDropped,
    DecisionTaken,
    DecisionOutdated,
    /// A member has what was sent.
    Arrived,
    /// The same, of a send over which a write of the member had won.
    WrittenAfterAll,
    /// The send was superseded before it was tried.
    Dropped,
    Refused,
    Differs,
}

impl Branch {
    pub const ALL: [Branch; 18] = [
        Branch::Unopposed,
        Branch::Seen,
        Branch::BeatsRead,
        Branch::EventWins,
        Branch::HeldWins,
        Branch::MergedToEvent,
        Branch::Merged,
        Branch::Contested,
        Branch::Overflow,
        Branch::ReadTaken,
        Branch::ReadDropped,
        Branch::DecisionTaken,
        Branch::DecisionOutdated,
        Branch::Arrived,
        Branch::WrittenAfterAll,
        Branch::Dropped,
        Branch::Refused,
        Branch::Differs,
    ];
}

/// States of a key that its member may be met with.
const MOST_NEAR: usize = 8;

/// How much is kept in memory for one key, and of keys with conflicts (invariant 9).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Images that one send may be written over.
    pub images: usize,
    /// Keys with a conflict on record whose state is remembered, so that a person may decide on it.
    pub disputed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { images: 16, disputed: 65_536 }
    }
}

pub struct Resolver {
    members: Vec<Member>,
    rules: HashMap<TableName, Arc<Rules>>,
    limits: Limits,
    entries: HashMap<RowKey, Entry>,
    /// The sends that a member has not taken, as its own stream has shown.
    parked: HashMap<(Member, RowKey), Offset>,
    /// Per member, the sends under way to it, the oldest first. One that was replaced since is still there.
    sent: Vec<VecDeque<(Offset, RowKey)>>,
    /// The image of the last accepted version of keys that have a conflict on record.
    disputed: HashMap<RowKey, Image>,
    /// The same keys, the oldest first.
    disputed_order: VecDeque<RowKey>,
    hits: [u64; Branch::ALL.len()],
}

impl Resolver {
    pub fn new(members: usize, rules: HashMap<TableName, Arc<Rules>>, limits: Limits) -> Self {
        let members: Vec<_> = (0..members).filter_map(|member| u8::try_from(member).ok()).map(Member).collect();
        Self {
            sent: vec![VecDeque::new(); members.len()],
            members,
            rules,
            limits,
            entries: HashMap::new(),
            parked: HashMap::new(),
            disputed: HashMap::new(),
            disputed_order: VecDeque::new(),
            hits: [0; Branch::ALL.len()],
        }
    }

    /// Replaces the rules of all tables, from the next record on.
    pub fn set_rules(&mut self, rules: HashMap<TableName, Arc<Rules>>) {
        self.rules = rules;
    }

    /// Keys of which something is under way.
    pub fn entries(&self) -> &HashMap<RowKey, Entry> {
        &self.entries
    }

    pub fn parked(&self) -> &HashMap<(Member, RowKey), Offset> {
        &self.parked
    }

    pub fn hits(&self, branch: Branch) -> u64 {
        self.hits[branch as usize]
    }

    fn hit(&mut self, branch: Branch) {
        self.hits[branch as usize] += 1;
    }

    /// A change in a member's own stream.
    pub fn event(&mut self, at: Offset, event: &Event, out: &mut Outcome) {
        let Origin::Member(origin) = event.version.origin else { return };
        if self.merged(at, event, origin, out) {
            return;
        }
        let before = Expected::Image(event.before_image);
        let held = match self.entries.get(&event.version.key) {
            Some(entry) if entry.is_pending(origin) => entry.version.clone(),
            entry => {
                // What an older send has left at the origin meanwhile, and the event was made over, the others need not have.
                let over = entry.map_or(before, |entry| Expected::Image(entry.version.image));
                self.hit(Branch::Unopposed);
                let to = self.others(origin, over);
                return self.accept(at, event.version.clone(), to, out);
            }
        };
        // The others have what is held, whatever an older send has left at the origin meanwhile.
        let over_held = Expected::Image(held.image);
        // Its own version sent back to it, or it evidently saw this one.
        if held.origin == Origin::Member(origin) || event.before_image == held.image {
            self.hit(Branch::Seen);
            return self.accept_over(at, &event.version, origin, over_held, out);
        }
        if held.read {
            self.hit(Branch::BeatsRead);
            return self.accept_over(at, &event.version, origin, over_held, out);
        }
        let Some(rules) = self.rules.get(&event.version.key.table) else { return };
        let won = rules.winner(&held, &event.version);
        let conflict = |winner: &Arc<Version>, loser: &Arc<Version>| Conflict {
            offset: at,
            kind: Kind::of(&held, event),
            winner: winner.clone(),
            loser: Some(loser.clone()),
            incumbent_won: Some(won == Winner::Held),
            column: None,
            at: None,
        };
        match won {
            Winner::Event => {
                self.hit(Branch::EventWins);
                self.dispute(&held, conflict(&event.version, &held), out);
                self.accept_over(at, &event.version, origin, over_held, out);
            }
            Winner::Held => {
                self.hit(Branch::HeldWins);
                self.dispute(&held, conflict(&held, &event.version), out);
                self.send_again(at, &held, origin, Some(Expected::Image(event.version.image)), out);
            }
        }
    }

    /// While an entry exists, the columns that an event changed are merged into it, whoever it is under way to: what an
    /// event added to a counter is added, for equal images prove nothing. False where the rows stand against each other as
    /// a whole.
    fn merged(&mut self, at: Offset, event: &Event, origin: Member, out: &mut Outcome) -> bool {
        let Some(entry) = self.entries.get(&event.version.key) else { return false };
        let Some(rules) = self.rules.get(&event.version.key.table) else { return false };
        let (Some(delta), false) = (&rules.merge, entry.version.read) else { return false };
        let Some(rows) = rules::rows(&entry.version, event) else { return false };
        let held = entry.version.clone();
        let Ok(merged) = merge(&held, event, rows, rules, delta, at) else {
            self.hit(Branch::Overflow);
            return false;
        };
        if entry.of(origin).is_none() && merged.version.image == event.version.image {
            self.hit(Branch::MergedToEvent);
            let to = self.others(origin, Expected::Image(held.image));
            self.accept(at, event.version.clone(), to, out);
            return true;
        }
        self.hit(Branch::Merged);
        for (column, won) in merged.contested {
            self.hit(Branch::Contested);
            let (winner, loser) = match won {
                Winner::Held => (&held, &event.version),
                Winner::Event => (&event.version, &held),
            };
            let conflict = Conflict {
                offset: at,
                kind: Kind::UpdateOriginDiffers,
                winner: winner.clone(),
                loser: Some(loser.clone()),
                incumbent_won: Some(won == Winner::Held),
                column: Some(column),
                at: None,
            };
            self.dispute(&held, conflict, out);
        }
        let mut to = self.others(origin, Expected::Image(held.image));
        to.push((origin, Some(Expected::Image(event.version.image))));
        self.accept(at, Arc::new(merged.version), to, out);
        true
    }

    /// A snapshot row never beats a change event and is never a conflict.
    pub fn read(&mut self, at: Offset, version: &Arc<Version>, out: &mut Outcome) {
        let Origin::Member(origin) = version.origin else { return };
        if self.entries.contains_key(&version.key) {
            return self.hit(Branch::ReadDropped);
        }
        self.hit(Branch::ReadTaken);
        let to = self.others(origin, Expected::Image(Image::Absent));
        self.accept(at, version.clone(), to, out);
    }

    pub fn decision(&mut self, at: Offset, decision: &Decision, out: &mut Outcome) {
        if self.disputed.get(&decision.version.key) != Some(&decision.seen) {
            return self.hit(Branch::DecisionOutdated);
        }
        self.hit(Branch::DecisionTaken);
        let to = self.members.iter().map(|member| (*member, Some(Expected::Image(decision.seen)))).collect();
        self.accept(at, decision.version.clone(), to, out);
    }

    /// The member has all that was sent to it up to the echo's offset, apart from what is parked.
    pub fn echo(&mut self, at: Offset, echo: &Echo, out: &mut Outcome) {
        let member = echo.member;
        let mut dropped = HashSet::new();
        let mut candidates = Vec::new();
        for (key, written) in &echo.unparked {
            let sent = self.parked.remove(&(member, key.clone()));
            if let (Some(sent), false) = (sent, *written) {
                dropped.insert((key, sent));
            }
            candidates.push(key.clone());
        }
        let mut differs = HashSet::new();
        for (key, sent, reason) in &echo.parked {
            self.parked.insert((member, key.clone()), *sent);
            if *reason == Reason::Differs {
                differs.insert(key);
            }
            candidates.push(key.clone());
        }
        let sent = &mut self.sent[usize::from(member.0)];
        while let Some((_, key)) = sent.pop_front_if(|(sent, _)| *sent <= echo.offset) {
            candidates.push(key);
        }
        for key in candidates {
            self.arrived(at, echo, &key, &dropped, differs.contains(&key), out);
        }
    }

    fn arrived(
        &mut self,
        at: Offset,
        echo: &Echo,
        key: &RowKey,
        dropped: &HashSet<(&RowKey, Offset)>,
        differs: bool,
        out: &mut Outcome,
    ) {
        let member = echo.member;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(index) = entry.under_way.iter().position(|way| way.member == member && way.sent <= echo.offset) else {
            return;
        };
        let way = &mut entry.under_way[index];
        let taken = self.parked.get(&(member, key.clone())) != Some(&way.sent);
        if !taken {
            // A write of the member has won since: the parked version has been superseded, its row goes with the next batch.
            if way.unsure {
                return;
            }
            if !differs {
                return self.hit(Branch::Refused);
            }
            // No write of the member has explained the difference: those come before the echo.
            let (version, seen) = (entry.version.clone(), Expected::Seen(way.sent));
            let kind = if way.over.cut { Kind::Late } else { Kind::Drift };
            self.hit(Branch::Differs);
            let conflict = Conflict {
                offset: at,
                kind,
                winner: version.clone(),
                loser: None,
                incumbent_won: None,
                column: None,
                at: Some(member),
            };
            self.dispute(&version, conflict, out);
            return self.send_again(at, &version, member, Some(seen), out);
        }
        if way.unsure && !dropped.contains(&(key, way.sent)) {
            // The row had gone back to an image that the send could be written over, so it was.
            way.unsure = false;
            let version = entry.version.clone();
            self.hit(Branch::WrittenAfterAll);
            return self.send_again(at, &version, member, None, out);
        }
        let branch = if way.unsure { Branch::Dropped } else { Branch::Arrived };
        entry.under_way.swap_remove(index);
        if entry.under_way.is_empty() {
            self.entries.remove(key);
        }
        self.hit(branch);
    }

    /// Sends a version to everyone else over `over`; its origin keeps what it has.
    fn accept_over(&mut self, at: Offset, version: &Arc<Version>, origin: Member, over: Expected, out: &mut Outcome) {
        let mut to = self.others(origin, over);
        to.push((origin, None));
        self.accept(at, version.clone(), to, out);
    }

    fn others(&self, origin: Member, over: Expected) -> Vec<(Member, Option<Expected>)> {
        self.members.iter().filter(|member| **member != origin).map(|member| (*member, Some(over))).collect()
    }

    /// Sends a version to each member over the image expected there, or over any that older sends under way to it may have
    /// found or left. None: the member has it, or something newer of its own.
    fn accept(&mut self, at: Offset, version: Arc<Version>, to: Vec<(Member, Option<Expected>)>, out: &mut Outcome) {
        let mut older = Vec::new();
        if let Some(old) = self.entries.remove(&version.key) {
            older = old.under_way;
            let left = Expected::Image(old.version.image);
            older.iter_mut().filter(|way| !way.unsure).for_each(|way| way.over.push(left, self.limits.images));
        }
        let mut under_way = Vec::with_capacity(to.len());
        let mut send = Vec::with_capacity(to.len());
        for (member, expected) in to {
            let way = older.iter().position(|way| way.member == member).map(|index| older.swap_remove(index));
            let Some(expected) = expected else {
                send.push((member, Expectation::Keep));
                under_way.extend(way.map(|way| UnderWay { unsure: true, ..way }));
                continue;
            };
            let (mut over, near) = way.map(|way| (way.over, way.near)).unwrap_or_default();
            over.push(expected, self.limits.images);
            send.push((member, Expectation::Over(over.as_slice().to_vec())));
            self.sent[usize::from(member.0)].push_back((at, version.key.clone()));
            under_way.push(UnderWay { member, sent: at, over, near, unsure: false });
        }
        // Nothing is sent to these: the version is their own, and nobody else's was under way to them for sure.
        under_way.extend(older.into_iter().map(|way| UnderWay { unsure: true, ..way }));
        if let Some(image) = self.disputed.get_mut(&version.key) {
            *image = version.image;
        }
        self.entries.insert(version.key.clone(), Entry { version: version.clone(), under_way });
        out.sends.push(Send { version, to: send });
    }

    /// Notes what a member holds, or may hold, of a key with a send under way to it.
    pub fn stands(&mut self, member: Member, key: &RowKey, image: Image) {
        let Some(way) = self.entries.get_mut(key).and_then(|entry| entry.of_mut(member)) else { return };
        way.near.retain(|known| *known != image);
        if way.near.len() >= MOST_NEAR {
            way.near.remove(0);
        }
        way.near.push(image);
    }

    /// What [`Resolver::stands`] has noted, the oldest first.
    pub fn near(&self, member: Member, key: &RowKey) -> &[Image] {
        let way = self.entries.get(key).and_then(|entry| entry.of(member));
        way.map_or(&[], |way| &way.near)
    }

    /// Sends what is held to one member again, over what it may be written over already and perhaps one more image.
    fn send_again(
        &mut self,
        at: Offset,
        version: &Arc<Version>,
        member: Member,
        over: Option<Expected>,
        out: &mut Outcome,
    ) {
        let Some(way) = self.entries.get_mut(&version.key).and_then(|entry| entry.of_mut(member)) else { return };
        if let Some(over) = over {
            way.over.push(over, self.limits.images);
        }
        way.sent = at;
        let over = way.over.as_slice().to_vec();
        self.sent[usize::from(member.0)].push_back((at, version.key.clone()));
        out.sends.push(Send { version: version.clone(), to: vec![(member, Expectation::Over(over))] });
    }

    /// Puts on record that members undo each other's writes, of which the event is one: what is held stands against the
    /// state before it, which is another member's.
    pub fn flip_flop(&mut self, at: Offset, event: &Event, other: Member, out: &mut Outcome) {
        let Event { version, before, before_image } = event;
        let held = self.entries.get(&version.key).map_or_else(|| version.clone(), |entry| entry.version.clone());
        let by = Some(other);
        let other = Version { row: before.clone(), image: *before_image, by, ..(**version).clone() };
        let conflict = Conflict {
            offset: at,
            kind: Kind::FlipFlop,
            winner: held.clone(),
            loser: Some(Arc::new(other)),
            incumbent_won: None,
            column: None,
            at: None,
        };
        self.dispute(&held, conflict, out);
    }

    /// Puts a conflict on record; `held` stands until something else is accepted.
    fn dispute(&mut self, held: &Arc<Version>, conflict: Conflict, out: &mut Outcome) {
        out.conflicts.push(conflict);
        if self.disputed.insert(held.key.clone(), held.image).is_none() {
            self.disputed_order.push_back(held.key.clone());
            if self.disputed_order.len() > self.limits.disputed
                && let Some(oldest) = self.disputed_order.pop_front()
            {
                self.disputed.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rules::{OnDelete, Strategy};
    use super::*;
    use sync_worker_core::row::{Key, Row, RowBuilder};
    use sync_worker_core::value::{Cell, Value};
    use version::VersionId;

    fn row(value: i64) -> Row {
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(value)));
        builder.finish()
    }

    fn image(value: i64) -> Expected {
        Expected::Image(Image::of(Some(&row(value))))
    }

    /// A change of the one key, `at` being its commit time, too.
    fn event(at: u64, by: u8, before: Option<i64>, after: i64) -> Event {
        let (before, row) = (before.map(row), Some(row(after)));
        let key = RowKey { table: "t".into(), key: Key::from_bytes(bytes::Bytes::from_static(b"k")) };
        let image = Image::of(row.as_ref());
        let (id, origin, commit_time) = (VersionId::Record(Offset(at)), Origin::Member(Member(by)), at.cast_signed());
        let version = Version { id, key, origin, by: Some(Member(by)), commit_time, row, image, read: false };
        let before_image = Image::of(before.as_ref());
        Event { version: Arc::new(version), before, before_image }
    }

    /// With few values an older send may be written over a fresh row. What the fresh row's member writes over that one next
    /// goes to the others over what they have, which is not what it was written over; whether the echo has told that or not.
    #[test]
    fn an_event_over_its_own_version_sent_back_goes_over_what_is_held() {
        for told in [true, false] {
            let ranks = vec![Member(0), Member(1)];
            let rules = Rules { strategy: Strategy::Timestamp, on_delete: OnDelete::ByStrategy, merge: None, ranks };
            let rules = HashMap::from([("t".into(), Arc::new(rules))]);
            let mut resolver = Resolver::new(2, rules, Limits::default());
            let mut out = Outcome::default();
            let echo = |member, offset| Echo {
                member: Member(member),
                offset: Offset(offset),
                parked: Vec::new(),
                unparked: Vec::new(),
            };
            resolver.event(Offset(1), &event(1, 0, None, 1), &mut out);
            resolver.echo(Offset(2), &echo(1, 1), &mut out);
            resolver.event(Offset(3), &event(3, 0, Some(1), 2), &mut out);
            // Both wrote over 1; the later one wins, and whether the other has been written there all the same shows in the
            // echo.
            resolver.event(Offset(4), &event(4, 1, Some(1), 3), &mut out);
            resolver.echo(Offset(5), &echo(0, 4), &mut out);
            if told {
                resolver.echo(Offset(6), &echo(1, 4), &mut out);
            }
            assert_eq!(resolver.hits(Branch::WrittenAfterAll), u64::from(told));
            out.sends.clear();
            resolver.event(Offset(7), &event(7, 1, Some(2), 4), &mut out);
            let to = out.sends.iter().flat_map(|send| &send.to).find(|(member, _)| *member == Member(0));
            assert_eq!(to.map(|(_, expectation)| expectation), Some(&Expectation::Over(vec![image(3)])));
        }
    }
}
