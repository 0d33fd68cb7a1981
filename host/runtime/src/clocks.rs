//! The clock of the kernel's events, and how far it is from the wall's. Any thread.

use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Boot-clock nanoseconds, as the kernel's BPF programs take them.
pub(crate) fn boot_time() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Wall-clock minus boot-clock nanoseconds: the same, but for some dozen, until somebody sets the wall's.
pub(crate) fn boot_to_wall() -> i64 {
    // the best of a few looks, because the thread may lose its processor between two clocks
    let look = |_| {
        let (before, wall, after) = (boot_time(), nanoseconds(ClockId::Realtime), boot_time());
        let took = after.saturating_sub(before);
        (took, wall.wrapping_sub(before + took / 2) as i64)
    };
    (0..4).map(look).min_by_key(|(took, _)| *took).map_or(0, |(_, apart)| apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_are_as_far_apart_as_they_were() {
        let all: Vec<i64> = (0..1000).map(|_| boot_to_wall()).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        // nine of ten: the machine may be busy
        assert!(sorted[950] - sorted[50] < 100_000, "{} {}", sorted[50], sorted[950]);
        let before = boot_time() as i64;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        let after = boot_time() as i64;
        // however long the thread waited for its processor in between
        let second = 1_000_000_000;
        assert!((before - second..after + second).contains(&(now - all[0])), "{before} {now} {after} {}", all[0]);
    }
}
