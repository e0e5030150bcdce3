//! Plain decimal numbers as text, compared and measured without arithmetic.

use std::fmt;

/// The digits of a plain decimal number, `-12.340`, without the zeros that say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digits<'a> {
    /// Never set for zero.
    negative: bool,
    /// Before the point, without leading zeros.
    whole: &'a str,
    /// After the point, without trailing zeros.
    fraction: &'a str,
}

impl<'a> Digits<'a> {
    /// None for what is no plain number: `NaN`, the infinities, an exponent.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (signed, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        if !all_digits || whole.len() + fraction.len() == 0 {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        Some(Self { negative: signed && whole.len() + fraction.len() > 0, whole, fraction })
    }

    /// Whether a column of this precision and scale holds the number exactly. A negative scale (PostgreSQL) rounds
    /// before the point; one above the precision asks for zeros after it.
    pub(crate) fn fits(&self, precision: u16, scale: i16) -> bool {
        let scale = i64::from(scale);
        let lowest_digit = match (self.whole, self.fraction) {
            ("", "") => return true,
            (whole, "") => length(whole) - length(whole.trim_end_matches('0')),
            (_, fraction) => -length(fraction),
        };
        let highest_digit = match self.whole {
            "" => -1 - (length(self.fraction) - length(self.fraction.trim_start_matches('0'))),
            whole => length(whole) - 1,
        };
        highest_digit < i64::from(precision) - scale && lowest_digit >= -scale
    }

    /// One form for equal numbers: sign, point and the digits that say something.
    pub(crate) fn canonical(&self) -> [&'a str; 4] {
        [if self.negative { "-" } else { "" }, self.whole, ".", self.fraction]
    }

    /// The number where it is whole and has at most 38 digits.
    pub(crate) fn integer(&self) -> Option<i128> {
        if !self.fraction.is_empty() || self.whole.len() > 38 {
            return None;
        }
        let magnitude = self.whole.bytes().fold(0i128, |number, digit| number * 10 + i128::from(digit - b'0'));
        Some(if self.negative { -magnitude } else { magnitude })
    }
}

/// As an engine writes it.
impl fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, whole) =
            (if self.negative { "-" } else { "" }, if self.whole.is_empty() { "0" } else { self.whole });
        match self.fraction {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_that_say_nothing_do_not_count() {
        let same = |one, other| Digits::parse(one).unwrap() == Digits::parse(other).unwrap();
        assert!(same("1.10", "01.1"));
        assert!(same("-0.00", "0"));
        assert!(same("+.5", "0.50"));
        assert!(same("1000", "1000.000"));
        assert!(!same("1", "-1"));
        assert!(!same("10", "1"));
        assert!(!same("0.1", "0.01"));
    }

    #[test]
    fn what_is_no_plain_number_is_none() {
        for text in ["", "-", ".", "NaN", "Infinity", "-Infinity", "1e5", "1_0", "1.2.3", "--1", " 1", "٣"] {
            assert!(Digits::parse(text).is_none(), "{text} was taken");
        }
    }

    #[test]
    fn precision_and_scale_are_counted_from_the_point() {
        let fits = |text, precision, scale| Digits::parse(text).unwrap().fits(precision, scale);
        assert!(fits("99999999.99", 10, 2) && !fits("100000000", 10, 2) && !fits("0.001", 10, 2));
        assert!(fits("0.010", 10, 2) && fits("-0.01", 2, 2) && !fits("1", 2, 2));
        // PostgreSQL: numeric(5,-2) holds hundreds below ten million, numeric(3,5) thousandths of 0.99.
        assert!(fits("9999900", 5, -2) && !fits("10000000", 5, -2) && !fits("150", 5, -2) && fits("0", 5, -2));
        assert!(fits("0.00999", 3, 5) && !fits("0.01", 3, 5) && !fits("0.000001", 3, 5));
    }

    #[test]
    fn whole_numbers_are_read() {
        let integer = |text| Digits::parse(text).unwrap().integer();
        assert_eq!(integer("-9223372036854775808.000"), Some(i128::from(i64::MIN)));
        assert_eq!(integer("18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!(integer("0.5"), None);
        assert_eq!(integer(&"9".repeat(39)), None);
    }
}
