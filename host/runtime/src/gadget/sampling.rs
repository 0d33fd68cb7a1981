//! When a `perf_event` program runs, as gadget.yaml says it: `perf.type`, `perf.config`, `sampler.frequency`,
//! `sampler.period`.
//!
//! Names are those of the kernel's `linux/perf_event.h`, with or without its prefixes, so `cpu_clock`,
//! `count_sw_cpu_clock` and `PERF_COUNT_SW_CPU_CLOCK` are one. Pure, no I/O.

use std::collections::BTreeMap;

use crate::bpf::attach::{Pace, PerfOptions};

/// The keys of a program that are about sampling.
pub(super) const KEYS: [&str; 5] =
    ["perf.type", "perf.config", "perf.sampleType", "sampler.frequency", "sampler.period"];

/// By name, in the order of the kernel's numbers.
const TYPES: [&str; 5] = ["hardware", "software", "tracepoint", "hw_cache", "raw"];
const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;
const HARDWARE_EVENTS: [&str; 10] = [
    "cpu_cycles",
    "instructions",
    "cache_references",
    "cache_misses",
    "branch_instructions",
    "branch_misses",
    "bus_cycles",
    "stalled_cycles_frontend",
    "stalled_cycles_backend",
    "ref_cpu_cycles",
];
const SOFTWARE_EVENTS: [&str; 9] = [
    "cpu_clock",
    "task_clock",
    "page_faults",
    "context_switches",
    "cpu_migrations",
    "page_faults_min",
    "page_faults_maj",
    "alignment_faults",
    "emulation_faults",
];

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    #[error("{key} {value:?} is neither a number nor one of {}", .known.join(", "))]
    Unknown { key: &'static str, value: String, known: &'static [&'static str] },
    #[error("{key} {value:?} is no number")]
    NoNumber { key: &'static str, value: String },
    #[error("{key} {value:?} is no number above 0")]
    NoPace { key: &'static str, value: String },
    #[error("sampler.frequency and sampler.period exclude each other")]
    TwoPaces,
}

/// What the options ask for; `None` where they say nothing about sampling. `perf.sampleType` chooses what a perf buffer
/// would hold; a BPF program gets its context whatever it says, so it has no effect here.
pub(super) fn options(given: &BTreeMap<String, String>) -> Result<Option<PerfOptions>, SamplingError> {
    let get = |key: &'static str| given.get(key).map(|v| (key, v.trim())).filter(|(_, v)| !v.is_empty());
    let (kind, config) = (get("perf.type"), get("perf.config"));
    let (frequency, period) = (get("sampler.frequency"), get("sampler.period"));
    if [kind, config, frequency, period].iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut options = PerfOptions::default();
    if let Some((key, value)) = kind {
        let number = named(value, &["perf_", "type_"], &TYPES).and_then(|n| u32::try_from(n).ok());
        options.kind = number.ok_or_else(|| unknown(key, value, &TYPES))?;
    }
    if let Some((key, value)) = config {
        let (prefixes, known): (_, &'static [&'static str]) = match options.kind {
            HARDWARE => (["perf_", "count_", "hw_"], &HARDWARE_EVENTS),
            SOFTWARE => (["perf_", "count_", "sw_"], &SOFTWARE_EVENTS),
            _ => (["", "", ""], &[]),
        };
        options.config = named(value, &prefixes, known).ok_or_else(|| unknown(key, value, known))?;
    }
    options.pace = match (frequency, period) {
        (Some(_), Some(_)) => return Err(SamplingError::TwoPaces),
        (Some(f), None) => Pace::PerSecond(above_zero(f)?),
        (None, Some(p)) => Pace::EveryNth(above_zero(p)?),
        (None, None) => options.pace,
    };
    Ok(Some(options))
}

fn named(value: &str, prefixes: &[&str], known: &[&str]) -> Option<u64> {
    if let Some(n) = number(value) {
        return Some(n);
    }
    let name = value.to_ascii_lowercase();
    let bare = prefixes.iter().fold(name.as_str(), |name, p| name.strip_prefix(p).unwrap_or(name));
    known.iter().position(|k| *k == bare).map(|n| n as u64)
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

fn unknown(key: &'static str, value: &str, known: &'static [&'static str]) -> SamplingError {
    match known {
        [] => SamplingError::NoNumber { key, value: value.to_owned() },
        known => SamplingError::Unknown { key, value: value.to_owned(), known },
    }
}

fn above_zero((key, value): (&'static str, &str)) -> Result<u64, SamplingError> {
    number(value).filter(|n| *n > 0).ok_or_else(|| SamplingError::NoPace { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<PerfOptions>, SamplingError> {
        options(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn nothing_said_leaves_the_default() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("perf.sampleType", "sample_raw")]), Ok(None));
        assert_eq!(PerfOptions::default(), PerfOptions { kind: 1, config: 0, pace: Pace::PerSecond(49) });
    }

    #[test]
    fn names_and_numbers_mean_the_same() {
        let clock = Ok(Some(PerfOptions { kind: 1, config: 0, pace: Pace::PerSecond(99) }));
        for (kind, config) in [
            ("software", "cpu_clock"),
            ("type_software", "count_sw_cpu_clock"),
            ("PERF_TYPE_SOFTWARE", "PERF_COUNT_SW_CPU_CLOCK"),
            ("1", "0"),
        ] {
            let given = [("perf.type", kind), ("perf.config", config), ("sampler.frequency", "99")];
            assert_eq!(read(&given), clock, "{given:?}");
        }
        let faults = read(&[("perf.config", "page_faults"), ("sampler.period", "1")]);
        assert_eq!(faults, Ok(Some(PerfOptions { kind: 1, config: 2, pace: Pace::EveryNth(1) })));
        let cycles = read(&[("perf.type", "hardware"), ("perf.config", "hw_instructions")]);
        assert_eq!(cycles, Ok(Some(PerfOptions { kind: 0, config: 1, pace: Pace::PerSecond(49) })));
        let raw = read(&[("perf.type", "raw"), ("perf.config", "0x1c2")]);
        assert_eq!(raw, Ok(Some(PerfOptions { kind: 4, config: 0x1c2, pace: Pace::PerSecond(49) })));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let said = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
        assert_eq!(
            said(&[("perf.type", "sofware")]),
            "perf.type \"sofware\" is neither a number nor one of hardware, software, tracepoint, hw_cache, raw"
        );
        assert!(said(&[("perf.config", "instructions")]).contains("cpu_clock"), "not a software event");
        assert_eq!(said(&[("perf.type", "raw"), ("perf.config", "cycles")]), "perf.config \"cycles\" is no number");
        for bad in ["0", "-1", "many", "1.5"] {
            assert!(said(&[("sampler.frequency", bad)]).contains("no number above 0"), "{bad}");
        }
        let both = [("sampler.frequency", "1"), ("sampler.period", "1")];
        assert_eq!(said(&both), "sampler.frequency and sampler.period exclude each other");
        assert!(read(&[("perf.type", "4294967296")]).is_err(), "does not fit");
    }
}
