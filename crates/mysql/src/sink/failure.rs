//! What a server's error means for a write: the fault of a row, or of everything.

use crate::error::{Error, ServerError};
use sync_worker_core::error::{Classified, ErrorClass};

/// A statement that did not do what it should.
pub enum Failure {
    /// Some row of it can't be written: which one, only smaller statements tell.
    Row { class: ErrorClass, reason: String, code: u16 },
    /// Nothing can be written.
    Whole(Error),
}

/// Unique indexes and foreign keys, also those that cascade over too many rows at once: what another change may put right.
const DEPENDENCY: &[u16] = &[1022, 1062, 1169, 1216, 1217, 1451, 1452, 1586, 1761, 1762, 6575];

/// NULL, range, length, format, character set, JSON, CHECK, a trigger's SIGNAL, partitions, comparisons of collations,
/// the size of a row, indexes over expressions, foreign keys that cascade too deep.
const POISON: &[u16] = &[
    1048, 1118, 1138, 1263, 1264, 1265, 1267, 1270, 1271, 1292, 1300, 1364, 1366, 1367, 1406, 1411, 1416, 1441, 1525,
    1526, 1591, 1644, 1690, 1713, 1748, 3008, 3140, 3141, 3144, 3146, 3147, 3149, 3150, 3157, 3516, 3548, 3643, 3751,
    3752, 3819, 3854, 3903, 3904, 3905, 3906, 3907, 3988, 4025,
];

pub const DUPLICATE: u16 = 1062;

/// The row that a foreign key refers to is not there.
pub const NO_PARENT: u16 = 1452;
pub const DEADLOCK: u16 = 1213;

/// A table or column that is not there or not allowed.
const STALE: &[u16] = &[1054, 1136, 1142, 1143, 1146];

/// Whether the error may come from a table that has changed since the sink looked at it.
pub fn is_stale(error: &Error) -> bool {
    error.code().is_some_and(|code| STALE.contains(&code))
}

/// The index in which a row has met another one.
pub fn met_in(error: &Error) -> Option<&str> {
    let Error::Server { source, .. } = error else { return None };
    match source.code {
        DUPLICATE => named(source.raw_message(), DUPLICATE).map(|(_, index)| index),
        _ => None,
    }
}

/// Sorts an error of a statement over a table.
pub fn sort(error: Error, table: Option<&str>) -> Failure {
    let Error::Server { source, .. } = &error else { return Failure::Whole(error) };
    let class = match source.code {
        code if DEPENDENCY.contains(&code) => ErrorClass::Dependency,
        code if POISON.contains(&code) => ErrorClass::Poison,
        // The classes of the standard for values and for constraints, whatever the server's own code.
        // The first of them is a warning that a strict session makes an error.
        _ if table.is_some() && ["01", "22"].contains(&source.state.get(..2).unwrap_or_default()) => ErrorClass::Poison,
        _ if table.is_some() && source.state.starts_with("23") => ErrorClass::Dependency,
        _ => {
            return Failure::Whole(match (error.class(), table) {
                // With the code, so that a changed table is still known for one.
                (ErrorClass::Fatal, Some(table)) => Error::Table { table: table.to_owned(), source: source.clone() },
                _ => error,
            });
        }
    };
    Failure::Row { class, reason: reason(source), code: source.code }
}

/// What happened and to which constraint or column; a server's text also quotes the value (invariant 11).
fn reason(error: &ServerError) -> String {
    let what = match error.code {
        1022 | 1062 | 1169 | 1586 | 1761 | 1762 => "another row has the same value in unique index",
        1216 | 1452 => "the parent row is missing for foreign key",
        1217 | 1451 => "other rows still refer to the row by foreign key",
        1048 | 1138 | 1263 => "NULL is not allowed in",
        1264 | 1690 | 1441 => "the value is out of range for",
        1406 => "the value is too long for",
        1364 => "there is neither value nor default for",
        3819 | 4025 => "the row violates check constraint",
        3140..=3157 => "the JSON is not accepted by",
        1644 => "a trigger refuses the row",
        1525 | 1526 | 1591 | 1748 => "the table has no partition for the row",
        1713 => "the row is too large for the undo log",
        3008 => "foreign keys cascade too deep from the row",
        3751 | 3752 | 3903..=3907 => "the value is not accepted by index",
        _ => "the value is not accepted by",
    };
    let named = named(error.raw_message(), error.code);
    let what = if named.is_none() { what.trim_end_matches(" by") } else { what };
    let object = named.map(|(kind, name)| format!(" {kind}{name}")).unwrap_or_default();
    format!("{what}{object} (error {})", error.code)
}

