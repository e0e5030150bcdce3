//! What a failed statement means, by its SQLSTATE, in words that hold no row value.

use crate::error::{Error, ServerError, causes};
use sync_worker_core::error::ErrorClass;

/// The words with which our own checks fail a statement (see `statement`); they stand in the server's message.
pub const MISSING: &str = "sync_worker.missing";
pub const SUPERSEDED: &str = "sync_worker.superseded";

#[derive(Debug)]
pub struct Failure {
    pub class: ErrorClass,
    /// Our own check found fewer rows than the statement was given.
    pub missing: bool,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Server(Box<ServerError>),
    Connection(String),
}

impl Failure {
    pub fn of(error: &tokio_postgres::Error) -> Self {
        let Some(refused) = error.as_db_error() else {
            return Self::of_connection(causes(error));
        };
        // No data of ours contains these words and fails this cast: only our own checks cast to an integer.
        let says = |word| refused.code().code() == "22P02" && refused.message().contains(word);
        let server = ServerError::from(refused);
        let (class, missing) = match (says(SUPERSEDED), says(MISSING)) {
            (true, _) => (ErrorClass::Superseded, false),
            (_, true) => (ErrorClass::Dependency, true),
            (false, false) => (class_of(&server), false),
        };
        Self { class, missing, cause: Cause::Server(Box::new(server)) }
    }

    /// No answer came.
    pub fn of_connection(problem: String) -> Self {
        Self { class: ErrorClass::Transient, missing: false, cause: Cause::Connection(problem) }
    }

    fn code(&self) -> &str {
        match &self.cause {
            Cause::Server(server) => &server.code,
            Cause::Connection(_) => "",
        }
    }

    /// The target's catalog may have changed since it was read.
    pub fn is_stale(&self) -> bool {
        self.code() == "0A000" || self.code().starts_with("42") && self.code() != "42501"
    }

    /// Two transactions want what only one can have: the other one is repeated.
    pub fn is_conflict(&self) -> bool {
        matches!(self.code(), "40001" | "40P01")
    }

    /// This very row is at fault, and perhaps no other one.
    pub fn is_of_row(&self) -> bool {
        match self.class {
            ErrorClass::Dependency | ErrorClass::Poison => true,
            ErrorClass::Transient | ErrorClass::Gap | ErrorClass::Superseded | ErrorClass::Fatal => false,
        }
    }

    /// A statement of an aborted transaction: the failure before it is the cause.
    pub fn is_echo(&self) -> bool {
        self.code() == "25P02"
    }

    /// No answer of the server.
    pub fn is_connection(&self) -> bool {
        matches!(self.cause, Cause::Connection(_))
    }

    /// The unique index that was hit, where one was.
    pub fn unique_index(&self) -> Option<&str> {
        match &self.cause {
            Cause::Server(server) if server.code == "23505" => server.constraint.as_deref(),
            Cause::Server(_) | Cause::Connection(_) => None,
        }
    }

    /// Another row has what only one may have.
    pub fn is_taken(&self) -> bool {
        matches!(self.code(), "23505" | "23P01")
    }

    /// A table is not ours to lock, or not now.
    pub fn is_of_lock(&self) -> bool {
        matches!(self.code(), "55P03" | "42501")
    }

    /// The table that it is about, with its schema, where the server says that.
    pub fn table(&self) -> Option<(&str, &str)> {
        match &self.cause {
            Cause::Server(server) => server.schema.as_deref().zip(server.table.as_deref()),
            Cause::Connection(_) => None,
        }
    }

    /// Names the constraint or column, never a value (invariant 11).
    pub fn reason(&self) -> String {
        match &self.cause {
            Cause::Connection(problem) => problem.clone(),
            Cause::Server(server) => match server.code.as_str() {
                "22001" => format!("a text too long for its column ({server})"),
                "22003" => format!("a number out of its column's range ({server})"),
                "22007" | "22008" => format!("a date or time that its column does not hold ({server})"),
                "22021" | "22P05" => format!("a text that the target's encoding does not hold ({server})"),
                "23502" => format!("NULL in a column that must have a value ({server})"),
                "23503" => format!("a row that is referred to is not there ({server})"),
                "23505" => format!("a unique value is taken by another row ({server})"),
                "23514" if server.constraint.is_none() => {
                    format!("no partition takes the row, or a trigger does not ({server})")
                }
                "23514" => format!("a check constraint is not met ({server})"),
                "23P01" => format!("an exclusion constraint is not met ({server})"),
                code if code.starts_with("22") => format!("a value that its column does not hold ({server})"),
                code if code.starts_with("P0") => format!("a trigger of the target raised an error ({server})"),
                "42501" => format!("{server}; GRANT it to the target's user"),
                _ => server.to_string(),
            },
        }
    }

    /// The failure of a whole batch.
    pub fn into_error(self, doing: &str, pipeline: &str) -> Error {
        match self.class {
            ErrorClass::Superseded => Error::Superseded(format!(
                "another worker has taken over the target of pipeline {pipeline}; only one may run: stop this one or that one"
            )),
            ErrorClass::Fatal => Error::Fatal(format!("{doing}: {}", self.reason())),
            ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::Poison | ErrorClass::Gap => match self.cause {
                Cause::Server(source) => Error::Server { doing: doing.to_owned(), source },
                Cause::Connection(problem) => Error::Lost { doing: doing.to_owned(), problem },
            },
        }
    }
}

/// Codes that are not the connection's, the statement's or a privilege's are of the row: at worst it waits for a person.
fn class_of(server: &ServerError) -> ErrorClass {
    match server.code.as_str() {
        // A unique value may be freed, a parent may arrive, by a later change.
        "23503" | "23505" | "23P01" | "23001" => ErrorClass::Dependency,
        code => match code.get(..2).unwrap_or_default() {
            // Whatever a trigger or function objects to.
            "P0" | "38" | "39" | "09" | "27" => ErrorClass::Dependency,
            "21" | "22" | "23" | "44" | "54" => ErrorClass::Poison,
            _ => server.class(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_class() {
        for (code, class) in [
            ("23503", ErrorClass::Dependency),
            ("23505", ErrorClass::Dependency),
            ("P0001", ErrorClass::Dependency),
            ("23502", ErrorClass::Poison),
            ("23514", ErrorClass::Poison),
            ("22003", ErrorClass::Poison),
            ("22P05", ErrorClass::Poison),
            ("54000", ErrorClass::Poison),
            ("40001", ErrorClass::Transient),
            ("40P01", ErrorClass::Transient),
            ("55P03", ErrorClass::Transient),
            ("57P01", ErrorClass::Transient),
            ("08006", ErrorClass::Transient),
            ("53100", ErrorClass::Transient),
            ("25006", ErrorClass::Transient),
            ("42P01", ErrorClass::Fatal),
            ("42501", ErrorClass::Fatal),
            ("3D000", ErrorClass::Fatal),
            ("28P01", ErrorClass::Fatal),
        ] {
            assert_eq!(class_of(&ServerError::new(code, "")), class, "{code}");
        }
    }
}
