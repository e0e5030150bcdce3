//! Resolve: conflicts found by causality, decided the same on every applier (invariant 6).
//!
//! The resolver is a deterministic state machine over the records of one partition. Every winning version is *under way*
//! to each member until that member's own stream shows the echo of our transaction. A write of a member that appears while
//! something is under way to it, and that was not made over that version, is concurrent, and only then the table's rules
//! decide. A version is sent together with the images that it may be written over. `tests/model/resolver_model.py` is the
//! specification; a test holds both against each other record by record.

pub mod applier;
pub mod checkpoint;
pub mod configured;
pub mod conflict;
pub mod echo;
pub mod entries;
pub mod entry;
pub mod flips;
pub mod intake;
pub mod key;
pub mod places;
pub mod rules;
pub mod seed;
pub mod sent;
pub mod spill;
pub mod stage;
pub mod version;

use bytes::BytesMut;
use conflict::{Conflict, Kind};
use entries::Entries;
use key::{RowKey, RowMap};
use rules::{Rules, Winner, merge};
use seed::Seeds;
use sent::Sent;
use smallvec::{SmallVec, smallvec};
use spill::SpillError;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use version::{Entry, Event, Expectation, Expectations, Images, Member, Origin, Send, UnderWay, Version};

pub use echo::{Echo, Parked, Reason};

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
    /// The row that differs may be a write that was not taken: it stays.
    Unseen,
    /// A snapshot row of the member may be still to come.
    SeedWaits,
    /// It has what is under way to it, or what that may be written over.
    SeedFits,
    SeedWins,
    SeedLoses,
    /// An event has beaten a snapshot row that it had not seen.
    SeedBeaten,
    /// Columns could not be merged: the event was made over a row that was never seen.
    SeedUnknown,
    /// What had waited has drifted.
    SeedDrift,
}

impl Branch {
    pub const ALL: [Branch; 26] = [
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
        Branch::Unseen,
        Branch::SeedWaits,
        Branch::SeedFits,
        Branch::SeedWins,
        Branch::SeedLoses,
        Branch::SeedBeaten,
        Branch::SeedUnknown,
        Branch::SeedDrift,
    ];
}

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

/// Where a version goes that was accepted.
#[derive(Clone, Copy)]
struct To {
    /// The member that has it from itself.
    origin: Option<Member>,
    /// What every other one may be written over.
    over: Expected,
    /// And this.
    also: Option<Expected>,
    /// What becomes of it at its origin.
    own: Own,
}

#[derive(Clone, Copy)]
enum Own {
    Nothing,
    /// It has the version, or something newer of its own, whatever waits there.
    Keep,
    /// The version is not the origin's own, which has this one.
    Over(Expected),
}

fn merges(rules: &HashMap<TableName, Arc<Rules>>) -> bool {
    rules.values().any(|rules| rules.merge.is_some())
}

pub struct Resolver {
    members: Vec<Member>,
    rules: HashMap<TableName, Arc<Rules>>,
    limits: Limits,
    /// Some table's rows are merged column by column.
    merges: bool,
    entries: Entries,
    /// Per member, the sends that it has not taken, as its own stream has shown.
    parked: Vec<RowMap<Offset>>,
    /// Per member, the sends under way to it. One that was replaced since is still there.
    sent: Vec<Sent>,
    /// The image of the last accepted version of keys that have a conflict on record.
    disputed: RowMap<Image>,
    /// The same keys, the oldest first.
    disputed_order: VecDeque<RowKey>,
    seeds: Seeds,
    hits: [u64; Branch::ALL.len()],
}

impl Resolver {
    pub fn new(members: usize, rules: HashMap<TableName, Arc<Rules>>, limits: Limits) -> Self {
        let members: Vec<_> = (0..members).filter_map(|member| u8::try_from(member).ok()).map(Member).collect();
        Self {
            sent: members.iter().map(|_| Sent::default()).collect(),
            parked: vec![RowMap::default(); members.len()],
            members,
            merges: merges(&rules),
            rules,
            limits,
            entries: Entries::default(),
            disputed: RowMap::default(),
            disputed_order: VecDeque::new(),
            seeds: Seeds::default(),
            hits: [0; Branch::ALL.len()],
        }
    }