/// The object that a message names, always at its end, behind any value.
fn named(message: &str, code: u16) -> Option<(&'static str, &str)> {
    let quoted = |marker: &str, quote: char| {
        let rest = &message[message.rfind(marker)? + marker.len()..];
        rest.split(quote).next().filter(|name| !name.is_empty())
    };
    match code {
        1761 => quoted("key '", '\'').map(|name| ("", name)),
        3751 | 3752 | 3903..=3907 => quoted("index '", '\'').map(|name| ("", name)),
        1062 | 1586 => quoted("for key '", '\'').map(|name| ("", name)),
        1451 | 1452 => quoted("CONSTRAINT `", '`').map(|name| ("", name)),
        3819 | 4025 => quoted("constraint '", '\'').or_else(|| quoted("CONSTRAINT `", '`')).map(|name| ("", name)),
        1048 | 1364 => message.split('\'').nth(1).map(|name| ("column ", name)),
        1644 => None,
        _ => quoted("column '", '\'').map(|name| ("column ", name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: u16, message: &str) -> String {
        let source = ServerError::new(code, "23000".into(), message.into());
        match sort(Error::Server { doing: "a write", source }, Some("t")) {
            Failure::Row { class, reason, .. } => format!("{}: {reason}", class.as_str()),
            Failure::Whole(error) => format!("{}: {error}", error.class().as_str()),
        }
    }

    #[test]
    fn reasons_name_the_object_and_no_value() {
        for (code, message, expected) in [
            (
                1062,
                "Duplicate entry 'secret for key 'x'' for key 't.email'",
                "dependency: another row has the same value in unique index t.email (error 1062)",
            ),
            (
                1452,
                "Cannot add or update a child row: a foreign key constraint fails (`d`.`c`, CONSTRAINT `c_p` FOREIGN KEY \
                 (`p`) REFERENCES `p` (`id`))",
                "dependency: the parent row is missing for foreign key c_p (error 1452)",
            ),
            (1048, "Column 'a' cannot be null", "poison: NULL is not allowed in column a (error 1048)"),
            (
                1366,
                "Incorrect string value: 'secret' for column 'a' at row 1",
                "poison: the value is not accepted by column a (error 1366)",
            ),
            (
                3819,
                "Check constraint 'c_chk' is violated.",
                "poison: the row violates check constraint c_chk (error 3819)",
            ),
            (1644, "secret", "poison: a trigger refuses the row (error 1644)"),
            (
                1761,
                "Foreign key constraint for table 'p', record 'secret' would lead to a duplicate entry in table 'c', key \
                 'k'",
                "dependency: another row has the same value in unique index k (error 1761)",
            ),
            (
                3907,
                "Data too long for functional index 'i'.",
                "poison: the value is not accepted by index i (error 3907)",
            ),
            // Known by its class alone.
            (9999, "secret", "dependency: the value is not accepted (error 9999)"),
        ] {
            assert_eq!(shown(code, message), expected);
        }
        let whole = |code, table| {
            let source = ServerError::new(code, "HY000".into(), String::new());
            match sort(Error::Server { doing: "a write", source }, table) {
                Failure::Whole(error) => error.class(),
                Failure::Row { class, .. } => class,
            }
        };
        assert_eq!((whole(1213, Some("t")), whole(1146, Some("t"))), (ErrorClass::Transient, ErrorClass::Fatal));
        // What nobody knows may come again for ever: it must not be tried as if the connection had been lost.
        assert_eq!((whole(9999, Some("t")), whole(1066, Some("t"))), (ErrorClass::Fatal, ErrorClass::Fatal));
    }
}
