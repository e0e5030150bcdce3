//! Waiting for something to become true, with a deadline and a word on what was waited for.

use std::time::Duration;
use tokio::time::Instant;

/// Between two looks. What is looked at is a server's or a worker's state, which sends no notice.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `look` has something, and returns it. An error of the last look is a part of the message.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => String::new(),
            Ok(Err(error)) => format!(": {error:#}"),
            Err(_) => ": the last look gave no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("waited {} s in vain for {what}{last}", limit.as_secs_f32());
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + INTERVAL)).await;
    }
}
