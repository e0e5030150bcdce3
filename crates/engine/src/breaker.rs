//! A circuit breaker per database: while it is open, no task bothers that database.
//!
//! Every transient failure doubles the delay, from [`FIRST_DELAY`] to [`LONGEST_DELAY`]; a success closes the breaker.
//! The longest delay is well below the 5 s within which a database that returns is promised to be found.

use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

pub const FIRST_DELAY: Duration = Duration::from_millis(100);
pub const LONGEST_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Waits until the database may be tried.
    pub async fn ready(&self) {
        let until = self.lock().open_until;
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Counts a transient failure; returns the delay before the next try.
    pub fn failed(&self) -> Duration {
        let mut state = self.lock();
        // Tasks that fail together count once: they all saw the same outage.
        if state.open_until.is_none_or(|until| until <= Instant::now()) {
            let delay = FIRST_DELAY.saturating_mul(1 << state.failures.min(16)).min(LONGEST_DELAY);
            state.failures += 1;
            state.open_until = Some(Instant::now() + delay);
        }
        state.open_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub fn succeeded(&self) {
        *self.lock() = State::default();
    }

    pub fn is_open(&self) -> bool {
        self.lock().open_until.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole at every point, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_double_to_a_bound_and_a_success_closes() {
        let breaker = Breaker::default();
        let mut delays = Vec::new();
        for _ in 0..7 {
            delays.push(breaker.failed().as_millis());
            breaker.ready().await;
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000]);
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.failed(), FIRST_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_outage_count_once() {
        let breaker = Breaker::default();
        breaker.failed();
        breaker.failed();
        assert_eq!(breaker.failed(), FIRST_DELAY);
    }
}
