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

/// Wall-clock minus boot-clock nanoseconds.
pub(crate) fn boot_to_wall() -> i64 {
    nanoseconds(ClockId::Realtime).wrapping_sub(boot_time()) as i64
}