    /// Replaces the rules of all tables, from the next record on.
    pub fn set_rules(&mut self, rules: HashMap<TableName, Arc<Rules>>) {
        self.merges = merges(&rules);
        self.rules = rules;
    }

    /// Keys of which something is under way.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Members, the keys whose version they have not taken, and the records of those.
    pub fn parked(&self) -> impl Iterator<Item = (Member, &RowKey, Offset)> {
        let members = self.members.iter().zip(&self.parked);
        members.flat_map(|(member, keys)| keys.iter().map(|(key, sent)| (*member, key, *sent)))
    }

    pub fn hits(&self, branch: Branch) -> u64 {
        self.hits[branch as usize]
    }

    fn hit(&mut self, branch: Branch) {
        self.hits[branch as usize] += 1;
    }

    /// Beyond `limit` bytes in memory, keys of which something is under way go to files in this folder.
    pub fn spill_to(&mut self, folder: PathBuf, limit: usize) {
        self.entries.spill_to(folder, limit);
    }

    /// Appends all of them as they stand in checkpoints.
    pub fn encode_entries(&mut self, out: &mut BytesMut) -> Result<(), SpillError> {
        self.entries.encode(out)
    }

    /// Why nothing that was decided since the last call counts: entries could not be read back.
    pub fn failure(&mut self) -> Option<SpillError> {
        self.entries.failure()
    }

    /// Whether something is under way of a key.
    pub fn has(&mut self, key: &RowKey) -> bool {
        self.entries.fetch(key.hash());
        let has = self.entries.get(key).is_some();
        self.entries.settle(key.hash());
        has
    }

    /// A change in a member's own stream.
    pub fn event(&mut self, at: Offset, event: &Event, out: &mut Outcome) {
        let hash = event.version.key.hash();
        let sends = out.sends.len();
        self.entries.fetch(hash);
        self.take_event(at, event, out);
        self.entries.settle(hash);
        for send in out.sends[sends..].iter_mut().filter(|send| Arc::ptr_eq(&send.version, &event.version)) {
            send.before.clone_from(&event.before);
        }
    }

