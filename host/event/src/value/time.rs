//! Wall-clock nanoseconds to RFC 3339. The text of a second and its zone offset is kept, so that a stream of events pays
//! for calendar arithmetic once a second.

use super::number;
use jiff::{Timestamp, tz::TimeZone};

/// Renders times of one zone: `2024-07-31T13:39:16.455283441-05:00`, nine decimals always.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    second: u64,
    /// `2024-07-31T13:39:16.`
    head: Vec<u8>,
    /// `-05:00`, or `Z`
    tail: Vec<u8>,
}

const NS: u64 = 1_000_000_000;

impl Clock {
    pub(crate) fn new(zone: TimeZone) -> Self {
        // No time of a 64-bit count of nanoseconds lies in this second, so the first one fills the cache.
        Clock { zone, second: u64::MAX, head: Vec::new(), tail: Vec::new() }
    }

    /// Appends the time; nothing for 0, which stands for "not known".
    pub(crate) fn write(&mut self, nanoseconds: u64, out: &mut Vec<u8>) {
        if nanoseconds == 0 {
            return;
        }
        if nanoseconds / NS != self.second {
            self.turn_to(nanoseconds / NS);
        }
        out.extend_from_slice(&self.head);
        number::padded(nanoseconds % NS, 9, out);
        out.extend_from_slice(&self.tail);
    }

    fn turn_to(&mut self, second: u64) {
        self.second = second;
        self.head.clear();
        self.tail.clear();
        // Seconds of a u64 of nanoseconds end in the year 2554: always a valid time.
        let time = Timestamp::from_second(second as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset = self.zone.to_offset(time);
        let local = offset.to_datetime(time);
        number::padded(local.year().unsigned_abs().into(), 4, &mut self.head);
        for (separator, part) in [
            (b'-', local.month()),
            (b'-', local.day()),
            (b'T', local.hour()),
            (b':', local.minute()),
            (b':', local.second()),
        ] {
            self.head.push(separator);
            number::padded(part.unsigned_abs().into(), 2, &mut self.head);
        }
        self.head.push(b'.');
        let seconds = offset.seconds();
        if seconds == 0 {
            return self.tail.push(b'Z');
        }
        self.tail.push(if seconds < 0 { b'-' } else { b'+' });
        let minutes = u64::from(seconds.unsigned_abs()) / 60;
        number::padded(minutes / 60, 2, &mut self.tail);
        self.tail.push(b':');
        number::padded(minutes % 60, 2, &mut self.tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(clock: &mut Clock, ns: u64) -> String {
        let mut out = Vec::new();
        clock.write(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc_3339_with_nine_decimals_in_the_given_zone() {
        let mut utc = Clock::new(TimeZone::UTC);
        assert_eq!(text(&mut utc, 1_722_451_156_455_283_441), "2024-07-31T18:39:16.455283441Z");
        assert_eq!(text(&mut utc, 1_722_451_156_000_000_001), "2024-07-31T18:39:16.000000001Z");
        assert_eq!(text(&mut utc, 1_722_451_157_000_000_000), "2024-07-31T18:39:17.000000000Z");
        assert_eq!(text(&mut utc, 0), "");
        assert_eq!(text(&mut utc, u64::MAX), "2554-07-21T23:34:33.709551615Z");
        let mut west = Clock::new(TimeZone::fixed(jiff::tz::offset(-5)));
        assert_eq!(text(&mut west, 1_722_451_156_455_283_441), "2024-07-31T13:39:16.455283441-05:00");
    }

    #[test]
    fn the_offset_follows_daylight_saving() {
        let mut berlin = Clock::new(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_eq!(text(&mut berlin, 1_711_846_799 * NS), "2024-03-31T01:59:59.000000000+01:00");
        assert_eq!(text(&mut berlin, 1_711_846_800 * NS), "2024-03-31T03:00:00.000000000+02:00");
    }
}
