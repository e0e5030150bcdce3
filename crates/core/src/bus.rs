//! The totally ordered, partitioned, durable log between capture and apply.

use crate::error::Result;
use crate::record::{Delivered, Offset, Partition, Record};
use async_trait::async_trait;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Resolves once the published records are durable: the offset of the last one.
pub type Receipt = Pin<Box<dyn Future<Output = Result<Offset>> + Send>>;

/// Resolves once records that were read ahead are durable; an error where they never will be.
pub type Flush = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest record that is still there.
    pub first: Offset,
    /// The offset that the next record will get.
    pub next: Offset,
}

/// The log of one pipeline.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Names this very log: one that was lost and made anew has another.
    fn identity(&self) -> &str;

    /// What is durable now.
    async fn bounds(&self, partition: Partition) -> Result<Bounds>;

    /// Puts records behind those of earlier calls. Returns when they are queued, waiting while the queue is full; the
    /// receipt resolves when they are durable, in the order of the calls. After an error nothing later becomes durable
    /// until every receipt that failed has been awaited or dropped; then the publisher looks at the bounds again.
    async fn publish(&self, partition: Partition, records: Vec<Record>) -> Result<Receipt>;

    /// Reads from an offset on. An offset outside the bounds (`next` itself is inside) is a GAP.
    async fn subscribe(&self, partition: Partition, from: Offset) -> Result<Box<dyn Subscription>>;

    /// Reads like [`Bus::subscribe`], and also what is written and not durable yet. Nothing may take effect before
    /// [`Ahead::durability`] says that it is durable (invariant 2).
    async fn subscribe_ahead(&self, partition: Partition, from: Offset) -> Result<Ahead>;

    /// Declares what a consumer still needs: nothing at or after this offset is removed. A consumer counts from its
    /// first call on, also over a restart.
    async fn retain(&self, partition: Partition, consumer: &str, from: Offset) -> Result<()>;
}

/// A reader that is ahead of what is durable. Where records that could not be made durable are taken back, it ends with a
/// Transient error whether it has read them or not: their offsets are given to other records.
pub struct Ahead {
    pub subscription: Box<dyn Subscription>,
    pub durability: Arc<dyn Durability>,
}

/// What has become of the records of one reader.
pub trait Durability: Send + Sync {
    /// None when all records up to this one are durable.
    fn pending(&self, offset: Offset) -> Option<Flush>;
}

#[async_trait]
pub trait Subscription: Send {
    /// Waits for records and returns at least one, up to about `bytes` bytes of them. Cancel safe.
    async fn next(&mut self, bytes: usize) -> Result<Vec<Delivered>>;

    /// Whether everything durable has been returned.
    fn caught_up(&self) -> bool;
}
