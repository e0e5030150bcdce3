//! Days, times and points in time, as MySQL packs them.

use super::{Invalid, Scratch};
use std::fmt::Write;
use sync_worker_core::value::Value;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A date with a time of day, which need not be a day of the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub year: i32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub micros: u32,
}

impl Moment {
    fn days(&self) -> Option<i32> {
        let lengths = [31, if leap(self.year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let length = *lengths.get(usize::try_from(self.month).ok()?.checked_sub(1)?)?;
        let valid = (1..=9999).contains(&self.year) && (1..=length).contains(&self.day);
        valid.then(|| days_from_civil(self.year, self.month, self.day))
    }

    fn micros_of_day(&self) -> Option<i64> {
        let valid = self.hour < 24 && self.minute < 60 && self.second < 60 && self.micros < 1_000_000;
        let seconds = i64::from(self.hour * 3600 + self.minute * 60 + self.second);
        valid.then(|| seconds * SECOND + i64::from(self.micros))
    }

    /// The calendar day, or MySQL's own text: `0000-00-00`, `2024-02-31`.
    pub fn date(self, scratch: &mut Scratch) -> Value<'_> {
        match self.days() {
            Some(days) => Value::Date(days),
            None => {
                self.write_date(scratch);
                Value::Raw(scratch.text.as_bytes())
            }
        }
    }

    pub fn date_time(self, scratch: &mut Scratch) -> Value<'_> {
        match self.epoch_micros() {
            Some(micros) => Value::Timestamp(micros),
            None => self.text(scratch),
        }
    }

    pub fn timestamp(self, scratch: &mut Scratch) -> Value<'_> {
        match self.epoch_micros() {
            Some(micros) => Value::TimestampTz(micros),
            None => self.text(scratch),
        }
    }

    fn epoch_micros(&self) -> Option<i64> {
        Some(i64::from(self.days()?) * DAY + self.micros_of_day()?)
    }

    fn text<'a>(&self, scratch: &'a mut Scratch) -> Value<'a> {
        self.write_date(scratch);
        // Writing to a String can't fail.
        write!(scratch.text, " {:02}:{:02}:{:02}", self.hour, self.minute, self.second).unwrap_or_default();
        if self.micros != 0 {
            write!(scratch.text, ".{:06}", self.micros).unwrap_or_default();
        }
        Value::Raw(scratch.text.as_bytes())
    }

    fn write_date(&self, scratch: &mut Scratch) {
        scratch.text.clear();
        write!(scratch.text, "{:04}-{:02}-{:02}", self.year, self.month, self.day).unwrap_or_default();
    }

    /// The 40 bits of a packed date and time, with its micros.
    pub fn unpack(packed: u64, micros: u32) -> Self {
        let (date, time) = (packed >> 17, packed & 0x1_FFFF);
        let months = date >> 5;
        let field = |value: u64, bits: u32| u32::try_from(value & ((1 << bits) - 1)).unwrap_or(0);
        Self {
            year: i32::try_from(months / 13).unwrap_or(0),
            month: field(months % 13, 4),
            day: field(date, 5),
            hour: field(time >> 12, 5),
            minute: field(time >> 6, 6),
            second: field(time, 6),
            micros,
        }
    }

    /// A DATE of the binlog: year, month and day in 15, 4 and 5 bits.
    pub fn unpack_date(packed: u32) -> Self {
        let year = i32::try_from(packed >> 9).unwrap_or(0);
        Self { year, month: packed >> 5 & 15, day: packed & 31, ..Self::default() }
    }
}

/// Zero is no point in time but `0000-00-00 00:00:00`.
pub fn from_epoch(seconds: u32, micros: u32, scratch: &mut Scratch) -> Value<'_> {
    match (seconds, micros) {
        (0, 0) => Moment::default().text(scratch),
        _ => Value::TimestampTz(i64::from(seconds) * SECOND + i64::from(micros)),
    }
}

/// A signed number of the packed form of TIME: hours, minutes and seconds in 10, 6 and 6 bits, then 24 bits of micros.
pub fn unpack_time(packed: i64) -> Value<'static> {
    let size = packed.unsigned_abs();
    let (clock, micros) = (size >> 24, size & 0xFF_FFFF);
    let seconds = (clock >> 12 & 0x3FF) * 3600 + (clock >> 6 & 0x3F) * 60 + (clock & 0x3F);
    let micros = i64::try_from(seconds * 1_000_000 + micros).unwrap_or(0);
    Value::Time(if packed < 0 { -micros } else { micros })
}

/// The fraction of a second in the binlog: 0 to 3 bytes for 0 to 6 digits.
pub fn fraction(digits: u8, bytes: &mut &[u8]) -> Result<u32, Invalid> {
    let length = usize::from(digits.min(6)).div_ceil(2);
    let value = super::big(super::take_slice(bytes, length)?);
    let micros = value * [1, 10_000, 100, 1][length];
    u32::try_from(micros)
        .ok()
        .filter(|micros| *micros < 1_000_000)
        .ok_or(Invalid("a fraction of a second is too large"))
}

fn leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days since 1970-01-01 of a day of the Gregorian calendar: years begin in March, so that a leap day ends one.
pub fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = (i32::try_from(month).unwrap_or(1) + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i32::try_from(day).unwrap_or(1) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i32::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_go_there_and_back() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 2, 29), 11_016);
        assert_eq!(days_from_civil(1, 1, 1), -719_162);
        for days in (-719_162..2_932_897).step_by(17) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn what_is_no_day_keeps_its_text() {
        let mut scratch = Scratch::default();
        let date = |year, month, day| Moment { year, month, day, ..Moment::default() };
        assert_eq!(date(0, 0, 0).date(&mut scratch), Value::Raw(b"0000-00-00"));
        assert_eq!(date(2023, 2, 29).date(&mut scratch), Value::Raw(b"2023-02-29"));
        assert_eq!(date(2024, 2, 29).date(&mut scratch), Value::Date(19_782));
        assert_eq!(date(2024, 0, 1).date_time(&mut scratch), Value::Raw(b"2024-00-01 00:00:00"));
        assert_eq!(from_epoch(0, 0, &mut scratch), Value::Raw(b"0000-00-00 00:00:00"));
    }
}
