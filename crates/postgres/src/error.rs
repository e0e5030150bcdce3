//! What can go wrong between us and a PostgreSQL server.

use std::fmt;
use std::io;
use sync_worker_core::error::{Classified, ErrorClass};
use sync_worker_core::value::Damaged;

/// A server's answer to something that it refused. `Display` shows the server's text only where that text names objects;
/// it never shows DETAIL, which quotes rows (invariant 11).
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The SQLSTATE, five characters.
    pub code: String,
    message: String,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub constraint: Option<String>,
}

impl ServerError {
    pub fn new(code: &str, message: &str) -> Self {
        let none = || None;
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
            schema: none(),
            table: none(),
            column: none(),
            constraint: none(),
        }
    }

    /// Takes a field of an ErrorResponse message.
    pub fn set(&mut self, field: u8, value: &[u8]) {
        let value = String::from_utf8_lossy(value).into_owned();
        match field {
            b'C' => self.code = value,
            b'M' => self.message = value,
            b's' => self.schema = Some(value),
            b't' => self.table = Some(value),
            b'c' => self.column = Some(value),
            b'n' => self.constraint = Some(value),
            // Severity, position, and DETAIL, which quotes rows.
            _ => {}
        }
    }

    pub fn class(&self) -> ErrorClass {
        let code = self.code.as_str();
        match code {
            // another session has the slot; or we talk to a server that has just become a standby
            "55006" | "25006" => return ErrorClass::Transient,
            // a lock that was not granted, a cancelled statement, a server that starts or stops
            "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "40001" | "40P01" => {
                return ErrorClass::Transient;
            }
            "23503" => return ErrorClass::Dependency,
            _ => {}
        }
        match code.get(..2).unwrap_or_default() {
            // lost connections, full disks and too many connections, an operating system's error, an internal error
            "08" | "53" | "58" | "XX" | "40" => ErrorClass::Transient,
            // the row: data exceptions and constraints
            "22" | "23" => ErrorClass::Poison,
            // privileges, passwords, missing objects, unsupported or wrong statements and all that is not known
            _ => ErrorClass::Fatal,
        }
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            schema: owned(error.schema()),
            table: owned(error.table()),
            column: owned(error.column()),
            constraint: owned(error.constraint()),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Data exceptions quote values (`invalid input syntax for type integer: "x"`), and users raise whatever they like
        // under the code of a constraint or one of their own. These classes are the server's own.
        let class = self.code.get(..2).unwrap_or_default();
        if matches!(class, "08" | "0A" | "25" | "28" | "3D" | "3F" | "40" | "42" | "53" | "55" | "57" | "58" | "XX") {
            write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        } else {
            write!(f, "SQLSTATE {}", self.code)?;
        }
        for (what, name) in [("table", &self.table), ("column", &self.column), ("constraint", &self.constraint)] {
            if let Some(name) = name {
                write!(f, ", {what} {name}")?;
            }
        }
        Ok(())
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
    #[error("can't reach PostgreSQL at {server}: {problem}")]
    Unreachable { server: String, problem: String },
    /// The server answered and did not let us in.
    #[error("PostgreSQL at {server} refuses the connection")]
    Denied { server: String, source: Box<ServerError> },
    #[error("TLS with PostgreSQL at {server} failed: {problem}")]
    Tls { server: String, problem: String },
    #[error("PostgreSQL at {servers} is a standby; waiting for a primary, or list its host in the URL, too")]
    Standby { servers: String },
    #[error("PostgreSQL refuses {doing}")]
    Server { doing: String, source: Box<ServerError> },
    #[error("the connection to PostgreSQL was lost during {doing}: {problem}")]
    Lost { doing: String, problem: String },
    /// Nothing came although something had to.
    #[error("PostgreSQL at {server} has been silent for {seconds} s; the connection is given up")]
    Silent { server: String, seconds: u64 },
    /// Bytes that do not fit the protocol: what remains of the connection can't be trusted, a new one can.
    #[error("PostgreSQL sent something that makes no sense: {0}")]
    Protocol(&'static str),
    /// The connection went away after COMMIT was sent: take over again and look.
    #[error("the outcome of a commit is unknown")]
    CommitUnknown(#[source] Box<Error>),
    #[error("{0}")]
    Gap(String),
    #[error("{0}")]
    Superseded(String),
    /// The pipeline can't go on as things are; the text names the thing and the cure.
    #[error("{0}")]
    Fatal(String),
    #[error("table {table} column {column}: {problem}")]
    Value { table: String, column: String, problem: String },
    #[error("the folder for large transactions, {folder}, can't be used")]
    Spill { folder: String, source: io::Error },
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl Error {
    /// Wraps a driver's error, keeping what is safe to show.
    pub fn driver(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        let doing = doing.into();
        match error.as_db_error() {
            Some(refused) => Error::Server { doing, source: Box::new(refused.into()) },
            None => Error::Lost { doing, problem: causes(error) },
        }
    }

    /// The server's SQLSTATE, where this is an answer of the server.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Server { source, .. } | Error::Denied { source, .. } => Some(&source.code),
            _ => None,
        }
    }
}

/// A driver's error that is no answer of the server, with its causes: i/o and protocol, never a value.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

impl Classified for Error {
    fn class(&self) -> ErrorClass {
        match self {
            Error::Config(_) | Error::Fatal(_) | Error::Value { .. } | Error::Tls { .. } | Error::Damaged(_) => {
                ErrorClass::Fatal
            }
            Error::Unreachable { .. }
            | Error::Standby { .. }
            | Error::Lost { .. }
            | Error::Silent { .. }
            | Error::Protocol(_)
            | Error::CommitUnknown(_)
            | Error::Spill { .. } => ErrorClass::Transient,
            // A database that is closed for a while, as for maintenance.
            Error::Denied { source, .. } if source.code == "55000" => ErrorClass::Transient,
            Error::Denied { source, .. } | Error::Server { source, .. } => source.class(),
            Error::Gap(_) => ErrorClass::Gap,
            Error::Superseded(_) => ErrorClass::Superseded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_not_shown() {
        let refused = ServerError::new("22P02", "invalid input syntax for type integer: \"hunter2\"");
        let error = Error::Server { doing: "a read".into(), source: Box::new(refused) };
        let shown = sync_worker_core::error::Error::from(error);
        assert!(!format!("{shown} {shown:?}").contains("hunter2"), "{shown}");
        assert!(shown.to_string().contains("22P02"));
    }

    #[test]
    fn classes_follow_the_sqlstate() {
        for (code, class) in [
            ("28P01", ErrorClass::Fatal),
            ("42501", ErrorClass::Fatal),
            ("42P01", ErrorClass::Fatal),
            ("57P01", ErrorClass::Transient),
            ("53300", ErrorClass::Transient),
            ("40P01", ErrorClass::Transient),
            ("55006", ErrorClass::Transient),
            ("23503", ErrorClass::Dependency),
            ("23505", ErrorClass::Poison),
            ("22003", ErrorClass::Poison),
        ] {
            assert_eq!(ServerError::new(code, "").class(), class, "{code}");
        }
    }
}
