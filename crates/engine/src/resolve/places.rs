//! Where the entries on disk lie: some ten bytes of memory for each of them.

use hashbrown::HashTable;
use smallvec::SmallVec;

/// Bits of a place: what is left of a word beside those of the hash.
pub const PLACE_BITS: u32 = 40;

const PLACE: u64 = (1 << PLACE_BITS) - 1;

const TABLES: usize = 256;

/// Of each entry 24 bits of its hash and its place.
///
/// In many tables, so that one grows at a time. Each has a slightly larger share of the hashes than the one before it, up to
/// twice that of the first: they are full at different times, and together two thirds full at any.
pub struct Places {
    tables: Vec<HashTable<u64>>,
    len: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { tables: vec![HashTable::new(); TABLES], len: 0 }
    }
}

/// The bits that an entry keeps of its hash are those that its table was not chosen by.
fn kept(hash: u64) -> u64 {
    hash & 0xFF_FFFF
}

/// Spreads the kept bits over a word, as a table wants it.
fn spread(entry: &u64) -> u64 {
    (entry >> PLACE_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn table(hash: u64) -> usize {
    const LARGEST: f64 = u32::MAX as f64 + 1.0;
    let share = ((hash >> 32) as f64 / LARGEST + 1.0).log2();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to below 1
    let table = (share * TABLES as f64) as usize;
    table.min(TABLES - 1)
}

impl Places {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `place` has [`PLACE_BITS`] bits.
    pub fn put(&mut self, hash: u64, place: u64) {
        let entry = kept(hash) << PLACE_BITS | place & PLACE;
        self.tables[table(hash)].insert_unique(spread(&entry), entry, spread);
        self.len += 1;
    }

    /// Where what has this hash may lie. Another hash may have the same bits: what lies there tells.
    pub fn of(&self, hash: u64) -> SmallVec<[u64; 2]> {
        let wanted = kept(hash) << PLACE_BITS;
        let fits = |entry: &&u64| **entry & !PLACE == wanted;
        self.tables[table(hash)].iter_hash(spread(&wanted)).filter(fits).map(|entry| entry & PLACE).collect()
    }

    pub fn remove(&mut self, hash: u64, place: u64) {
        let wanted = kept(hash) << PLACE_BITS | place & PLACE;
        if let Ok(found) = self.tables[table(hash)].find_entry(spread(&wanted), |entry| *entry == wanted) {
            found.remove();
            self.len -= 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.tables.iter().flatten().map(|entry| entry & PLACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    #[test]
    fn places_are_found_until_they_are_removed() {
        let mut places = Places::default();
        (0..200_000).for_each(|number| places.put(hash(number), number));
        assert_eq!(places.len(), 200_000);
        for number in 0..200_000 {
            assert!(places.of(hash(number)).contains(&number), "{number}");
            if number % 2 == 0 {
                places.remove(hash(number), number);
                assert!(!places.of(hash(number)).contains(&number), "{number}");
            }
        }
        let mut left: Vec<u64> = places.iter().collect();
        left.sort_unstable();
        assert_eq!(left, (1..200_000).step_by(2).collect::<Vec<_>>());
    }

    /// However many there are, for at no number all tables have just doubled.
    #[test]
    fn a_place_takes_some_ten_to_twenty_bytes() {
        let mut places = Places::default();
        for number in 0..1_000_000 {
            places.put(hash(number), number);
            if number > 100_000 && number % 50_000 == 0 {
                // A word and a byte of its own for each bucket, of which seven in eight are used at the most.
                let buckets: usize = places.tables.iter().map(|table| table.capacity() * 8 / 7).sum();
                let bytes = buckets * 9 / places.len();
                assert!(bytes <= 16, "{bytes} bytes with {}", places.len());
            }
        }
    }
}
