//! Which member is primary, which are stopped, and for how long there is no primary at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Election {
    members: usize,
    /// Who is primary, or will be when the gap is over.
    primary: usize,
    gap_until: Option<Instant>,
    pub term: i64,
    /// Counts what a waiting `hello` is told at once: `topologyVersion`.
    pub version: i64,
    last_seen: Option<usize>,
    stopped: BTreeSet<usize>,
}

impl Election {
    pub fn new(members: usize) -> Self {
        Self { members, primary: 0, gap_until: None, term: 1, version: 1, last_seen: Some(0), stopped: BTreeSet::new() }
    }

    pub fn primary(&self) -> Option<usize> {
        let in_gap = self.gap_until.is_some_and(|until| Instant::now() < until);
        (!in_gap && !self.stopped.contains(&self.primary)).then_some(self.primary)
    }

    /// Whether somebody else is primary than when this was last asked; a gap ends without anybody's doing.
    pub fn has_changed(&mut self) -> bool {
        let primary = self.primary();
        let changed = primary != self.last_seen;
        self.last_seen = primary;
        self.version += i64::from(changed);
        changed
    }

    pub fn is_primary(&self, member: usize) -> bool {
        self.primary() == Some(member)
    }

    pub fn is_stopped(&self, member: usize) -> bool {
        self.stopped.contains(&member)
    }

    /// The next running member takes over after the gap; alone, the old one comes back.
    pub fn step_down(&mut self, gap: Duration) {
        let after = (1..=self.members).map(|step| (self.primary + step) % self.members);
        self.primary = after.into_iter().find(|member| !self.stopped.contains(member)).unwrap_or(self.primary);
        self.gap_until = Some(Instant::now() + gap);
        self.term += 1;
    }

    /// True if the stopped member was the primary, whose place is taken after the gap.
    pub fn stop(&mut self, member: usize, gap: Duration) -> bool {
        self.stopped.insert(member);
        let was_primary = self.primary == member;
        if was_primary {
            self.step_down(gap);
        }
        was_primary
    }

    pub fn start(&mut self, member: usize) {
        self.stopped.remove(&member);
    }
}
