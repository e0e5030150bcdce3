//! What an error means to the engine. Every adapter's error answers one [`ErrorClass`]; the engine maps the class to an
//! action in one exhaustive match (`engine::failure`).

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// May pass by itself: a lost connection, a deadlock, a full disk. Retried in place, behind a circuit breaker.
    Transient,
    /// Waits for something else to arrive, a parent row for instance. The key is parked and tried again.
    Dependency,
    /// This row can never be taken as it is. The key is parked and goes to the dead letters.
    Poison,
    /// The position is lost, foreign or ahead of what is there. A named state that asks for a repair (invariant 8).
    Gap,
    /// Another worker moved the marker: this one must stop (invariant 2).
    Superseded,
    /// Configuration, privileges, or a broken promise of the other side: the pipeline stops and says why.
    Fatal,
}

impl ErrorClass {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Transient => "transient",
            ErrorClass::Dependency => "dependency",
            ErrorClass::Poison => "poison",
            ErrorClass::Gap => "gap",
            ErrorClass::Superseded => "superseded",
            ErrorClass::Fatal => "fatal",
        }
    }
}

/// An adapter's error: its `Display` names the thing and the cure and holds neither row values nor secrets
/// (invariant 11).
pub trait Classified: std::error::Error + Send + Sync + 'static {
    fn class(&self) -> ErrorClass;
}

/// Any adapter's error behind the traits of this crate.
pub struct Error(Box<dyn Classified>);

impl Error {
    pub fn class(&self) -> ErrorClass {
        self.0.class()
    }

    /// The error and its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text.replace('\n', " ")
    }
}

impl<E: Classified> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class(), self.chain())
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
