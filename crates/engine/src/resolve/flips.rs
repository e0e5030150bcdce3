//! Keys that go back and forth between two states: two members whose applications, jobs or triggers undo each other's
//! writes would do so for ever, as fast as the pipeline carries them.

use super::key::RowKey;
use super::version::Member;
use sync_worker_core::guard::Image;

/// So many times one member undoes what another has just done, within so many microseconds of commit time.
pub const LIMIT: u32 = 20;
pub const WINDOW: i64 = 60_000_000;

/// Keys that are watched. Each has one place, and a newer key in it takes it: one that goes back and forth is soon there
/// again.
const PLACES: usize = 1_024;

/// The last write of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// A digest of table and key.
    pub key: u64,
    pub by: Member,
    pub from: Image,
    pub to: Image,
    /// How many times in a row it was undone, and the commit time of the first.
    pub undone: u32,
    pub since: i64,
}

/// Decides by records alone, as the resolver does (invariant 6).
#[derive(Clone, Debug)]
pub struct Flips {
    places: Vec<Option<Last>>,
}

impl Default for Flips {
    fn default() -> Self {
        Self { places: vec![None; PLACES] }
    }
}

impl Flips {
    /// Takes a write into account. Where the key goes back and forth, the member whose writes these undo.
    pub fn saw(&mut self, key: &RowKey, by: Member, from: Image, to: Image, commit_time: i64) -> Option<Member> {
        let key = digest(key);
        let place = &mut self.places[place(key)];
        let undoes = |last: &Last| last.key == key && last.by != by && last.to == from && last.from == to;
        let (undone, since) = match place {
            Some(last) if undoes(last) && last.undone > 0 && (0..=WINDOW).contains(&(commit_time - last.since)) => {
                (last.undone + 1, last.since)
            }
            Some(last) if undoes(last) => (1, commit_time),
            Some(_) | None => (0, commit_time),
        };
        let other = place.filter(|_| undone >= LIMIT).map(|last| last.by);
        *place = Some(Last { key, by, from, to, undone, since });
        other
    }

    /// A decision begins the count anew.
    pub fn forget(&mut self, key: &RowKey) {
        let key = digest(key);
        let place = &mut self.places[place(key)];
        *place = place.filter(|last| last.key != key);
    }

    /// What a checkpoint keeps.
    pub fn all(&self) -> impl Iterator<Item = &Last> {
        self.places.iter().flatten()
    }

    pub fn put(&mut self, last: Last) {
        self.places[place(last.key)] = Some(last);
    }
}

fn place(key: u64) -> usize {
    // The remainder is below the number of places.
    usize::try_from(key % PLACES as u64).unwrap_or(0)
}

fn digest(key: &RowKey) -> u64 {
    let table = xxhash_rust::xxh3::xxh3_64(key.table.as_str().as_bytes());
    xxhash_rust::xxh3::xxh3_64_with_seed(key.key.as_bytes(), table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::row::Key;

    const A: Member = Member(0);
    const B: Member = Member(1);
    const SECOND: i64 = 1_000_000;

    fn key() -> RowKey {
        RowKey::new("t".into(), Key::from_bytes(bytes::Bytes::from_static(b"k")))
    }

    fn image(number: u8) -> Image {
        Image::Row([number; 16])
    }

    /// After how many writes, `every` microseconds apart, it trips.
    fn trips(writes: impl Iterator<Item = (Member, u8, u8)>, every: i64) -> Option<usize> {
        let mut flips = Flips::default();
        let mut time = 0;
        writes.take(500).position(|(by, from, to)| {
            time += every;
            flips.saw(&key(), by, image(from), image(to), time).is_some()
        })
    }

    #[test]
    fn two_members_that_undo_each_others_writes_are_told_and_nobody_else() {
        let undo = || [(A, 1, 2), (B, 2, 1)].into_iter().cycle();
        assert_eq!(trips(undo(), 1_000), Some(LIMIT as usize));
        assert_eq!(trips(undo(), 2 * SECOND), Some(LIMIT as usize));
        // Slower than that it is how they work.
        assert_eq!(trips(undo(), 4 * SECOND), None);
        assert_eq!(trips([(A, 1, 2), (A, 2, 1)].into_iter().cycle(), 1_000), None, "one member alone");
        let round = [(A, 1, 2), (B, 2, 3), (A, 3, 1), (B, 1, 2), (A, 2, 3), (B, 3, 1)];
        assert_eq!(trips(round.into_iter().cycle(), 1_000), None, "three states");
        let counts = (0..=200u8).map(|at| (if at % 2 == 0 { A } else { B }, at, at + 1));
        assert_eq!(trips(counts, 1_000), None);
    }

    #[test]
    fn a_decision_begins_the_count_anew() {
        let mut flips = Flips::default();
        let undo = |flips: &mut Flips, times: u32| {
            (0..times).any(|at| {
                let (by, from, to) = if at % 2 == 0 { (A, 1, 2) } else { (B, 2, 1) };
                let other = flips.saw(&key(), by, image(from), image(to), i64::from(at));
                assert_ne!(other, Some(by));
                other.is_some()
            })
        };
        assert!(!undo(&mut flips, LIMIT));
        flips.forget(&key());
        assert!(!undo(&mut flips, LIMIT));
        assert!(undo(&mut flips, LIMIT + 1));
    }
}
