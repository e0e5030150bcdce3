//! Exact numbers: Decimal128 taken apart, compared and added without rounding.

use std::cmp::Ordering;

use bson::Decimal128;

/// The exponent that the encoding adds to every stored exponent.
const BIAS: i32 = 6176;
const MAX_DIGITS: usize = 34;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decimal {
    NaN,
    Infinite { negative: bool },
    Finite(Finite),
}

/// `±digits × 10^exponent`; digits without leading zeros, empty for zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finite {
    negative: bool,
    digits: String,
    exponent: i32,
}

impl Decimal {
    pub fn of_decimal(value: Decimal128) -> Self {
        let bits = u128::from_le_bytes(value.bytes());
        let negative = bits >> 127 == 1;
        match (bits >> 122) & 0x1f {
            0x1f => return Self::NaN,
            0x1e => return Self::Infinite { negative },
            _ => {}
        }
        let large = (bits >> 125) & 3 == 3;
        let (exponent, coefficient) = if large {
            (((bits >> 111) & 0x3fff) as i32, 0) // a coefficient that can't be canonical counts as zero
        } else {
            (((bits >> 113) & 0x3fff) as i32, bits & ((1 << 113) - 1))
        };
        Self::finite(negative, coefficient.to_string(), exponent - BIAS)
    }

    pub fn of_integer(value: i64) -> Self {
        Self::finite(value < 0, value.unsigned_abs().to_string(), 0)
    }

    /// The double's exact value, not its shortest text.
    pub fn of_double(value: f64) -> Self {
        if value.is_nan() {
            return Self::NaN;
        }
        if value.is_infinite() {
            return Self::Infinite { negative: value < 0.0 };
        }
        let text = format!("{:.1100e}", value.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let fraction = fraction.trim_end_matches('0');
        let exponent = exponent.parse::<i32>().unwrap_or(0) - fraction.len() as i32;
        Self::finite(value.is_sign_negative(), format!("{whole}{fraction}"), exponent)
    }

    fn finite(negative: bool, digits: String, exponent: i32) -> Self {
        Self::Finite(Finite { negative, digits: digits.trim_start_matches('0').to_owned(), exponent })
    }

    /// NaN sorts before every other number.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.class().cmp(&other.class()).then_with(|| match (self, other) {
            (Self::Finite(one), Self::Finite(two)) => one.compare(two),
            _ => Ordering::Equal,
        })
    }

    fn class(&self) -> u8 {
        match self {
            Self::NaN => 0,
            Self::Infinite { negative: true } => 1,
            Self::Finite(_) => 2,
            Self::Infinite { negative: false } => 3,
        }
    }

    /// The sum, where it fits 34 digits.
    pub fn add(&self, other: &Self) -> Option<Decimal128> {
        let (Self::Finite(one), Self::Finite(two)) = (self, other) else { return None };
        let exponent = one.exponent.min(two.exponent);
        let sum = one.scaled(exponent)?.checked_add(two.scaled(exponent)?)?;
        let digits = sum.unsigned_abs().to_string();
        let text = format!("{}{digits}E{exponent}", if sum < 0 { "-" } else { "" });
        if digits.len() > MAX_DIGITS { None } else { text.parse().ok() }
    }
}

impl Finite {
    fn compare(&self, other: &Self) -> Ordering {
        match (self.sign(), other.sign()) {
            (one, two) if one != two => one.cmp(&two),
            (0, _) => Ordering::Equal,
            (sign, _) => {
                let magnitude = self.magnitude(other);
                if sign < 0 { magnitude.reverse() } else { magnitude }
            }
        }
    }

    fn sign(&self) -> i32 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        let leading = |number: &Self| number.digits.len() as i32 + number.exponent;
        leading(self)
            .cmp(&leading(other))
            .then_with(|| self.digits.trim_end_matches('0').cmp(other.digits.trim_end_matches('0')))
    }

    fn scaled(&self, exponent: i32) -> Option<i128> {
        let coefficient: i128 = if self.digits.is_empty() { 0 } else { self.digits.parse().ok()? };
        let factor = 10i128.checked_pow(u32::try_from(self.exponent - exponent).ok()?)?;
        let scaled = coefficient.checked_mul(factor)?;
        Some(if self.negative { -scaled } else { scaled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::of_decimal(text.parse().expect("a decimal"))
    }

    #[test]
    fn order_is_exact_across_kinds() {
        assert_eq!(decimal("1.20E+3").compare(&Decimal::of_integer(1200)), Ordering::Equal);
        assert_eq!(decimal("0.1").compare(&Decimal::of_double(0.1)), Ordering::Less);
        assert_eq!(decimal("-5").compare(&Decimal::of_double(-4.5)), Ordering::Less);
        assert_eq!(decimal("-0").compare(&Decimal::of_integer(0)), Ordering::Equal);
        assert_eq!(decimal("NaN").compare(&decimal("-Infinity")), Ordering::Less);
        assert_eq!(Decimal::of_integer(i64::MAX).compare(&Decimal::of_double(9.3e18)), Ordering::Less);
    }

    #[test]
    fn sums_keep_every_digit() {
        let sum = decimal("1.25").add(&Decimal::of_integer(2)).expect("fits");
        assert_eq!(sum.to_string(), "3.25");
    }
}
