//! Sessions: the transaction or the last retryable write of each.

use std::collections::HashMap;

use bson::RawDocumentBuf;

use super::transaction::Transaction;

/// The bytes of the session's UUID.
pub type SessionId = Vec<u8>;

#[derive(Debug, Default)]
pub struct Sessions(HashMap<SessionId, Session>);

#[derive(Debug)]
pub struct Session {
    /// The last transaction number; -1 before the first.
    pub number: i64,
    pub phase: Phase,
}

#[derive(Debug)]
pub enum Phase {
    Idle,
    InTransaction(Box<Transaction>),
    Committed,
    Aborted,
    /// A retryable write was executed and gave this reply.
    Written(RawDocumentBuf),
}

impl Sessions {
    pub fn get(&mut self, id: &[u8]) -> &mut Session {
        if !self.0.contains_key(id) {
            self.0.insert(id.to_vec(), Session { number: -1, phase: Phase::Idle });
        }
        self.0.get_mut(id).unwrap_or_else(|| unreachable!("just inserted"))
    }

    pub fn find(&mut self, id: &[u8]) -> Option<&mut Session> {
        self.0.get_mut(id)
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.values_mut()
    }

    pub fn end(&mut self, id: &[u8]) {
        self.0.remove(id);
    }
}

impl Session {
    /// Takes out the open transaction and leaves it as aborted.
    pub fn abort(&mut self) -> Option<Box<Transaction>> {
        match std::mem::replace(&mut self.phase, Phase::Aborted) {
            Phase::InTransaction(transaction) => Some(transaction),
            other => {
                self.phase = other;
                None
            }
        }
    }
}
