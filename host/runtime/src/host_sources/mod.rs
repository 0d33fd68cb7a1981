//! Tables that the host makes itself, without a BPF program of the gadget: a gadget asks for one in the `operator` part of
//! its gadget.yaml.
//!
//! Read on the event thread, at the intervals of tables. A reading opens what it needs and keeps nothing open but what it
//! says; it prints nothing and never waits.

mod bpf_stats;
mod processes;
mod row;

use crate::gadget::{metadata::GadgetMetadata, params::Param};
use bpf_stats::BpfStats;
use ig_event::DataSource;
use processes::Processes;
use std::{io, path::Path, time::Duration};

/// Parameter of the table of BPF programs.
pub(crate) const GADGETS_ONLY: &str = "gadgets-only";

/// What the host can make a table of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostSource {
    /// `operator.process.emitstats`: the processes, from /proc.
    Processes,
    /// `operator.ebpf.emitstats`: the BPF programs of the machine.
    BpfStats,
}

impl HostSource {
    /// The rows' fields.
    pub fn schema(self) -> DataSource {
        match self {
            HostSource::Processes => processes::schema(),
            HostSource::BpfStats => bpf_stats::schema(),
        }
    }

    /// What the user can set of it.
    pub fn params(self) -> Vec<Param> {
        match self {
            HostSource::Processes => Vec::new(),
            HostSource::BpfStats => {
                vec![Param::yes_or_no(
                    GADGETS_ONLY,
                    "Show only programs of gadgets, and those that the host runs for them",
                )]
            }
        }
    }
}

