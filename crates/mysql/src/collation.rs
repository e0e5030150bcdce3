//! Which values a text column takes for one although they differ.

use crate::catalog::TableColumn;
use sync_worker_core::types::ColumnType;

/// Compares characters by their numbers and trailing blanks like any others; every server that can be a target has it.
pub const EXACT: &str = "utf8mb4_0900_bin";

/// What a collation does not tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folds {
    /// Letters that differ in case, and mostly also those that differ in accents.
    Letters,
    /// Characters that Unicode has in several spellings, or that have no weight.
    Spellings,
    TrailingBlanks,
}

impl Folds {
    pub fn alike(self) -> &'static str {
        match self {
            Folds::Letters => "'a' and 'A'",
            Folds::Spellings => "different spellings of a character",
            Folds::TrailingBlanks => "'a' and 'a ' with a trailing blank",
        }
    }
}

/// What a column's collation folds; None where equal values are the same. A label of an ENUM or SET is one of a list.
pub fn folds(column: &TableColumn) -> Option<(&str, Folds)> {
    let ColumnType::Text { padded, .. } = column.column.kind else { return None };
    let collation = column.collation.as_deref()?;
    let folds = match collation {
        EXACT | "binary" => return None,
        // CHAR has no trailing blanks that could differ.
        name if name.ends_with("_bin") && padded => return None,
        // The others of this ending are all PAD SPACE.
        name if name.ends_with("_bin") => Folds::TrailingBlanks,
        name if name.split('_').any(|part| part == "cs") => Folds::Spellings,
        _ => Folds::Letters,
    };
    Some((collation, folds))
}
