//! A sink as a test drives it: batches that follow one another, and the lot where refused writes go.

use async_trait::async_trait;
use std::sync::Mutex;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::Change;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Applied, Marker, ParkedKey, Parking, Refused, Sink, Write, WriteBatch};

/// The log's name in a marker that is new.
pub const LOG: &str = "log-1";

pub struct Writer {
    pub sink: Box<dyn Sink>,
    /// As it stands at the target.
    pub marker: Marker,
    /// What was parked when the target was taken over.
    pub parked: Vec<ParkedKey>,
}

impl Writer {
    /// Takes the target over.
    pub async fn over(mut sink: Box<dyn Sink>) -> Result<Self> {
        let progress = sink.take_over(LOG).await?;
        Ok(Self { sink, marker: progress.marker, parked: progress.parked })
    }

    /// The next batch; its writes get the offsets behind the marker's.
    pub fn batch(&self, mut writes: Vec<Write>) -> WriteBatch {
        let from = self.marker.offset.map_or(0, |offset| offset.0 + 1);
        for (offset, write) in (from..).zip(&mut writes) {
            write.offset = Offset(offset);
        }
        let offset = Offset(from + writes.len() as u64);
        // Digests use all bits.
        let digest = u64::MAX - offset.0;
        let marker = Marker { offset: Some(offset), digest, writes: self.marker.writes + 1, ..self.marker.clone() };
        WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new(), retry: false }
    }

    pub async fn try_apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        let applied = self.sink.apply(batch, parking).await?;
        self.marker = batch.marker.clone();
        Ok(applied)
    }

    pub async fn apply(&mut self, writes: Vec<Write>) -> Result<Applied> {
        let batch = self.batch(writes);
        self.try_apply(&batch, &Lot::default()).await
    }
}

/// A write of a key of which nothing is parked.
pub fn write(change: Change) -> Write {
    Write { change, offset: Offset(0), parked: false, over: None }
}

/// A write of a key of which an older version is parked.
pub fn again(change: Change) -> Write {
    Write { parked: true, ..write(change) }
}

/// Keeps what it was given, call by call.
#[derive(Default)]
pub struct Lot(pub Mutex<Vec<Vec<Refused>>>);

impl Lot {
    /// The writes of the last call.
    pub fn refused(&self) -> Vec<(usize, ErrorClass)> {
        self.0.lock().unwrap().last().map(|last| refused(last)).unwrap_or_default()
    }
}

#[async_trait]
impl Parking for Lot {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, refused: &[Refused]) -> Result<()> {
        self.0.lock().unwrap().push(refused.to_vec());
        Ok(())
    }
}

/// Refused writes by their place in the batch.
pub fn refused(of: &[Refused]) -> Vec<(usize, ErrorClass)> {
    of.iter().map(|refused| (refused.write, refused.class)).collect()
}