/// Which table a gadget asks for, and when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSettings {
    pub source: HostSource,
    pub interval: Duration,
    pub first: Option<Duration>,
    pub count: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum HostSourceError {
    #[error("operator.{key}: {text:?} is {expected}")]
    Setting { key: String, text: String, expected: &'static str },
    #[error("operator: process.emitstats and ebpf.emitstats exclude each other")]
    Both,
    #[error("no /proc here numbers processes as the host does")]
    NoProc,
    #[error("the kernel keeps no statistics of BPF programs (it lacks BPF_ENABLE_STATS, which came with Linux 5.8)")]
    NoBpfStats(#[source] io::Error),
    #[error("asking for the statistics of BPF programs")]
    BpfStats(#[source] io::Error),
}

impl HostSourceError {
    pub fn hint(&self) -> Option<String> {
        match self {
            HostSourceError::NoProc => Some("run with the host's pid namespace (docker: --pid=host)".to_owned()),
            HostSourceError::Setting { .. } | HostSourceError::Both => {
                Some("docs/reference/gadget-yaml.md lists the settings".to_owned())
            }
            HostSourceError::NoBpfStats(_) | HostSourceError::BpfStats(_) => None,
        }
    }
}

/// What gadget.yaml asks for, if anything. Settings of other parts of a host are none of ours.
pub fn settings(metadata: &GadgetMetadata) -> Result<Option<HostSettings>, HostSourceError> {
    let setting = |key: &str| {
        let operator = metadata.operator.get(key);
        // Images in the field have the switch of the BPF statistics here.
        operator.or_else(|| metadata.annotations.get(&format!("operator.{key}"))).filter(|text| !text.is_empty())
    };
    let wrong =
        |key: &str, text: &str, expected| HostSourceError::Setting { key: key.into(), text: text.into(), expected };
    let on = |key: &str| match setting(key) {
        None => Ok(false),
        Some(text) => text.parse().map_err(|_e| wrong(key, text, "neither true nor false")),
    };
    let (source, part, interval) = match (on("process.emitstats")?, on("ebpf.emitstats")?) {
        (false, false) => return Ok(None),
        (true, true) => return Err(HostSourceError::Both),
        (true, false) => (HostSource::Processes, "process", Duration::from_secs(3)),
        (false, true) => (HostSource::BpfStats, "ebpf", Duration::from_secs(1)),
    };
    let time = |name: &str| {
        let key = format!("{part}.{name}");
        let parse =
            |text: &String| parse_duration(text).ok_or_else(|| wrong(&key, text, "no time such as 500ms or 3s"));
        setting(&key).map(parse).transpose()
    };
    let key = format!("{part}.count");
    let number = |text: &String| text.parse().map_err(|_e| wrong(&key, text, "no number"));
    Ok(Some(HostSettings {
        source,
        interval: time("interval")?.unwrap_or(interval),
        first: time("first-interval")?,
        count: setting(&key).map(number).transpose()?.unwrap_or(0),
    }))
}

/// `500ms`, `2s`, `1m`, `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

/// A table that can be read, with what it remembers from one reading to the next.
pub(crate) enum HostTable {
    Processes(Processes),
    BpfStats(BpfStats),
}

impl HostTable {
    /// Takes the first look, which what has happened by the first reading is counted from.
    pub(crate) fn open(source: HostSource, host_root: &Path, gadgets_only: bool) -> Result<HostTable, HostSourceError> {
        let proc = crate::host_root::proc(host_root);
        match source {
            HostSource::Processes => Processes::open(proc.ok_or(HostSourceError::NoProc)?).map(HostTable::Processes),
            // Without the host's processes only the names of the programs' owners are missing.
            HostSource::BpfStats => BpfStats::open(proc, gadgets_only).map(HostTable::BpfStats),
        }
    }

    /// All rows, as records of the source's schema.
    pub(crate) fn read(&mut self, push: &mut impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            HostTable::Processes(table) => table.read(push),
            HostTable::BpfStats(table) => table.read(push),
        }
    }
}

#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    processes::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gadget::metadata;

    fn parsed(operator: &str) -> Result<Option<HostSettings>, String> {
        let yaml = format!("name: t\noperator: {operator}\n");
        settings(&metadata::parse(yaml.as_bytes(), "t").unwrap().metadata).map_err(|e| e.to_string())
    }

    #[test]
    fn a_gadget_asks_for_a_table_of_the_host() {
        assert_eq!(parsed("{oci: {x: y}}"), Ok(None));
        assert_eq!(parsed("{process: {emitstats: false}}"), Ok(None));
        let all =
            parsed("{process: {emitstats: true, interval: 5s, first-interval: 250ms, count: 2}}").unwrap().unwrap();
        let (interval, first) = (Duration::from_secs(5), Some(Duration::from_millis(250)));
        assert_eq!(all, HostSettings { source: HostSource::Processes, interval, first, count: 2 });
        assert_eq!(parsed("{ebpf: {emitstats: true}}").unwrap().unwrap().source, HostSource::BpfStats);
        let yaml = "name: t\nannotations: {operator.ebpf.emitstats: true}\n";
        let old = settings(&metadata::parse(yaml.as_bytes(), "t").unwrap().metadata).unwrap();
        assert_eq!(old.unwrap().source, HostSource::BpfStats);
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = |o: &str| parsed(o).unwrap_err();
        assert_eq!(
            error("{process: {emitstats: maybe}}"),
            r#"operator.process.emitstats: "maybe" is neither true nor false"#
        );
        assert_eq!(
            error("{process: {emitstats: true, interval: often}}"),
            r#"operator.process.interval: "often" is no time such as 500ms or 3s"#
        );
        assert_eq!(error("{ebpf: {emitstats: true, count: -1}}"), r#"operator.ebpf.count: "-1" is no number"#);
        assert!(error("{ebpf: {emitstats: true}, process: {emitstats: true}}").contains("exclude"));
    }

    #[test]
    fn times_are_read() {
        let time = |t| parse_duration(t).map(|d| d.as_millis());
        assert_eq!([time("500ms"), time("2s"), time("1m"), time("0")], [Some(500), Some(2000), Some(60_000), Some(0)]);
        for bad in ["", "5", "s", "-1s", "1h", "2 s", "99999999999999999999s", "999999999999999999m"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
