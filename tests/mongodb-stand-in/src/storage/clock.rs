//! Cluster time.

use bson::{DateTime, Timestamp};

/// Seconds in the upper half, a counter in the lower, so that plain numbers compare as cluster times do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    pub const ZERO: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub fn timestamp(self) -> Timestamp {
        Timestamp { time: (self.0 >> 32) as u32, increment: self.0 as u32 }
    }

    fn at_second(second: u64) -> Self {
        Self(second << 32 | 1)
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(u64::from(timestamp.time) << 32 | u64::from(timestamp.increment))
    }
}

#[derive(Debug)]
pub struct Clock {
    last: Time,
}

impl Clock {
    pub fn start() -> Self {
        Self { last: now() }
    }

    pub fn last(&self) -> Time {
        self.last
    }

    /// A time for a new commit, later than every other.
    pub fn tick(&mut self) -> Time {
        self.last = self.last.next().max(now());
        self.last
    }

    /// The present without a commit: the clock goes on while nothing is written, as a primary's no-ops make it.
    pub fn idle(&mut self) -> Time {
        self.observe(now());
        self.last
    }

    pub fn observe(&mut self, time: Time) {
        self.last = self.last.max(time);
    }

    /// After a restart nothing may get a time that a client saw before it and the journal lost.
    pub fn skip_a_second(&mut self) {
        self.observe(Time::at_second((now().0 >> 32) + 1));
    }
}

fn now() -> Time {
    Time::at_second((DateTime::now().timestamp_millis() / 1000) as u64)
}
