//! Plain decimal text as PostgreSQL's binary numeric.

use bytes::{BufMut, BytesMut};
use sync_worker_core::convert::Refusal;

/// Sign words of the binary numeric.
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Digits in groups of four around the decimal point: ndigits, weight of the first group, sign, digits after the point,
/// then the groups.
pub fn put_numeric(text: &str, out: &mut BytesMut) -> Result<(), Refusal> {
    let special = match text {
        "NaN" => Some(NAN),
        "Infinity" => Some(INFINITY),
        "-Infinity" => Some(NEGATIVE_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        out.put_slice(&[0, 0, 0, 0]);
        out.put_u16(sign);
        out.put_u16(0);
        return Ok(());
    }
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (whole, fraction) = match memchr::memchr(b'.', digits) {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[][..]),
    };
    let foreign = || Refusal("a number in a form that is not plain decimal".into());
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(foreign());
    }
    let too_long = |_| Refusal("a number with more digits than PostgreSQL's numeric holds".into());
    let scale = u16::try_from(fraction.len()).ok().filter(|scale| *scale <= 0x3FFF);
    let scale = scale.ok_or(()).map_err(too_long)?;
    let groups_before = i32::try_from(whole.len().div_ceil(4)).map_err(|_| too_long(()))?;

    let header = out.len();
    out.put_slice(&[0; 8]);
    // Leading zero groups move the weight; trailing ones are left out.
    let (mut count, mut end, mut weight) = (0i32, out.len(), groups_before - 1);
    let mut put = |group: u16, out: &mut BytesMut| {
        if count == 0 && group == 0 {
            weight -= 1;
            return;
        }
        out.put_u16(group);
        count += 1;
        if group != 0 {
            end = out.len();
        }
    };
    let number = |digits: &[u8]| digits.iter().fold(0u16, |number, digit| number * 10 + u16::from(digit - b'0'));
    let head = whole.len() % 4;
    if head > 0 {
        put(number(&whole[..head]), out);
    }
    whole[head..].chunks_exact(4).for_each(|group| put(number(group), out));
    for group in fraction.chunks(4) {
        let missing = u32::try_from(4 - group.len()).unwrap_or(0);
        put(number(group) * 10u16.pow(missing), out);
    }
    out.truncate(end);
    let count = (end - header - 8) / 2;
    let weight = if count == 0 { 0 } else { weight };
    let count = i16::try_from(count).map_err(|_| too_long(()))?;
    let weight = i16::try_from(weight).map_err(|_| too_long(()))?;
    let sign = if negative && count > 0 { NEGATIVE } else { 0 };
    let mut slot = &mut out[header..header + 8];
    slot.put_i16(count);
    slot.put_i16(weight);
    slot.put_u16(sign);
    slot.put_u16(scale);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> (i16, i16, u16, u16, Vec<i16>) {
        let mut out = BytesMut::new();
        put_numeric(text, &mut out).unwrap();
        let word = |at: usize| i16::from_be_bytes([out[at], out[at + 1]]);
        #[allow(clippy::cast_sign_loss)] // bit patterns
        let header = (word(0), word(2), word(4) as u16, word(6) as u16);
        assert_eq!(out.len(), 8 + 2 * usize::try_from(header.0).unwrap());
        (header.0, header.1, header.2, header.3, (4..out.len() / 2).map(|at| word(2 * at)).collect())
    }

    #[test]
    fn numerics_are_groups_of_four_digits_around_the_point() {
        assert_eq!(numeric("0"), (0, 0, 0, 0, vec![]));
        assert_eq!(numeric("-0.000"), (0, 0, 0, 3, vec![]));
        assert_eq!(numeric("1"), (1, 0, 0, 0, vec![1]));
        assert_eq!(numeric("-12345.67"), (3, 1, NEGATIVE, 2, vec![1, 2345, 6700]));
        assert_eq!(numeric("10000"), (1, 1, 0, 0, vec![1]));
        assert_eq!(numeric("0.0001"), (1, -1, 0, 4, vec![1]));
        assert_eq!(numeric("0.00001"), (1, -2, 0, 5, vec![1000]));
        assert_eq!(numeric("100000000.00010"), (4, 2, 0, 5, vec![1, 0, 0, 1]));
        assert_eq!(numeric(".5"), (1, -1, 0, 1, vec![5000]));
        assert_eq!(numeric("NaN").2, NAN);
        assert_eq!(numeric("-Infinity").2, NEGATIVE_INFINITY);
        for text in ["", "-", ".", "1e5", "1.2.3", "٣", "1_000"] {
            assert!(put_numeric(text, &mut BytesMut::new()).is_err(), "{text} was taken");
        }
    }
}
