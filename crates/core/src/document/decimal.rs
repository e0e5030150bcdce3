//! Decimal128: IEEE 754 decimal numbers of 34 digits, as BSON has them (binary integer significand).

use std::fmt;

const BIAS: i32 = 6176;
const DIGITS: usize = 34;
const LOWEST: i32 = -6176;
const HIGHEST: i32 = 6111;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    Number { negative: bool, significand: u128, exponent: i32 },
    Infinity { negative: bool },
    NotANumber,
}

impl Decimal {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        match bits >> 122 & 0x1F {
            0b11110 => return Decimal::Infinity { negative },
            0b11111 => return Decimal::NotANumber,
            _ => {}
        }
        // A significand that begins with 100 is above 34 digits: the number is zero then.
        let (exponent, significand) = match bits >> 125 & 0b11 {
            0b11 => (bits >> 111 & 0x3FFF, 0),
            _ => (bits >> 113 & 0x3FFF, bits & ((1 << 113) - 1)),
        };
        let significand = if significand >= 10u128.pow(34) { 0 } else { significand };
        let exponent = i32::try_from(exponent).unwrap_or(0) - BIAS;
        Decimal::Number { negative, significand, exponent }
    }

    pub fn to_bytes(self) -> [u8; 16] {
        let sign = |negative: bool| u128::from(negative) << 127;
        let bits = match self {
            Decimal::Number { negative, significand, exponent } => {
                let exponent = u128::try_from(exponent + BIAS).unwrap_or(0);
                sign(negative) | exponent << 113 | significand
            }
            Decimal::Infinity { negative } => sign(negative) | 0b11110 << 122,
            Decimal::NotANumber => 0b11111 << 122,
        };
        bits.to_le_bytes()
    }

    /// From plain digits with sign and point, or `NaN`, `Infinity`, `-Infinity`. None: more digits than it holds.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NaN" => return Some(Decimal::NotANumber),
            "Infinity" => return Some(Decimal::Infinity { negative: false }),
            "-Infinity" => return Some(Decimal::Infinity { negative: true }),
            _ => {}
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut exponent: i32 = exponent.parse().ok()?;
        exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut digits = digits.trim_start_matches('0');
        // Zeros at the end say nothing where there is no room for them.
        while (digits.len() > DIGITS || exponent < LOWEST) && digits.ends_with('0') {
            digits = &digits[..digits.len() - 1];
            exponent += 1;
        }
        if digits.len() > DIGITS {
            return None;
        }
        let mut significand: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        while exponent > HIGHEST && significand != 0 && significand < 10u128.pow(33) {
            significand *= 10;
            exponent -= 1;
        }
        if significand == 0 {
            exponent = exponent.clamp(LOWEST, HIGHEST);
        }
        (LOWEST..=HIGHEST).contains(&exponent).then_some(Decimal::Number { negative, significand, exponent })
    }

    /// The same number without zeros at its end, as far as the exponent can say so.
    pub fn reduced(self) -> Self {
        let Decimal::Number { negative, mut significand, mut exponent } = self else { return self };
        if significand == 0 {
            return Decimal::Number { negative: false, significand, exponent: 0 };
        }
        while exponent < HIGHEST && significand.is_multiple_of(10) {
            (significand, exponent) = (significand / 10, exponent + 1);
        }
        Decimal::Number { negative, significand, exponent }
    }

    /// The number where it is whole and fits.
    pub fn whole(self) -> Option<i64> {
        let Decimal::Number { negative, mut significand, mut exponent } = self else { return None };
        if significand == 0 {
            return Some(0);
        }
        while exponent < 0 && significand.is_multiple_of(10) {
            (significand, exponent) = (significand / 10, exponent + 1);
        }
        let power = u32::try_from(exponent).ok()?;
        let magnitude = significand.checked_mul(10u128.checked_pow(power)?)?;
        let magnitude = i128::try_from(magnitude).ok()?;
        i64::try_from(if negative { -magnitude } else { magnitude }).ok()
    }
}

/// Plain digits, trailing zeros as they are; the exponent written out.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal::Number { negative, significand, exponent } = *self else {
            return f.write_str(match self {
                Decimal::Infinity { negative: true } => "-Infinity",
                Decimal::Infinity { negative: false } => "Infinity",
                Decimal::Number { .. } | Decimal::NotANumber => "NaN",
            });
        };
        let digits = significand.to_string();
        if negative {
            f.write_str("-")?;
        }
        match usize::try_from(exponent) {
            Ok(_) if significand == 0 => f.write_str("0"),
            Ok(zeros) => write!(f, "{digits}{:0<zeros$}", ""),
            Err(_) => {
                let places = usize::try_from(-exponent).unwrap_or(0);
                let digits = format!("{digits:0>width$}", width = places + 1);
                let (whole, fraction) = digits.split_at(digits.len() - places);
                write!(f, "{whole}.{fraction}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_say_nothing() {
        let reduced = |text| Decimal::parse(text).unwrap().reduced();
        assert_eq!(reduced("1.50"), Decimal::parse("1.5").unwrap());
        assert_eq!(reduced("-0.00"), reduced("0"));
        assert_eq!(reduced("1e6111"), reduced("10e6110"));
        assert_ne!(reduced("15"), reduced("1.5"));
        assert_eq!(reduced("Infinity"), Decimal::Infinity { negative: false });
    }

    #[test]
    fn numbers_round_trip_through_bytes_and_text() {
        for text in ["0", "1", "-1.50", "0.00", "12345678901234567890123456789012.34", "0.000001", "NaN", "-Infinity"] {
            let number = Decimal::parse(text).unwrap();
            assert_eq!(Decimal::from_bytes(number.to_bytes()), number, "{text}");
            assert_eq!(number.to_string(), text);
        }
        assert_eq!(Decimal::parse("1e3").unwrap().to_string(), "1000");
        assert!(Decimal::parse("1.2345678901234567890123456789012345").is_none());
        assert!(Decimal::parse("x").is_none());
        // As the server prints NumberDecimal("1.5").
        assert_eq!(Decimal::parse("1.5").unwrap().to_bytes()[..2], [15, 0]);
    }

    #[test]
    fn whole_numbers_are_told_from_others() {
        let whole = |text| Decimal::parse(text).unwrap().whole();
        assert_eq!(whole("9223372036854775807.000"), Some(i64::MAX));
        assert_eq!(whole("9223372036854775808"), None);
        assert_eq!(whole("-1e3"), Some(-1000));
        assert_eq!(whole("0.5"), None);
        assert_eq!(whole("1e6000"), None);
    }
}
