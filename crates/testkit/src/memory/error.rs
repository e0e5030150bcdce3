//! Errors of the in-memory stand-ins.

use std::borrow::Cow;
use std::fmt;
use sync_worker_core::error::{Classified, ErrorClass};

#[derive(Clone, Debug)]
pub struct MemoryError {
    pub class: ErrorClass,
    pub text: Cow<'static, str>,
}

impl MemoryError {
    pub fn new(class: ErrorClass, text: impl Into<Cow<'static, str>>) -> Self {
        Self { class, text: text.into() }
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for MemoryError {}

impl Classified for MemoryError {
    fn class(&self) -> ErrorClass {
        self.class
    }
}
