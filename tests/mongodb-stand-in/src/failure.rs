//! A command's failure as a client sees it: code, message and error labels.

use bson::{RawDocumentBuf, rawdoc};

/// Codes that appear in more than one file, by the server's names.
pub mod code {
    pub const BAD_VALUE: i32 = 2;
    pub const FAILED_TO_PARSE: i32 = 9;
    pub const UNAUTHORIZED: i32 = 13;
    pub const TYPE_MISMATCH: i32 = 14;
    pub const OVERFLOW: i32 = 15;
    pub const AUTHENTICATION_FAILED: i32 = 18;
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    pub const CURSOR_NOT_FOUND: i32 = 43;
    pub const NAMESPACE_EXISTS: i32 = 48;
    pub const DOLLAR_PREFIXED_FIELD_NAME: i32 = 52;
    pub const INVALID_NAMESPACE: i32 = 73;
    pub const SHUTDOWN_IN_PROGRESS: i32 = 91;
    pub const WRITE_CONFLICT: i32 = 112;
    pub const SNAPSHOT_UNAVAILABLE: i32 = 246;
    pub const NO_SUCH_TRANSACTION: i32 = 251;
    pub const DUPLICATE_KEY: i32 = 11000;
    pub const NOT_WRITABLE_PRIMARY: i32 = 10107;
    pub const OBJECT_TOO_LARGE: i32 = 10334;
}

pub const TRANSIENT: &str = "TransientTransactionError";
pub const RETRYABLE_WRITE: &str = "RetryableWriteError";
pub const RESUMABLE: &str = "ResumableChangeStreamError";
pub const NOT_RESUMABLE: &str = "NonResumableChangeStreamError";

#[derive(Debug, Clone)]
pub struct Failure {
    pub code: i32,
    pub message: String,
    pub labels: Vec<String>,
    /// Further fields of the error document: `keyPattern`, `keyValue`, `errInfo`.
    pub details: RawDocumentBuf,
}

impl Failure {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), labels: Vec::new(), details: RawDocumentBuf::new() }
    }

    pub fn labelled(mut self, label: &str) -> Self {
        if !self.labels.iter().any(|known| known == label) {
            self.labels.push(label.to_owned());
        }
        self
    }

    pub fn bad_value(message: impl Into<String>) -> Self {
        Self::new(code::BAD_VALUE, message)
    }

    pub fn unparsable(message: impl Into<String>) -> Self {
        Self::new(code::FAILED_TO_PARSE, message)
    }

    pub fn write_conflict() -> Self {
        Self::new(
            code::WRITE_CONFLICT,
            "Caused by :: Write conflict during plan execution and yielding is disabled. :: \
             Please retry your operation or multi-document transaction.",
        )
    }

    /// The reply document of a command that failed as a whole.
    pub fn reply(&self) -> RawDocumentBuf {
        let mut reply = rawdoc! {
            "ok": 0.0, "errmsg": self.message.as_str(), "code": self.code, "codeName": name(self.code)
        };
        crate::value::append_all(&mut reply, &self.details);
        if !self.labels.is_empty() {
            let labels: bson::RawArrayBuf = self.labels.iter().map(String::as_str).collect();
            reply.append(bson::raw::cstr!("errorLabels"), labels);
        }
        reply
    }

    /// The failure of one statement among several, as in `writeErrors`.
    pub fn statement(&self, index: usize) -> RawDocumentBuf {
        let mut error = rawdoc! { "index": index as i32, "code": self.code, "errmsg": self.message.as_str() };
        crate::value::append_all(&mut error, &self.details);
        error
    }
}

impl From<bson::error::Error> for Failure {
    fn from(error: bson::error::Error) -> Self {
        Self::new(22, format!("invalid BSON: {error}"))
    }
}

/// Why a command did not come to its end.
#[derive(Debug)]
pub enum Stop {
    Failed(Box<Failure>),
    /// It waits for somebody else (an event, the end of a transaction) and is to be run again after the next change.
    Waits,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<bson::error::Error> for Stop {
    fn from(error: bson::error::Error) -> Self {
        Failure::from(error).into()
    }
}

pub fn name(code: i32) -> String {
    let known = match code {
        2 => "BadValue",
        9 => "FailedToParse",
        13 => "Unauthorized",
        14 => "TypeMismatch",
        15 => "Overflow",
        18 => "AuthenticationFailed",
        20 => "IllegalOperation",
        22 => "InvalidBSON",
        24 => "LockTimeout",
        26 => "NamespaceNotFound",
        27 => "IndexNotFound",
        28 => "PathNotViable",
        40 => "ConflictingUpdateOperators",
        43 => "CursorNotFound",
        47 => "NoMatchingDocument",
        48 => "NamespaceExists",
        50 => "MaxTimeMSExpired",
        52 => "DollarPrefixedFieldName",
        53 => "InvalidIdField",
        59 => "CommandNotFound",
        66 => "ImmutableField",
        72 => "InvalidOptions",
        73 => "InvalidNamespace",
        86 => "IndexKeySpecsConflict",
        91 => "ShutdownInProgress",
        112 => "WriteConflict",
        121 => "DocumentValidationFailure",
        168 => "InvalidPipelineOperator",
        189 => "PrimarySteppedDown",
        225 => "TransactionTooOld",
        239 => "SnapshotTooOld",
        246 => "SnapshotUnavailable",
        251 => "NoSuchTransaction",
        256 => "TransactionCommitted",
        260 => "InvalidResumeToken",
        262 => "ExceededTimeLimit",
        263 => "OperationNotSupportedInTransaction",
        280 => "ChangeStreamFatalError",
        286 => "ChangeStreamHistoryLost",
        290 => "TransactionExceededLifetimeLimitSeconds",
        10107 => "NotWritablePrimary",
        10334 => "BSONObjectTooLarge",
        11000 => "DuplicateKey",
        11600 => "InterruptedAtShutdown",
        11602 => "InterruptedDueToReplStateChange",
        13435 => "NotPrimaryNoSecondaryOk",
        17280 => "KeyTooLong",
        other => return format!("Location{other}"),
    };
    known.to_owned()
}

/// Codes after which a driver may send the same write again.
pub fn is_retryable(code: i32) -> bool {
    matches!(code, 6 | 7 | 89 | 91 | 189 | 262 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436)
}

/// Codes after which a driver resumes a change stream by itself.
pub fn is_resumable(code: i32) -> bool {
    is_retryable(code) || matches!(code, 63 | 133 | 150 | 234 | 13388)
}

/// Codes after which a whole transaction may be run again.
pub fn is_transient(code: i32, at_commit: bool) -> bool {
    matches!(code, 24 | 112 | 239 | 246 | 251) || (!at_commit && is_retryable(code))
}
