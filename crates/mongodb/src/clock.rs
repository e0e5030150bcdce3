//! Cluster time: the moments at which a replica set, or a whole sharded cluster, is in one state.

use bson::Timestamp;
use sync_worker_core::position::{MongodbPosition, Position};

/// The place of the `ordinal`th event of a time.
pub fn place(time: Timestamp, ordinal: u64) -> Position {
    Position::Mongodb(MongodbPosition { seconds: time.time, increment: time.increment, ordinal })
}

/// Above every event of this time and below all later ones.
pub fn end(time: Timestamp) -> Position {
    place(time, u64::MAX)
}

/// The last time before this one.
pub fn before(time: Timestamp) -> Timestamp {
    match (time.time, time.increment) {
        (seconds, 1..) => Timestamp { time: seconds, increment: time.increment - 1 },
        (seconds, 0) => Timestamp { time: seconds.saturating_sub(1), increment: u32::MAX },
    }
}

pub fn after(time: Timestamp) -> Timestamp {
    match time.increment.checked_add(1) {
        Some(increment) => Timestamp { time: time.time, increment },
        None => Timestamp { time: time.time.saturating_add(1), increment: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_between_its_neighbours() {
        for time in [Timestamp { time: 7, increment: 1 }, Timestamp { time: 7, increment: u32::MAX }] {
            assert!(before(time) < time && time < after(time));
            assert!(end(before(time)) < place(time, 0) && end(time) < place(after(time), 0));
            assert_eq!(before(after(time)), time);
        }
    }
}
