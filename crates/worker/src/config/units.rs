//! Sizes and durations, written with their units.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `64MiB`, in bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit, rest) = amount(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    if !rest.is_empty() { None } else { number.checked_mul(*bytes) }
}

/// `250ms`, `10s`, `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let (number, unit, after) = amount(rest)?;
        let (_, milliseconds) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(*milliseconds)?)?;
        rest = after;
    }
    if text.is_empty() { None } else { Some(Duration::from_millis(total)) }
}

pub fn show_size(bytes: u64) -> String {
    let fitting = SIZES[..5].iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = fitting.unwrap_or(&SIZES[0]);
    format!("{}{name}", bytes / unit)
}

pub fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |unit: u64| milliseconds >= unit && milliseconds.is_multiple_of(unit);
    let (name, unit) = DURATIONS.iter().rev().find(|(_, unit)| whole(*unit)).unwrap_or(&DURATIONS[0]);
    format!("{}{name}", milliseconds / unit)
}

/// A number, its unit, and what follows.
fn amount(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start_matches(' ');
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_round_trip() {
        for (text, bytes) in [("0B", 0), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("1500B", 1500)] {
            assert_eq!(size(text), Some(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for (text, milliseconds) in
            [("0ms", 0), ("250ms", 250), ("10s", 10_000), ("90m", 5_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)));
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(size("2 gb"), Some(2_000_000_000));
        assert_eq!(duration("1h30m"), duration("90m"));
    }

    #[test]
    fn what_has_no_unit_or_no_number_is_refused() {
        for text in ["", "5", "MiB", "5 apples", "-1s", "1.5GiB", "99999999999TiB", "1MiB2"] {
            assert_eq!(size(text), None, "{text}");
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
