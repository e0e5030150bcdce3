//! A log whose flush is late, as a sink meets it.

use crate::memory::MemoryError;
use async_trait::async_trait;
use std::future::Future;
use std::sync::Mutex;
use sync_worker_core::bus::Flush;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::sink::{Applied, Parking, Refused, Sink, WriteBatch};
use tokio::sync::oneshot;

struct Late {
    asked: Mutex<Option<oneshot::Sender<()>>>,
    flushed: Mutex<Option<oneshot::Receiver<()>>>,
}

#[async_trait]
impl Parking for Late {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        let take_asked = self.asked.lock().unwrap().take();
        take_asked.into_iter().for_each(|asked| asked.send(()).unwrap_or_default());
        let flushed = self.flushed.lock().unwrap().take()?;
        let lost = |_| MemoryError::new(ErrorClass::Transient, "the records were lost");
        Some(Box::pin(async move { Ok(flushed.await.map_err(lost)?) }))
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> Result<()> {
        Ok(())
    }
}

/// Applies a batch whose records are not durable when the sink is about to commit. `look` runs while it waits; then they
/// become durable, or are lost.
pub async fn apply_late(
    sink: &mut dyn Sink,
    batch: &WriteBatch,
    durable: bool,
    look: impl Future<Output = ()>,
) -> Result<Applied> {
    let ((asked, waits), (flush, flushed)) = (oneshot::channel(), oneshot::channel());
    let late = Late { asked: Mutex::new(Some(asked)), flushed: Mutex::new(Some(flushed)) };
    let decide = async {
        waits.await.expect("the sink ended without asking");
        look.await;
        if durable {
            flush.send(()).expect("the sink does not wait");
        }
    };
    tokio::join!(sink.apply(batch, &late), decide).0
}
