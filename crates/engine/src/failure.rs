//! What the engine does about an error, by its class, and the engine's own errors.

use crate::resolve::spill::SpillError;
use std::time::Duration;
use sync_worker_core::error::{Classified, Error, ErrorClass};
use sync_worker_core::value::Damaged;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What becomes of the task that met the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect again after the circuit breaker's delay and go on where the durable state says.
    Reconnect,
    /// Stop this task with a state that a person can see and repair; nothing else stops. A failed one is tried again
    /// every [`FAILED_RETRY`], the others wait for a restart.
    Halt(Halt),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    Gap,
    Superseded,
    Failed,
}

/// Class to action. Dependency and Poison belong to single writes, which the sink has parked before it returns; as the
/// outcome of a whole task they mean that an adapter broke its word, so the task fails rather than loops.
pub fn action(class: ErrorClass) -> Action {
    match class {
        ErrorClass::Transient => Action::Reconnect,
        ErrorClass::Gap => Action::Halt(Halt::Gap),
        ErrorClass::Superseded => Action::Halt(Halt::Superseded),
        ErrorClass::Dependency | ErrorClass::Poison | ErrorClass::Fatal => Action::Halt(Halt::Failed),
    }
}

/// What a person has to mend, a missing column or privilege, is often mended while the worker runs.
pub const FAILED_RETRY: Duration = Duration::from_secs(30);

/// Waits until a failed task is worth a try. Who asks something of it meanwhile learns that it does not run.
pub async fn wait_failed<T>(commands: &mut mpsc::Receiver<T>) {
    let until = Instant::now() + FAILED_RETRY;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            Some(refused) = commands.recv() => drop(refused),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("GAP: {0}")]
    Gap(String),
    #[error("a record on the bus can't be read: {0}")]
    Damaged(#[from] Damaged),
    #[error("{what} gave no answer within {seconds} s")]
    TimedOut { what: String, seconds: u64 },
    #[error("{0} was taken over by another worker; this one has stopped writing to it")]
    Superseded(String),
    #[error("{0}")]
    Stopped(&'static str),
    #[error("{0}")]
    Configuration(String),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

impl Classified for EngineError {
    fn class(&self) -> ErrorClass {
        match self {
            EngineError::Gap(_) => ErrorClass::Gap,
            EngineError::Damaged(_) | EngineError::Configuration(_) => ErrorClass::Fatal,
            // A resolver is made anew from the log.
            EngineError::TimedOut { .. } | EngineError::Stopped(_) | EngineError::Spill(_) => ErrorClass::Transient,
            EngineError::Superseded(_) => ErrorClass::Superseded,
        }
    }
}

/// A dead peer may keep a connection open without a word.
pub async fn timed<T>(what: &str, limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(EngineError::TimedOut { what: what.to_owned(), seconds: limit.as_secs() }.into()),
    }
}
