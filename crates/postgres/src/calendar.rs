//! Dates and times as PostgreSQL prints them under `DateStyle = ISO` and `TimeZone = UTC`.

use crate::codec::Problem;
use std::fmt::{self, Write};

const DAY: i64 = 86_400_000_000;
const DAYS_TO_2000: i64 = 10_957;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;

const NO_DATE: Problem = "not a date";
const NO_TIME: Problem = "not a time";

/// Days since 1970-01-01; the infinities are the ends of the range.
pub fn date(text: &[u8]) -> Result<i32, Problem> {
    match text {
        b"infinity" => return Ok(i32::MAX),
        b"-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let (text, before_christ) = era(text);
    let (days, rest) = days(text, before_christ)?;
    match rest {
        [] => i32::try_from(days).map_err(|_| NO_DATE),
        _ => Err(NO_DATE),
    }
}

/// Microseconds since midnight, up to 24 hours.
pub fn time(text: &[u8]) -> Result<i64, Problem> {
    match clock(text)? {
        (micros, []) => Ok(micros),
        _ => Err(NO_TIME),
    }
}

/// Microseconds since 1970-01-01 00:00; the infinities are the ends of the range. None for a timestamp after it, of the last
/// thirty years that PostgreSQL has.
pub fn timestamp(text: &[u8]) -> Result<Option<i64>, Problem> {
    zoned(text, b"")
}

pub fn timestamp_utc(text: &[u8]) -> Result<Option<i64>, Problem> {
    zoned(text, b"+00")
}

fn zoned(text: &[u8], zone: &[u8]) -> Result<Option<i64>, Problem> {
    match text {
        b"infinity" => return Ok(Some(i64::MAX)),
        b"-infinity" => return Ok(Some(i64::MIN)),
        _ => {}
    }
    let (days, micros) = instant(text, zone)?;
    let instant = days.checked_mul(DAY).and_then(|start| start.checked_add(micros));
    Ok(instant.filter(|instant| *instant != i64::MAX))
}

/// Microseconds since 2000-01-01 00:00 of a timestamp that [`timestamp`] or, with the zone `+00`, [`timestamp_utc`] has none for.
pub fn late_timestamp(text: &[u8], zone: &[u8]) -> Option<i64> {
    if zoned(text, zone).ok()?.is_some() {
        return None;
    }
    let (days, micros) = instant(text, zone).ok()?;
    days.checked_sub(DAYS_TO_2000)?.checked_mul(DAY)?.checked_add(micros)
}

/// Days since 1970-01-01 and microseconds since midnight.
fn instant(text: &[u8], zone: &[u8]) -> Result<(i64, i64), Problem> {
    let (text, before_christ) = era(text);
    let (days, rest) = days(text, before_christ)?;
    let (micros, rest) = clock(rest.strip_prefix(b" ").ok_or(NO_TIME)?)?;
    if rest != zone {
        return Err("a time of another zone than UTC");
    }
    Ok((days, micros))
}

fn era(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b" BC").map_or((text, false), |text| (text, true))
}

/// Reads `YYYY-MM-DD`; a year has four digits or more.
fn days(text: &[u8], before_christ: bool) -> Result<(i64, &[u8]), Problem> {
    let length = text.iter().position(|byte| *byte == b'-').filter(|at| (4..=7).contains(at)).ok_or(NO_DATE)?;
    let (year, rest) = text.split_at(length);
    let year = number(year).ok_or(NO_DATE)?;
    let (month, day, rest) = match rest {
        [b'-', m1, m2, b'-', d1, d2, rest @ ..] => (number(&[*m1, *m2]), number(&[*d1, *d2]), rest),
        _ => return Err(NO_DATE),
    };
    let (month, day) = (month.ok_or(NO_DATE)?, day.ok_or(NO_DATE)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(NO_DATE);
    }
    let year = if before_christ { 1 - year } else { year };
    Ok((days_from_civil(year, month, day), rest))
}

/// Reads `HH:MM:SS` and up to six digits of a second.
fn clock(text: &[u8]) -> Result<(i64, &[u8]), Problem> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else { return Err(NO_TIME) };
    let part = |one: &u8, two: &u8| number(&[*one, *two]).ok_or(NO_TIME);
    let (hour, minute, second) = (part(h1, h2)?, part(m1, m2)?, part(s1, s2)?);
    let mut micros = hour * HOUR + minute * MINUTE + second * SECOND;
    let mut rest = rest;
    if let [b'.', digits @ ..] = rest {
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=6).contains(&length) {
            return Err(NO_TIME);
        }
        let (digits, after) = digits.split_at(length);
        let missing = u32::try_from(6 - length).map_err(|_| NO_TIME)?;
        micros += number(digits).ok_or(NO_TIME)? * 10i64.pow(missing);
        rest = after;
    }
    if minute > 59 || second > 59 || micros > DAY {
        return Err(NO_TIME);
    }
    Ok((micros, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    let mut number = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(number)
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar. Years are counted from March, so that the leap day is the
/// last day of one and months need no table; 400 years have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

pub fn print_date(days: i32, out: &mut String) -> fmt::Result {
    match days {
        i32::MAX => out.write_str("infinity"),
        i32::MIN => out.write_str("-infinity"),
        days => {
            let before_christ = write_days(i64::from(days), out)?;
            out.write_str(if before_christ { " BC" } else { "" })
        }
    }
}

/// Whether the year is one before Christ, which is said at the very end.
fn write_days(days: i64, out: &mut String) -> Result<bool, fmt::Error> {
    let (year, month, day) = civil_from_days(days);
    let before_christ = year <= 0;
    let year = if before_christ { 1 - year } else { year };
    write!(out, "{year:04}-{month:02}-{day:02}")?;
    Ok(before_christ)
}

pub fn print_time(micros: i64, out: &mut String) -> fmt::Result {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs().cast_signed();
    let (hour, minute, second) = (micros / HOUR, micros / MINUTE % 60, micros / SECOND % 60);
    write!(out, "{sign}{hour:02}:{minute:02}:{second:02}")?;
    match micros % SECOND {
        0 => Ok(()),
        fraction => write!(out, ".{fraction:06}"),
    }
}

pub fn print_timestamp(micros: i64, zone: &str, out: &mut String) -> fmt::Result {
    match micros {
        i64::MAX => out.write_str("infinity"),
        i64::MIN => out.write_str("-infinity"),
        micros => {
            let before_christ = write_days(micros.div_euclid(DAY), out)?;
            out.write_char(' ')?;
            print_time(micros.rem_euclid(DAY), out)?;
            out.write_str(zone)?;
            out.write_str(if before_christ { " BC" } else { "" })
        }
    }
}
