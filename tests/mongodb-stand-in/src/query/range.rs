//! The part of a collection that a read has to look at: a range or a set of `_id` values.

use std::ops::Bound;

use bson::{RawBson, RawDocument};

use super::condition::Condition;
use super::filter::Filter;
use crate::failure::Failure;
use crate::value::order::Key;
use crate::value::read::Read;

#[derive(Debug)]
pub enum Range {
    /// In ascending order, each once.
    Keys(Vec<Key>),
    Between(Bound<Key>, Bound<Key>),
}

impl Range {
    pub fn of(filter: &Filter) -> Self {
        let mut conditions = Vec::new();
        filter.conditions_of("_id", &mut conditions);
        let (mut low, mut high) = (Bound::Unbounded, Bound::Unbounded);
        for condition in conditions {
            match condition {
                Condition::Equal(value) if !matches!(value, RawBson::Array(_)) => {
                    return Self::Keys(vec![Key(value.clone())]);
                }
                Condition::In(values) => {
                    let values = values.iter().map(|value| match value {
                        Condition::Equal(value) => Some(Key(value.clone())),
                        _ => None,
                    });
                    if let Some(mut keys) = values.collect::<Option<Vec<Key>>>() {
                        keys.sort();
                        keys.dedup();
                        return Self::Keys(keys);
                    }
                }
                Condition::Compare(orders, limit) => {
                    let limit = Key(limit.clone());
                    let inclusive = orders.contains(&std::cmp::Ordering::Equal);
                    let bound = if inclusive { Bound::Included(limit) } else { Bound::Excluded(limit) };
                    if orders[0].is_gt() { low = later(low, bound) } else { high = earlier(high, bound) }
                }
                _ => {}
            }
        }
        Self::Between(low, high)
    }

    /// `min` and `max` of a `find`, which cross types as the index does, unlike `$gt`.
    pub fn within(self, command: &RawDocument) -> Result<Self, Failure> {
        let (min, max) = (index_bound(command, "min")?, index_bound(command, "max")?);
        let Self::Between(low, high) = self else { return Ok(self) };
        let low = min.map_or(low.clone(), |min| later(low, Bound::Included(min)));
        let high = max.map_or(high.clone(), |max| earlier(high, Bound::Excluded(max)));
        Ok(Self::Between(low, high))
    }
}

fn index_bound(command: &RawDocument, name: &str) -> Result<Option<Key>, Failure> {
    let Some(bound) = command.document(name) else { return Ok(None) };
    match bound.iter().next() {
        Some(Ok((field, value))) if field.as_str() == "_id" => Ok(Some(Key::of(value))),
        _ => Err(Failure::new(51174, format!("the stand-in knows {name} on the index of _id only"))),
    }
}

fn later(one: Bound<Key>, two: Bound<Key>) -> Bound<Key> {
    match (&one, &two) {
        (Bound::Unbounded, _) => two,
        (_, Bound::Unbounded) => one,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => match a.cmp(b) {
            std::cmp::Ordering::Less => two,
            std::cmp::Ordering::Greater => one,
            std::cmp::Ordering::Equal => {
                if matches!(one, Bound::Excluded(_)) {
                    one
                } else {
                    two
                }
            }
        },
    }
}

fn earlier(one: Bound<Key>, two: Bound<Key>) -> Bound<Key> {
    match (&one, &two) {
        (Bound::Unbounded, _) => two,
        (_, Bound::Unbounded) => one,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => match a.cmp(b) {
            std::cmp::Ordering::Less => one,
            std::cmp::Ordering::Greater => two,
            std::cmp::Ordering::Equal => {
                if matches!(one, Bound::Excluded(_)) {
                    one
                } else {
                    two
                }
            }
        },
    }
}
