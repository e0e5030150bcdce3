//! Sizes and ages of an embedded log.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    /// Fixed for the life of a log.
    pub partitions: u32,
    /// A segment file is closed before it grows beyond this. Retention removes whole segments.
    pub segment_bytes: u64,
    /// Bytes that wait to be written, per partition; a publisher waits while there are more.
    pub queue_bytes: u32,
    /// The newest bytes, per partition, that stay in memory for readers that keep up.
    pub cache_bytes: usize,
    /// Beyond this the oldest segments of a partition go, unless a consumer still needs them.
    pub max_bytes: u64,
    /// Segments last written longer ago go, unless a consumer still needs them.
    pub max_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 1,
            // Large enough that starting a new one costs nothing, small enough that retention is not coarse.
            segment_bytes: 64 << 20,
            // A few groups of `frame::TARGET`: enough to keep the disk busy while the next ones are encoded.
            queue_bytes: 8 << 20,
            // Well above what lies between a publisher and appliers that keep up.
            cache_bytes: 16 << 20,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
        }
    }
}
