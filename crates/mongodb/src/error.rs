//! What can go wrong between us and a MongoDB server.

use mongodb::error::{ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure};
use std::fmt;
use sync_worker_core::error::{Classified, ErrorClass};

/// A server's answer to something that it refused. Its `Display` shows the server's text only for those codes whose
/// texts name objects; all others may quote a document's value (invariant 11).
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    pub code: i32,
    pub name: String,
    /// The whole transaction may be run again.
    pub transient: bool,
    message: String,
}

/// Not allowed to do this. The text quotes the whole command.
pub const UNAUTHORIZED: i32 = 13;

/// Codes whose message names users, collections or hosts, never a value.
const NAMES_ONLY: &[i32] = &[18, 20, 26, 48, 59, 73, 91, 166, 189, 246, 263, 286, 10107, 11600, 11602, 13435];

impl ServerError {
    pub fn new(code: i32, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, name: name.into(), transient: false, message: message.into() }
    }

    /// The server's own text; may hold values and must never be shown as it is.
    pub fn raw_message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            UNAUTHORIZED => write!(f, "error 13 (Unauthorized): the user lacks a privilege for it"),
            code if NAMES_ONLY.contains(&code) => write!(f, "error {code}: {}", self.message),
            code => write!(f, "error {code} ({})", self.name),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ServerError {}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the user wrote can't be taken.
    #[error("{0}")]
    Config(String),
    #[error("can't reach a MongoDB primary during {doing}: {problem}")]
    Unreachable { doing: &'static str, problem: &'static str },
    #[error("MongoDB refuses the user or its password")]
    Denied,
    #[error("MongoDB refuses {doing}")]
    Server { doing: &'static str, source: ServerError },
    #[error("the connection to MongoDB was lost during {doing}: {problem}")]
    Lost { doing: &'static str, problem: String, transient: bool },
    /// Nothing came although something had to.
    #[error("MongoDB has been silent for {seconds} s during {doing}; the connection is given up")]
    Silent { doing: &'static str, seconds: u64 },
    #[error("MongoDB sent something that makes no sense: {0}")]
    Protocol(&'static str),
    #[error("the driver failed during {doing}: {problem}")]
    Driver { doing: &'static str, problem: &'static str },
    /// No answer said whether a commit happened: take over again and look.
    #[error("the outcome of a commit is unknown")]
    CommitUnknown(#[source] Box<Error>),
    #[error("{0}")]
    Gap(String),
    #[error("{0}")]
    Superseded(String),
    /// The pipeline can't go on as things are; the text names the thing and the cure.
    #[error("{0}")]
    Fatal(String),
    #[error(transparent)]
    Damaged(#[from] sync_worker_core::value::Damaged),
}

impl Error {
    /// Wraps a driver's error, keeping what is safe to show.
    pub fn driver(doing: &'static str, error: &mongodb::error::Error) -> Self {
        let transient = error.contains_label(TRANSIENT_TRANSACTION_ERROR);
        let server = |code, name: &str, message: &str| Error::Server {
            doing,
            source: ServerError { transient, ..ServerError::new(code, name, message) },
        };
        match error.kind.as_ref() {
            ErrorKind::Command(error) => server(error.code, &error.code_name, &error.message),
            ErrorKind::Write(WriteFailure::WriteError(error)) => server(error.code, "", &error.message),
            ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
                server(error.code, &error.code_name, &error.message)
            }
            ErrorKind::Io(error) => Error::Lost { doing, problem: error.kind().to_string(), transient },
            ErrorKind::ConnectionPoolCleared { .. } => {
                Error::Lost { doing, problem: "its pool was cleared".to_owned(), transient }
            }
            ErrorKind::ServerSelection { .. } => Error::Unreachable { doing, problem: "no primary answers" },
            ErrorKind::DnsResolve { .. } => Error::Unreachable { doing, problem: "the name is not found" },
            ErrorKind::Authentication { .. } => Error::Denied,
            ErrorKind::InvalidTlsConfig { .. } => Error::Config("url: the TLS files can't be used".to_owned()),
            ErrorKind::IncompatibleServer { .. } => {
                Error::Fatal("the server is too old for this version; MongoDB 6.0 or later is needed".to_owned())
            }
            // These may quote documents: their kind has to do.
            ErrorKind::InvalidArgument { .. } => Error::Driver { doing, problem: "an argument" },
            ErrorKind::InvalidResponse { .. } => Error::Driver { doing, problem: "an answer of another form" },
            ErrorKind::Transaction { .. } => Error::Driver { doing, problem: "the state of its transaction" },
            _ => Error::Driver { doing, problem: "other" },
        }
    }

    /// The server's code, where this is an answer of the server.
    pub fn code(&self) -> Option<i32> {
        match self {
            Error::Server { source, .. } => Some(source.code),
            _ => None,
        }
    }

    /// Whether the whole transaction may be run again.
    pub fn repeats(&self) -> bool {
        match self {
            Error::Server { source, .. } => source.transient,
            Error::Lost { transient, .. } => *transient,
            _ => false,
        }
    }
}

/// Whether a commit may have happened although it failed.
pub fn is_unknown_commit(error: &mongodb::error::Error) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
}

impl Classified for Error {
    fn class(&self) -> ErrorClass {
        match self {
            Error::Config(_) | Error::Fatal(_) | Error::Denied | Error::Damaged(_) => ErrorClass::Fatal,
            Error::Unreachable { .. }
            | Error::Lost { .. }
            | Error::Silent { .. }
            | Error::Protocol(_)
            | Error::Driver { .. }
            | Error::CommitUnknown(_) => ErrorClass::Transient,
            Error::Server { source, .. } => server_class(source.code),
            Error::Gap(_) => ErrorClass::Gap,
            Error::Superseded(_) => ErrorClass::Superseded,
        }
    }
}

/// What a refusal means for the pipeline as a whole. Refusals of single documents are sorted by the sink.
fn server_class(code: i32) -> ErrorClass {
    match code {
        // privileges, authentication, commands and stages that are not there, names that can't be
        UNAUTHORIZED | 18 | 20 | 59 | 73 | 166 | 40324 | 40573 => ErrorClass::Fatal,
        // the history that is asked for is gone, or the token is of another one
        260 | 280 | 286 => ErrorClass::Gap,
        _ => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_not_shown() {
        let refused = |code| ServerError::new(code, "DuplicateKey", "E11000 dup key: { email: \"hunter2\" }");
        let shown = sync_worker_core::error::Error::from(Error::Server { doing: "a write", source: refused(11000) });
        assert!(!format!("{shown} {shown:?}").contains("hunter2"));
        assert!(!refused(UNAUTHORIZED).to_string().contains("hunter2"), "its text quotes the command");
        assert!(refused(26).to_string().contains("hunter2"), "a text that names a collection only is shown");
    }
}
