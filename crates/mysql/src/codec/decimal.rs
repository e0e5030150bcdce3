//! DECIMAL: packed in nine-digit groups in the binlog and inside JSON, as text in the protocol. Canonical text has all
//! digits of the scale, no leading zeros but one before the point, and no sign on zero.

use super::{CUT, Invalid, take_slice};

/// Bytes of a group of 0 to 9 digits.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

const GROUP: usize = 9;

pub fn packed_length(precision: u8, scale: u8) -> Option<usize> {
    let scale = usize::from(scale);
    let whole = usize::from(precision).checked_sub(scale)?;
    Some(whole / GROUP * 4 + BYTES[whole % GROUP] + scale / GROUP * 4 + BYTES[scale % GROUP])
}

/// Appends the text of a packed decimal and moves past it.
pub fn unpack(precision: u8, scale: u8, bytes: &mut &[u8], out: &mut String) -> Result<(), Invalid> {
    let length = packed_length(precision, scale).filter(|length| (1..=32).contains(length));
    let packed = take_slice(bytes, length.ok_or(Invalid("a decimal of impossible precision"))?)?;
    let negative = packed[0] & 0x80 == 0;
    let mut buffer = [0; 32];
    let digits = buffer.get_mut(..packed.len()).ok_or(CUT)?;
    digits.copy_from_slice(packed);
    digits[0] ^= 0x80;
    if negative {
        digits.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let start = out.len();
    if negative {
        out.push('-');
    }
    let first = out.len();
    let scale = usize::from(scale);
    let whole = usize::from(precision) - scale;
    let mut rest = &*digits;
    group(&mut rest, whole % GROUP, out)?;
    for _ in 0..whole / GROUP {
        group(&mut rest, GROUP, out)?;
    }
    if out.len() == first {
        out.push('0');
    }
    if scale > 0 {
        out.push('.');
        for _ in 0..scale / GROUP {
            fraction(&mut rest, GROUP, out)?;
        }
        fraction(&mut rest, scale % GROUP, out)?;
    }
    if negative && !out.as_bytes()[first..].iter().any(|byte| (b'1'..=b'9').contains(byte)) {
        out.remove(start);
    }
    Ok(())
}

/// Digits before the point: leading zeros are left out.
fn group(bytes: &mut &[u8], digits: usize, out: &mut String) -> Result<(), Invalid> {
    let value = number(bytes, digits)?;
    let begun = out.as_bytes().last().is_some_and(u8::is_ascii_digit);
    match (begun, value) {
        (false, 0) => {}
        (false, _) => out.push_str(itoa::Buffer::new().format(value)),
        (true, _) => padded(value, digits, out),
    }
    Ok(())
}

fn fraction(bytes: &mut &[u8], digits: usize, out: &mut String) -> Result<(), Invalid> {
    let value = number(bytes, digits)?;
    if digits > 0 {
        padded(value, digits, out);
    }
    Ok(())
}

fn number(bytes: &mut &[u8], digits: usize) -> Result<u64, Invalid> {
    let value = super::big(take_slice(bytes, BYTES[digits])?);
    match value < 10u64.pow(u32::try_from(digits).unwrap_or(0)) {
        true => Ok(value),
        false => Err(Invalid("a decimal with an impossible digit")),
    }
}

fn padded(value: u64, digits: usize, out: &mut String) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    for _ in text.len()..digits {
        out.push('0');
    }
    out.push_str(text);
}

/// The canonical form of a decimal that the server printed: ZEROFILL puts zeros before it.
pub fn canonical<'a>(text: &'a str, scratch: &'a mut String) -> &'a str {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let whole = digits.find('.').unwrap_or(digits.len());
    let zeros = digits[..whole].bytes().take_while(|byte| *byte == b'0').count();
    let keep = if zeros == whole { 1 } else { 0 };
    let zero = negative && !digits.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    if zeros <= keep && !zero && whole > 0 {
        return text;
    }
    scratch.clear();
    if negative && !zero {
        scratch.push('-');
    }
    match zeros == whole {
        true => {
            scratch.push('0');
            scratch.push_str(&digits[whole..]);
        }
        false => scratch.push_str(&digits[zeros..]),
    }
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(precision: u8, scale: u8, bytes: &[u8]) -> Result<String, Invalid> {
        let mut out = String::new();
        unpack(precision, scale, &mut &bytes[..], &mut out).map(|()| out)
    }

    #[test]
    fn packed_decimals_are_read() {
        // the example of MySQL's own sources: 1234567890.1234 as decimal(14,4), and its negative
        let bytes = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        assert_eq!(text(14, 4, &bytes).unwrap(), "1234567890.1234");
        let negative: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(text(14, 4, &negative).unwrap(), "-1234567890.1234");
        assert_eq!(text(3, 2, &[0x80, 0x05]).unwrap(), "0.05");
        assert_eq!(text(2, 2, &[0x80 | 0x32]).unwrap(), "0.50");
        assert_eq!(text(2, 2, &[!0x80]).unwrap(), "0.00", "there is no negative zero");
        assert!(text(14, 4, &bytes[..6]).is_err());
        assert!(text(0, 1, &bytes).is_err());
    }

    #[test]
    fn printed_decimals_become_canonical() {
        let mut scratch = String::new();
        for (printed, wanted) in [
            ("1.10", "1.10"),
            ("0.50", "0.50"),
            ("-0.00", "0.00"),
            ("0001.5", "1.5"),
            ("000", "0"),
            ("-12", "-12"),
            ("100", "100"),
            (".5", "0.5"),
        ] {
            assert_eq!(canonical(printed, &mut scratch), wanted);
        }
    }
}
