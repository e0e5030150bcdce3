//! The seed of a randomised test: `SYNC_WORKER_SEED`, or a new one. Printed, so that a failure can be repeated.

use rand::Rng;

pub fn seed() -> anyhow::Result<u64> {
    let seed = match std::env::var("SYNC_WORKER_SEED") {
        Ok(text) => text.parse().map_err(|_| anyhow::anyhow!("SYNC_WORKER_SEED is no number"))?,
        Err(_) => rand::rng().random_range(0..1_000_000),
    };
    println!("SYNC_WORKER_SEED={seed}");
    Ok(seed)
}
