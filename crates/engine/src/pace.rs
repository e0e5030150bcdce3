//! A two-way capture keeps pace with the appliers that it is for.
//!
//! What is captured far ahead of them is only more under way: keys that go to disk and come back, and conflicts found
//! later. So a capture rests where it is ahead of all of them, as long as one of them moves. That is no bound that anybody
//! waits at: no applier needs an echo to go on, and one that stands still holds back nobody.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Records.
const AHEAD: u64 = 20_000;

/// Appliers that have not moved for so long stand still.
const UNMOVED: Duration = Duration::from_secs(1);

/// How far the appliers of a pipeline have come: for each the offset after the last record that it is done with.
pub type Offsets = watch::Sender<Vec<u64>>;

/// An applier's part of them.
#[derive(Clone)]
pub struct Progress {
    offsets: Offsets,
    place: usize,
}

impl Progress {
    pub fn new(offsets: &Offsets, place: usize) -> Self {
        Self { offsets: offsets.clone(), place }
    }

    pub fn moved(&self, next: u64) {
        self.offsets.send_modify(|offsets| offsets[self.place] = next);
    }
}

/// What a capture knows of them.
pub struct Pace {
    offsets: watch::Receiver<Vec<u64>>,
    /// The place of the applier that writes to the database of this capture: it has nothing to do about its changes.
    own: usize,
    /// How far the others had come when one of them moved last.
    seen: Vec<u64>,
    moved: Instant,
}

impl Pace {
    pub fn new(offsets: &Offsets, own: usize) -> Self {
        Self { offsets: offsets.subscribe(), own, seen: Vec::new(), moved: Instant::now() }
    }

    /// Whether a capture that has published up to here rests.
    pub fn rests(&mut self, published: u64) -> bool {
        let offsets = self.offsets.borrow_and_update();
        let others = || offsets.iter().enumerate().filter(|(place, _)| *place != self.own).map(|(_, offset)| *offset);
        if !others().eq(self.seen.iter().copied()) {
            self.moved = Instant::now();
            self.seen.clear();
            self.seen.extend(others());
        }
        self.seen.iter().all(|offset| offset.saturating_add(AHEAD) < published) && self.moved.elapsed() < UNMOVED
    }

    /// Until one of them has moved, or none does any more. Cancel safe.
    pub async fn rest(&mut self) {
        let stands = self.moved + UNMOVED;
        let moved = async {
            // Nobody is there any more to move.
            if self.offsets.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::time::timeout_at(stands, moved).await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_capture_rests_ahead_of_all_others_as_long_as_one_of_them_moves() {
        let offsets = Offsets::new(vec![0; 3]);
        let [own, one, other] = [0, 1, 2].map(|place| Progress::new(&offsets, place));
        let mut pace = Pace::new(&offsets, 0);
        assert!(!pace.rests(AHEAD), "as far ahead as it may be");
        assert!(pace.rests(AHEAD + 1));
        own.moved(AHEAD);
        assert!(pace.rests(AHEAD + 1), "its own applier is no measure");
        other.moved(1);
        pace.rest().await;
        assert!(!pace.rests(AHEAD + 1), "one of them is near");
        assert!(pace.rests(AHEAD + 2));
        let begun = Instant::now();
        pace.rest().await;
        assert_eq!(begun.elapsed(), UNMOVED);
        assert!(!pace.rests(AHEAD + 2), "they stand still");
        one.moved(1);
        assert!(pace.rests(AHEAD + 2));
        drop((own, one, other, offsets));
        pace.rest().await;
        assert!(!pace.rests(AHEAD + 2), "nobody is there any more");
    }
}
