//! The transactions that a pipeline's stream has shown lately: a read must see them before it may be called later than
//! them.
//!
//! A transaction can be in the stream and not yet visible to new snapshots: it has written its commit and still waits
//! for a synchronous standby. So positions alone do not say what a read saw.

use crate::client::Client;
use crate::error::Error;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// More than the sessions of any server, each of which can have one such transaction.
const KEPT: usize = 8192;

/// How long a read waits for them. A standby that stays away longer is a matter for the next attempt.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<u32>>);

impl Recent {
    /// Called before the changes of these transactions are handed out.
    pub fn returned(&self, xids: &[u32]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (kept.len() + xids.len()).saturating_sub(KEPT);
        let drained = excess.min(kept.len());
        kept.drain(..drained);
        kept.extend(&xids[xids.len().saturating_sub(KEPT)..]);
    }

    /// After a restart nobody knows what an earlier stream has shown. With a synchronous standby it may still wait to
    /// become visible, so everything that is running now counts as shown.
    pub async fn assume_waiting(&self, client: &Client) -> Result<(), Error> {
        self.assume(client, "SELECT pg_current_snapshot() WHERE current_setting('synchronous_standby_names') <> ''")
            .await
    }

    /// What a running transaction has written to a table before that joined the publication never comes in the stream, so
    /// a read has to see it.
    pub async fn assume_running(&self, client: &Client) -> Result<(), Error> {
        self.assume(client, "SELECT pg_current_snapshot()").await
    }

    async fn assume(&self, client: &Client, sql: &str) -> Result<(), Error> {
        if let Some(text) = client.value("a look at the snapshot", sql).await? {
            let snapshot = Snapshot::parse(&text).ok_or(Error::Protocol("a strange snapshot"))?;
            self.returned(&snapshot.running);
        }
        Ok(())
    }

    /// Waits until every one of them is visible to a new snapshot.
    pub async fn wait_visible(&self, client: &Client) -> Result<(), Error> {
        let deadline = Instant::now() + WAIT;
        let mut wanted: Vec<u32> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let mut pause = Duration::from_millis(1);
        while !wanted.is_empty() {
            let text = client.value("a look at the snapshot", "SELECT pg_current_snapshot()").await?;
            let snapshot = text.as_deref().and_then(Snapshot::parse).ok_or(Error::Protocol("a strange snapshot"))?;
            wanted.retain(|xid| !snapshot.sees(*xid));
            if wanted.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let problem = format!("{} transactions are still not visible (a synchronous standby?)", wanted.len());
                return Err(Error::Lost { doing: "the wait for transactions to become visible".into(), problem });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// `xmin:xmax:xip,...`, each as the low half of its 64 bits.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    next: u32,
    running: Vec<u32>,
}

impl Snapshot {
    fn parse(text: &str) -> Option<Self> {
        let low = |text: &str| text.parse::<u64>().ok().map(|xid| (xid & 0xFFFF_FFFF) as u32);
        let mut parts = text.split(':').skip(1);
        let next = low(parts.next()?)?;
        let running = parts.next()?.split(',').filter(|part| !part.is_empty()).map(low).collect::<Option<_>>()?;
        Some(Self { next, running })
    }

    /// Whether a committed transaction is visible. Ids wrap around: half of them are before any one.
    fn sees(&self, xid: u32) -> bool {
        let before = xid.wrapping_sub(self.next).cast_signed() < 0;
        before && !self.running.contains(&xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_or_future_transaction_is_not_visible() {
        let snapshot = Snapshot::parse("740:745:740,743").unwrap();
        let seen: Vec<bool> = [739, 740, 742, 743, 744, 745].iter().map(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [true, false, true, false, true, false]);
        let wrapped = Snapshot::parse("4294967290:4294967301:").unwrap();
        assert!(wrapped.sees(4_294_967_295) && wrapped.sees(4) && !wrapped.sees(5));
        assert_eq!(Snapshot::parse("nonsense"), None);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let recent = Recent::default();
        recent.returned(&(0..10_000).collect::<Vec<_>>());
        recent.returned(&[1, 2]);
        let kept = recent.0.lock().unwrap();
        assert_eq!((kept.len(), kept.front().copied(), kept.back().copied()), (KEPT, Some(1810), Some(2)));
    }
}
