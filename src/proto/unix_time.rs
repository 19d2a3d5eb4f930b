//! The time of day as logs write it: milliseconds since 1970 go in, passed by whoever has a clock; dates in UTC come out.

use std::fmt::{self, Display};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds, as the system's clock counts. `Display` is RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixTime(pub u64);

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

impl UnixTime {
    /// `2026-11-20T15:04:05.123Z`, as in RFC 3339. Up to the year 9999.
    #[must_use]
    pub fn rfc3339(self) -> [u8; 24] {
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let (year, month, day) = self.date();
        put(&mut text[..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        self.put_clock(&mut text[11..19]);
        put(&mut text[20..23], (self.0 % 1000) as u32);
        text
    }

    /// `Nov 20 15:04:05`, as in RFC 3164 4.1.2: a day of one digit has a space before it.
    #[must_use]
    pub fn rfc3164(self) -> [u8; 15] {
        let mut text = *b"Jan 00 00:00:00";
        let (_, month, day) = self.date();
        let name = MONTHS.iter().skip(3 * (month as usize - 1));
        text.iter_mut().take(3).zip(name).for_each(|(byte, letter)| *byte = *letter);
        put(&mut text[4..6], day);
        if day < 10 {
            text[4] = b' ';
        }
        self.put_clock(&mut text[7..]);
        text
    }

    /// Year, month and day.
    fn date(self) -> (u32, u32, u32) {
        // 32 bits hold every day of more years than are written.
        civil_from_days((self.0 / 86_400_000 % 3_652_425) as u32)
    }

    fn put_clock(self, text: &mut [u8]) {
        let mut rest = (self.0 / 1000 % 86_400) as u32;
        for part in text.rsplit_mut(|&byte| byte == b':') {
            put(part, rest % 60);
            rest /= 60;
        }
    }
}

impl Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.rfc3339()).unwrap_or_default())
    }
}

/// The last digits of a number, as many as there is room for.
#[inline(never)]
fn put(text: &mut [u8], number: u32) {
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Days since 1970-01-01 to year, month and day: Howard Hinnant's `civil_from_days`, for days that are not negative. The
/// year is counted from March, which puts the leap day at its end.
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_from_days(days), date, "day {days}");
        }
    }

    #[test]
    fn both_spellings() {
        for (ms, long, short) in [
            (0, "1970-01-01T00:00:00.000Z", "Jan  1 00:00:00"),
            (1_795_187_045_123, "2026-11-20T15:04:05.123Z", "Nov 20 15:04:05"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z", "Feb 29 23:59:59"),
            (4_102_444_800_007, "2100-01-01T00:00:00.007Z", "Jan  1 00:00:00"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z", "Dec 31 23:59:59"),
        ] {
            assert_eq!(UnixTime(ms).to_string(), long);
            assert_eq!(UnixTime(ms).rfc3164(), short.as_bytes(), "{long}");
        }
        // Whatever the clock says, there is an answer.
        assert_eq!(UnixTime(u64::MAX).rfc3164().len(), 15);
        assert!(UnixTime(u64::MAX).to_string().ends_with('Z'));
    }
}
