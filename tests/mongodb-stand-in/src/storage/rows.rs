//! A collection's rows by `_id`, each with its earlier versions for reads at a past cluster time.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::clock::Time;
use crate::query::range::Range;
use crate::value::Shared;
use crate::value::order::Key;

#[derive(Debug, Default)]
pub struct Rows {
    versions: BTreeMap<Key, Versions>,
    /// How many rows there are now.
    count: usize,
}

#[derive(Debug)]
struct Versions {
    since: Time,
    /// `None`: deleted.
    now: Option<Shared>,
    /// Ascending; each lasted until the next one's time.
    earlier: Vec<(Time, Option<Shared>)>,
}

impl Versions {
    fn at(&self, time: Time) -> Option<&Shared> {
        if self.since <= time {
            return self.now.as_ref();
        }
        self.earlier.iter().rev().find(|(since, _)| *since <= time).and_then(|(_, row)| row.as_ref())
    }

    fn at_or_now(&self, time: Option<Time>) -> Option<&Shared> {
        time.map_or(self.now.as_ref(), |time| self.at(time))
    }
}

/// What a transaction has written itself and sees before its commit.
pub type Own = BTreeMap<Key, Option<Shared>>;

impl Rows {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn get(&self, key: &Key, time: Option<Time>) -> Option<&Shared> {
        self.versions.get(key).and_then(|versions| versions.at_or_now(time))
    }

    /// When the row was last written or deleted.
    pub fn changed_at(&self, key: &Key) -> Time {
        self.versions.get(key).map_or(Time::ZERO, |versions| versions.since)
    }

    /// Writes or deletes; gives the row that was there.
    pub fn put(&mut self, key: &Key, time: Time, row: Option<Shared>) -> Option<Shared> {
        let (is, was) = (row.is_some(), self.versions.get_mut(key));
        let before = match was {
            Some(versions) => {
                let before = std::mem::replace(&mut versions.now, row);
                versions.earlier.push((versions.since, before.clone()));
                versions.since = time;
                before
            }
            None => {
                self.versions.insert(key.clone(), Versions { since: time, now: row, earlier: Vec::new() });
                None
            }
        };
        self.count = self.count + usize::from(is) - usize::from(before.is_some());
        before
    }

    /// Forgets what nobody can read any more: versions that were over at the given time.
    pub fn forget(&mut self, key: &Key, time: Time) {
        let Some(versions) = self.versions.get_mut(key) else { return };
        let over = versions.earlier.partition_point(|(since, _)| *since <= time);
        if versions.since <= time {
            versions.earlier.clear();
            if versions.now.is_none() {
                self.versions.remove(key);
            }
        } else if over > 1 {
            versions.earlier.drain(..over - 1);
        }
    }

    pub fn now(&self) -> impl Iterator<Item = (&Key, &Shared)> {
        self.versions.iter().filter_map(|(key, versions)| Some((key, versions.now.as_ref()?)))
    }

    /// The rows of a range in order, as of a time and with a transaction's own writes on top.
    pub fn scan<'a>(
        &'a self,
        range: &'a Range,
        time: Option<Time>,
        own: Option<&'a Own>,
        descending: bool,
    ) -> Box<dyn Iterator<Item = &'a Shared> + 'a> {
        match range {
            Range::Keys(keys) => {
                let row = move |key| match own.and_then(|own| own.get(key)) {
                    Some(own) => own.as_ref(),
                    None => self.get(key, time),
                };
                turned(keys.iter().filter_map(row), descending)
            }
            Range::Between(low, high) => {
                let bounds = (low.as_ref(), high.as_ref());
                if is_empty(bounds) {
                    return Box::new(std::iter::empty());
                }
                let rows =
                    self.versions.range::<Key, _>(bounds).map(move |(key, versions)| (key, versions.at_or_now(time)));
                match own {
                    Some(own) if !own.is_empty() => {
                        let mut merged: BTreeMap<&Key, Option<&Shared>> = rows.collect();
                        merged.extend(own.range::<Key, _>(bounds).map(|(key, row)| (key, row.as_ref())));
                        turned(merged.into_values().flatten(), descending)
                    }
                    _ => turned(rows.filter_map(|(_, row)| row), descending),
                }
            }
        }
    }
}

fn turned<'a>(
    rows: impl DoubleEndedIterator<Item = &'a Shared> + 'a,
    descending: bool,
) -> Box<dyn Iterator<Item = &'a Shared> + 'a> {
    if descending { Box::new(rows.rev()) } else { Box::new(rows) }
}

/// Bounds that `BTreeMap::range` would panic on.
pub fn is_empty(bounds: (Bound<&Key>, Bound<&Key>)) -> bool {
    match bounds {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBson, rawdoc};
    use std::sync::Arc;

    fn key(id: i32) -> Key {
        Key(RawBson::Int32(id))
    }

    fn row(id: i32, value: i32) -> Option<Shared> {
        Some(Arc::new(rawdoc! {"_id": id, "v": value}))
    }

    #[test]
    fn a_past_time_shows_past_versions_until_they_are_forgotten() {
        let mut rows = Rows::default();
        rows.put(&key(1), Time(10), row(1, 0));
        rows.put(&key(1), Time(20), row(1, 1));
        rows.put(&key(1), Time(30), None);
        assert_eq!(rows.get(&key(1), Some(Time(5))), None);
        assert_eq!(rows.get(&key(1), Some(Time(15))), row(1, 0).as_ref());
        assert_eq!(rows.get(&key(1), Some(Time(29))), row(1, 1).as_ref());
        assert_eq!(rows.get(&key(1), None), None);
        rows.forget(&key(1), Time(20));
        assert_eq!(rows.get(&key(1), Some(Time(29))), row(1, 1).as_ref());
        rows.forget(&key(1), Time(30));
        assert!(rows.versions.is_empty() && rows.len() == 0);
    }

    #[test]
    fn a_transaction_sees_its_own_writes_in_order() {
        let mut rows = Rows::default();
        rows.put(&key(1), Time(1), row(1, 0));
        rows.put(&key(3), Time(1), row(3, 0));
        let own = Own::from([(key(2), row(2, 9)), (key(3), None)]);
        let range = Range::Between(Bound::Unbounded, Bound::Unbounded);
        let seen: Vec<_> = rows.scan(&range, None, Some(&own), true).flat_map(|row| row.get_i32("_id")).collect();
        assert_eq!(seen, [2, 1]);
    }
}
