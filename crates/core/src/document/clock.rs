//! Times as texts of a document.

use std::fmt::Write as _;

const DAY: i64 = 86_400_000_000;

/// `HH:MM:SS`, with a fraction where there is one.
pub fn time(micros: i64) -> String {
    let (sign, size) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let seconds = size / 1_000_000;
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if size % 1_000_000 != 0 {
        // Writing into a string can't fail.
        write!(text, ".{:06}", size % 1_000_000).unwrap_or_default();
    }
    text
}

/// The microseconds of [`time`]'s text.
pub fn read_time(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':').map(|part| digits(part).filter(|_| part.len() >= 2));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || minutes > 59 || seconds > 59 || hours > 838 || fraction.len() > 6 {
        return None;
    }
    let fraction = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<6}"))? };
    let micros = (hours * 3600 + minutes * 60 + seconds) * 1_000_000 + fraction;
    Some(if negative { -micros } else { micros })
}

/// A moment in ISO 8601, always with six digits of a second and, in UTC, with a `Z`: `2024-02-29T23:59:59.000001Z`.
/// Years of more than four digits and those before the year 0 have a sign, as the standard asks for.
pub fn timestamp(micros: i64, zoned: bool) -> String {
    let zone = if zoned { "Z" } else { "" };
    match micros {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let (seconds, fraction) = (micros.rem_euclid(DAY) / 1_000_000, micros.rem_euclid(1_000_000));
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}{zone}")
}

/// The microseconds of [`timestamp`]'s text; fewer digits of a second or none are taken, too.
pub fn read_timestamp(text: &str, zoned: bool) -> Option<i64> {
    match text {
        "-infinity" => return Some(i64::MIN),
        "infinity" => return Some(i64::MAX),
        _ => {}
    }
    let (date, clock) = text.split_once('T')?;
    let clock = match zoned {
        true => clock.strip_suffix('Z')?,
        false => clock,
    };
    let (sign, date) = match date.split_at_checked(1)? {
        ("-", rest) => (-1, rest),
        ("+", rest) => (1, rest),
        _ => (1, date),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() < 4 || year.len() > 7 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (sign * digits(year)?, digits(month)?, digits(day)?);
    let days = days(year, month, day);
    // A month of so many days has no such day.
    if civil(days) != (year, month, day) {
        return None;
    }
    let within = read_time(clock).filter(|micros| (0..DAY).contains(micros))?;
    days.checked_mul(DAY)?.checked_add(within).filter(|micros| *micros != i64::MIN && *micros != i64::MAX)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Year, month and day of the days since 1970-01-01, in the calendar of today for all times. Years are counted from the
/// first of March, in eras of 400 years, which all have the same days.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let year = year + era * 400 + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day - (153 * month + 2) / 5 + 1)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_go_there_and_back() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000"),
            (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999"),
            (9_223_371_331_199_999_999, "+294247-01-01T23:59:59.999999"),
            (-210_866_803_200_000_000, "-004713-11-24T00:00:00.000000"),
            (i64::MAX, "infinity"),
        ] {
            assert_eq!(timestamp(micros, false), text);
            assert_eq!(read_timestamp(text, false), Some(micros));
            if micros != i64::MAX {
                assert_eq!(read_timestamp(&timestamp(micros, true), true), Some(micros));
                assert_eq!(read_timestamp(text, true), None, "without a zone");
            }
        }
        assert_eq!(read_timestamp("2024-02-29T00:00:00Z", true), Some(1_709_164_800_000_000));
        for wrong in ["", "2023-02-29T00:00:00", "2024-01-01", "2024-1-01T00:00:00", "2024-01-01T24:00:00", "é"] {
            assert_eq!(read_timestamp(wrong, false), None, "{wrong}");
        }
    }

    #[test]
    fn days_go_there_and_back() {
        for day in (-5_000_000..5_000_000).step_by(997) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }
}
