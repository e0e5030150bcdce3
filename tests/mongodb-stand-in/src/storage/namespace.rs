//! `database.collection`.

use std::fmt;
use std::sync::Arc;

use bson::{RawDocumentBuf, rawdoc};

use crate::failure::{Failure, code};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    full: Arc<str>,
    dot: usize,
}

impl Namespace {
    pub fn new(database: &str, collection: &str) -> Self {
        Self { full: format!("{database}.{collection}").into(), dot: database.len() }
    }

    pub fn parse(full: &str) -> Result<Self, Failure> {
        match full.find('.') {
            Some(dot) if dot > 0 && dot + 1 < full.len() => Ok(Self { full: full.into(), dot }),
            _ => Err(Failure::new(code::INVALID_NAMESPACE, format!("Invalid namespace specified '{full}'"))),
        }
    }

    /// Where a whole database is meant: of `dropDatabase`.
    pub fn of_database(database: &str) -> Self {
        Self::new(database, "$cmd")
    }

    pub fn database(&self) -> &str {
        &self.full[..self.dot]
    }

    pub fn collection(&self) -> &str {
        &self.full[self.dot + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.full
    }

    pub fn document(&self) -> RawDocumentBuf {
        rawdoc! { "db": self.database(), "coll": self.collection() }
    }

    /// The server's own collections, which change streams don't show.
    pub fn is_internal(&self) -> bool {
        matches!(self.database(), "admin" | "local" | "config") || self.collection().starts_with("system.")
    }

    pub fn check_writable(&self) -> Result<(), Failure> {
        if self.database() == "local" || self.collection().starts_with("system.") || self.collection().contains('$') {
            return Err(Failure::new(code::INVALID_NAMESPACE, format!("cannot write to '{self}'")));
        }
        Ok(())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.full)
    }
}
