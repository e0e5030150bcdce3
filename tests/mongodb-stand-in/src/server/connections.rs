//! The open connections of all members, so that they can be cut.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<i64, (usize, AbortHandle)>>);

impl Connections {
    pub fn add(&self, id: i64, member: usize, task: AbortHandle) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, task)| !task.is_finished());
        open.insert(id, (member, task));
    }

    pub fn count(&self) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|(_, task)| !task.is_finished()).count()
    }

    /// Cuts the connections of one member, or of all.
    pub fn cut(&self, member: Option<usize>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (of, task)| {
            let is_meant = member.is_none_or(|member| member == *of);
            if is_meant {
                task.abort();
            }
            !is_meant
        });
    }
}