    fn take_event(&mut self, at: Offset, event: &Event, out: &mut Outcome) {
        let Origin::Member(origin) = event.version.origin else { return };
        let before = Expected::Image(event.before_image);
        let seeding = self.is_seeding(&event.version.key.table);
        // A row that the event had seen may be at others, too, where it is still to be copied from.
        let also = seeding.then_some(before);
        if self.merged(at, event, origin, also, out) {
            return;
        }
        let held = match self.entries.get(&event.version.key) {
            Some(entry) if entry.is_pending(origin) => entry.version.clone(),
            entry => {
                // What an older send has left at the origin meanwhile, and the event was made over, the others need not have.
                let over = entry.map_or(before, |entry| Expected::Image(entry.version.image));
                // Where nothing is under way, the row need not have been copied yet.
                let also = if entry.is_none() && seeding { Some(Expected::Image(Image::Absent)) } else { also };
                self.hit(Branch::Unopposed);
                let to = To { origin: Some(origin), over, also, own: Own::Nothing };
                return self.accept(at, event.version.clone(), to, out);
            }
        };
        // The others have what is held, whatever an older send has left at the origin meanwhile.
        let over_held = Expected::Image(held.image);
        // Its own version sent back to it, or it evidently saw this one.
        if held.origin == Origin::Member(origin) || event.before_image == held.image {
            self.hit(Branch::Seen);
            return self.accept_over(at, &event.version, origin, (over_held, also), out);
        }
        if held.read {
            self.hit(Branch::BeatsRead);
            self.beats_seed(at, &held, &event.version, out);
            return self.accept_over(at, &event.version, origin, (over_held, also), out);
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
            stands: None,
            at: None,
        };
        match won {
            Winner::Event => {
                self.hit(Branch::EventWins);
                self.dispute(&held, conflict(&event.version, &held), out);
                self.accept_over(at, &event.version, origin, (over_held, also), out);
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
    fn merged(&mut self, at: Offset, event: &Event, origin: Member, also: Option<Expected>, out: &mut Outcome) -> bool {
        if !self.merges {
            return false;
        }
        let Some(entry) = self.entries.get(&event.version.key) else { return false };
        let Some(rules) = self.rules.get(&event.version.key.table) else { return false };
        let (Some(columns), false) = (&rules.merge, entry.version.read) else { return false };
        let Some(rows) = rules::rows(&entry.version, event) else { return false };
        if !self.is_known(entry, event, origin) {
            self.hit(Branch::SeedUnknown);
            return false;
        }
        let held = entry.version.clone();
        let Ok(merged) = merge(&held, event, rows, rules, columns, at) else {
            self.hit(Branch::Overflow);
            return false;
        };
        if entry.of(origin).is_none() && merged.version.image == event.version.image {
            self.hit(Branch::MergedToEvent);
            let to = To { origin: Some(origin), over: Expected::Image(held.image), also, own: Own::Nothing };
            self.accept(at, event.version.clone(), to, out);
            return true;
        }
        self.hit(Branch::Merged);
        let version = Arc::new(merged.version);
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
                stands: Some(version.clone()),
                at: None,
            };
            self.dispute(&held, conflict, out);
        }
        let own = Own::Over(Expected::Image(event.version.image));
        let to = To { origin: Some(origin), over: Expected::Image(held.image), also, own };
        self.accept(at, version, to, out);
        true
    }

    /// A snapshot row never beats a change event, and is no conflict but with another one.
    pub fn read(&mut self, at: Offset, version: &Arc<Version>, out: &mut Outcome) {
        let Origin::Member(origin) = version.origin else { return };
        if self.has(&version.key) {
            if self.is_seeding(&version.key.table) {
                return self.compare(at, version, origin, out);
            }
            return self.hit(Branch::ReadDropped);
        }
        self.hit(Branch::ReadTaken);
        let to = To { origin: Some(origin), over: Expected::Image(Image::Absent), also: None, own: Own::Nothing };
        self.accept(at, version.clone(), to, out);
        self.entries.settle(version.key.hash());
    }

    pub fn decision(&mut self, at: Offset, decision: &Decision, out: &mut Outcome) {
        if self.disputed.get(&decision.version.key) != Some(&decision.seen) {
            return self.hit(Branch::DecisionOutdated);
        }
        self.hit(Branch::DecisionTaken);
        let to = To { origin: None, over: Expected::Image(decision.seen), also: None, own: Own::Nothing };
        self.entries.fetch(decision.version.key.hash());
        self.accept(at, decision.version.clone(), to, out);
        self.entries.settle(decision.version.key.hash());
    }

    /// Sends a version to everyone else over one or two images; its origin keeps what it has.
    fn accept_over(
        &mut self,
        at: Offset,
        version: &Arc<Version>,
        origin: Member,
        (over, also): (Expected, Option<Expected>),
        out: &mut Outcome,
    ) {
        let to = To { origin: Some(origin), over, also, own: Own::Keep };
        self.accept(at, version.clone(), to, out);
    }

    /// Sends a version to each member over the image expected there, or over any that older sends under way to it may have
    /// found or left.
    fn accept(&mut self, at: Offset, version: Arc<Version>, to: To, out: &mut Outcome) {
        let Self { members, entries, limits, sent, .. } = self;
        let hash = version.key.hash();
        let mut send = SmallVec::new();
        let (entry, replaced) = entries.accept(&version);
        if let Some(left) = replaced.map(Expected::Image) {
            for way in entry.under_way.iter_mut().filter(|way| !way.unsure) {
                way.over.push(left, limits.images);
                // Where nothing is sent, the version is the member's own, and nobody else's was under way to it for sure.
                way.unsure = true;
            }
        }
        let mut put = |entry: &mut Entry, member: Member, expected: Expected| {
            sent[usize::from(member.0)].push(at, hash);
            let over = match entry.of_mut(member) {
                Some(way) => {
                    way.over.push(expected, limits.images);
                    to.also.into_iter().for_each(|also| way.over.push(also, limits.images));
                    (way.sent, way.unsure) = (at, false);
                    way.over.to_list()
                }
                None => {
                    let mut over = Images::one(expected);
                    to.also.into_iter().for_each(|also| over.push(also, limits.images));
                    let list = over.to_list();
                    entry.under_way.push(UnderWay { member, sent: at, over, near: SmallVec::new(), unsure: false });
                    list
                }
            };
            send.push((member, Expectation::Over(over)));
        };
        members.iter().filter(|member| Some(**member) != to.origin).for_each(|member| put(entry, *member, to.over));
        match (to.origin, to.own) {
            (Some(origin), Own::Over(expected)) => put(entry, origin, expected),
            (Some(origin), Own::Keep) => send.push((origin, Expectation::Keep)),
            (_, Own::Nothing) | (None, _) => {}
        }
        if let Some(image) = self.disputed.get_mut(&version.key) {
            *image = version.image;
        }
        out.sends.push(Send { version, before: None, to: send });
    }

    /// Notes what a member holds, or may hold, of a key with a send under way to it.
    pub fn stands(&mut self, member: Member, key: &RowKey, image: Image) {
        self.entries.fetch(key.hash());
        if let Some(way) = self.entries.get_mut(key).and_then(|entry| entry.of_mut(member)) {
            way.stands(image);
        }
        self.entries.settle(key.hash());
    }

    /// The same of what is now handed out to it: adds to `over` in which states the key may be met there until then.
    pub fn hand_out(&mut self, member: Member, key: &RowKey, image: Image, over: &mut Expectations) {
        self.entries.fetch(key.hash());
        if let Some(way) = self.entries.get_mut(key).and_then(|entry| entry.of_mut(member)) {
            for near in &way.near {
                let expected = Expected::Image(*near);
                if !over.contains(&expected) {
                    over.push(expected);
                }
            }
            way.stands(image);
        }
        self.entries.settle(key.hash());
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
        let over = way.over.to_list();
        self.sent[usize::from(member.0)].push(at, version.key.hash());
        out.sends.push(Send {
            version: version.clone(),
            before: None,
            to: smallvec![(member, Expectation::Over(over))],
        });
    }

    /// Puts on record that members undo each other's writes, of which the event is one: what is held stands against the
    /// state before it, which is another member's.
    pub fn flip_flop(&mut self, at: Offset, event: &Event, other: Member, out: &mut Outcome) {
        let Event { version, before, before_image } = event;
        self.entries.fetch(version.key.hash());
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
            stands: None,
            at: None,
        };
        self.dispute(&held, conflict, out);
        self.entries.settle(version.key.hash());
    }

    /// Puts a conflict on record; `held` stands until something else is accepted.
    fn dispute(&mut self, held: &Arc<Version>, conflict: Conflict, out: &mut Outcome) {
        out.conflicts.push(conflict);
        if let Some(image) = self.disputed.get_mut(&held.key) {
            *image = held.image;
        } else {
            let key = held.key.detached();
            self.disputed.insert(key.clone(), held.image);
            self.disputed_order.push_back(key);
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
        let key = RowKey::new("t".into(), Key::from_bytes(bytes::Bytes::from_static(b"k")));
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
            assert_eq!(to.map(|(_, expectation)| expectation), Some(&Expectation::Over(smallvec![image(3)])));
        }
    }
}
