//! What can go wrong between us and a MySQL server.

use std::fmt;
use std::io;
use sync_worker_core::error::{Classified, ErrorClass};

/// A server's answer to something that it refused. Its `Display` shows the server's text only for those codes whose
/// texts name objects; all others may quote a row value (invariant 11).
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    pub code: u16,
    pub state: String,
    message: String,
}

/// Codes whose message names users, privileges, tables, columns or settings, never a value.
const NAMES_ONLY: &[u16] = &[
    1040, 1044, 1045, 1046, 1049, 1050, 1051, 1053, 1054, 1072, 1079, 1091, 1093, 1102, 1103, 1109, 1114, 1130, 1142,
    1143, 1146, 1153, 1161, 1193, 1203, 1205, 1206, 1213, 1220, 1226, 1227, 1231, 1236, 1238, 1251, 1290, 1317, 1356,
    1370, 1373, 1381, 1408, 1410, 1418, 1637, 1698, 1785, 1786, 1789, 1792, 1820, 1836, 1862, 2012, 3024, 3032, 3098,
    3118, 3130, 3159, 3168, 3546, 3572, 3779, 3955, 4031,
];

impl ServerError {
    pub fn new(code: u16, state: String, message: String) -> Self {
        Self { code, state, message }
    }

    /// The server's own text; may hold row values and must never be shown as it is.
    pub fn raw_message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES_ONLY.contains(&self.code) {
            true => write!(f, "error {}: {}", self.code, self.message),
            false => write!(f, "error {} ({})", self.code, self.state),
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
    #[error("can't reach MySQL at {host}")]
    Unreachable { host: String, source: io::Error },
    /// The server answered and did not let us in, or turned out to be of the wrong kind.
    #[error("MySQL at {host} refuses the connection")]
    Denied { host: String, source: ServerError },
    #[error("TLS with MySQL at {host} failed: {problem}")]
    Tls { host: String, problem: String },
    #[error("MySQL refuses {doing}")]
    Server { doing: &'static str, source: ServerError },
    /// A table that can't be written at all.
    #[error("MySQL refuses to write table {table}; look at its definition and the user's privileges")]
    Table { table: String, source: ServerError },
    #[error("the connection to MySQL was lost during {doing}")]
    Lost { doing: &'static str, source: io::Error },
    /// Nothing came although something had to.
    #[error("MySQL at {host} has been silent for {seconds} s; the connection is given up")]
    Silent { host: String, seconds: u64 },
    #[error("MySQL sent something that makes no sense: {0}")]
    Protocol(&'static str),
    #[error("the driver failed during {doing}: {problem}")]
    Driver { doing: &'static str, problem: &'static str },
    /// The connection went away after COMMIT was sent: take over again and look.
    #[error("the outcome of a commit is unknown")]
    CommitUnknown(#[source] Box<Error>),
    /// Rows came up right after they were looked for; the batch was rolled back.
    #[error("applications insert the rows of a batch again and again while it is written")]
    Overtaken,
    #[error("{0}")]
    Gap(String),
    #[error("{0}")]
    Superseded(String),
    /// The pipeline can't go on as things are; the text names the thing and the cure.
    #[error("{0}")]
    Fatal(String),
    #[error("table {table} column {column}: {problem}")]
    Value { table: String, column: String, problem: String },
    #[error("the folder for large transactions can't be used")]
    Spill(#[source] io::Error),
    #[error(transparent)]
    Damaged(#[from] sync_worker_core::value::Damaged),
}

impl Error {
    /// Wraps a driver's error, keeping what is safe to show.
    pub fn driver(doing: &'static str, error: mysql_async::Error) -> Self {
        use mysql_async::{DriverError, Error as E, IoError};
        match error {
            E::Server(error) => {
                Error::Server { doing, source: ServerError::new(error.code, error.state, error.message) }
            }
            E::Io(IoError::Io(source)) => Error::Lost { doing, source },
            E::Io(IoError::Tls(error)) => Error::Lost { doing, source: io::Error::other(error.to_string()) },
            E::Driver(DriverError::ConnectionClosed) => {
                Error::Lost { doing, source: io::ErrorKind::ConnectionAborted.into() }
            }
            // These may quote rows: their kind has to do.
            E::Driver(DriverError::FromRow { .. }) => Error::Driver { doing, problem: "unexpected columns" },
            E::Driver(DriverError::FromValue { .. }) => Error::Driver { doing, problem: "unexpected value" },
            E::Driver(DriverError::PacketTooLarge) => Error::Driver { doing, problem: "packet too large" },
            E::Driver(_) => Error::Driver { doing, problem: "protocol" },
            E::Other(_) => Error::Driver { doing, problem: "other" },
            E::Url(_) => Error::Driver { doing, problem: "url" },
        }
    }

    /// The server's code, where this is an answer of the server.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Server { source, .. } | Error::Denied { source, .. } | Error::Table { source, .. } => {
                Some(source.code)
            }
            _ => None,
        }
    }
}

impl Classified for Error {
    fn class(&self) -> ErrorClass {
        match self {
            Error::Config(_) | Error::Fatal(_) | Error::Value { .. } | Error::Tls { .. } => ErrorClass::Fatal,
            Error::Unreachable { .. }
            | Error::Lost { .. }
            | Error::Silent { .. }
            | Error::Protocol(_)
            | Error::Driver { .. }
            | Error::CommitUnknown(_)
            | Error::Overtaken
            | Error::Spill(_) => ErrorClass::Transient,
            Error::Denied { source, .. } | Error::Server { source, .. } | Error::Table { source, .. } => {
                server_class(source.code)
            }
            Error::Gap(_) => ErrorClass::Gap,
            Error::Superseded(_) => ErrorClass::Superseded,
            Error::Damaged(_) => ErrorClass::Fatal,
        }
    }
}

/// What comes of connections, locks and the server's state, and goes away by itself or when the server is better.
const TRANSIENT: &[u16] = &[
    // disk, files and memory
    1020, 1021, 1023, 1024, 1026, 1030, 1037, 1038, 1041, 1114, 1135, 1197,
    // connections: too many, broken, killed, blocked
    1040, 1042, 1043, 1081, 1129, 1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1317,
    1637, 1927, 3168, 3169, 4031,
    // locks, time limits, transactions that the server has rolled back, definitions that have just changed
    1180, 1181, 1205, 1206, 1213, 1412, 1613, 1614, 1615, 1969, 3024, 3058, 3100, 3101, 3572,
    // a server that starts, stops, or is read-only while another one takes over
    1053, 1077, 1079, 1080, 1290, 1792, 1836, 3032,
];

/// What a refusal means for the pipeline as a whole. Refusals of single rows are sorted by the sink. An unknown one is
/// fatal: the task shows it and is tried again, but rarely.
fn server_class(code: u16) -> ErrorClass {
    match code {
        // the log that is asked for has been purged
        1236 | 1373 | 1789 => ErrorClass::Gap,
        code if TRANSIENT.contains(&code) => ErrorClass::Transient,
        _ => ErrorClass::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_not_shown() {
        let refused = |code| ServerError::new(code, "23000".into(), "Duplicate entry 'hunter2' for key 'k'".into());
        let error = Error::Server { doing: "an insert", source: refused(1062) };
        let shown = sync_worker_core::error::Error::from(error);
        assert!(!format!("{shown} {shown:?}").contains("hunter2"));
        assert!(refused(1045).to_string().contains("hunter2"), "messages that name users are shown");
    }
}
