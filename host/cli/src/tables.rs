//! Flags of gadgets that show tables: when they are read, and whether they take each other's place on the screen.

use clap::{Arg, ArgMatches};
use ig_runtime::{host_sources::parse_duration, instance::TableTimes};
use std::time::Duration;

const INTERVAL: &str = "interval";
const COUNT: &str = "count";

/// The flags, with the gadget's own times in their help.
pub fn flags(times: &TableTimes, heading: &'static str) -> [Arg; 2] {
    let own = match (times.again, times.interval.as_millis()) {
        (false, _) => "one table, without this flag or --count".to_owned(),
        (true, 0) => "0".to_owned(),
        (true, ms) if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        (true, ms) => format!("{ms}ms"),
    };
    [
        Arg::new(INTERVAL)
            .long(INTERVAL)
            .visible_alias("map-fetch-interval")
            .alias("statistics-interval")
            .help(format!("Time between two tables, such as 500ms or 2s; 0 shows one at the end [default: {own}]"))
            .allow_hyphen_values(true)
            .value_name("TIME")
            .value_parser(|text: &str| parse_duration(text).ok_or("expected a time such as 500ms or 2s"))
            .help_heading(heading),
        Arg::new(COUNT)
            .long(COUNT)
            .visible_alias("map-fetch-count")
            .help(format!("Stop after this many tables; 0 never stops [default: {}]", times.count))
            .allow_hyphen_values(true)
            .value_name("N")
            .value_parser(clap::value_parser!(u64))
            .help_heading(heading),
    ]
}

/// The flags, whatever gadget they are for.
pub fn any_flags(heading: &'static str) -> [Arg; 2] {
    flags(&TableTimes::default(), heading)
}

/// What the user said of the times of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub interval: Option<Duration>,
    pub count: Option<u64>,
}

impl Given {
    /// `run`: the matches of the subcommand; a gadget without tables has no such flags.
    pub fn of(run: &ArgMatches) -> Given {
        Given {
            interval: run.try_get_one::<Duration>(INTERVAL).ok().flatten().copied(),
            count: run.try_get_one::<u64>(COUNT).ok().flatten().copied(),
        }
    }

    /// True where one table follows another, so that on a screen the newer takes the place of the older.
    pub fn repeats(&self, times: Option<&TableTimes>) -> bool {
        times.is_some_and(|times| {
            let asked = self.interval.is_some() || self.count.is_some();
            (times.again || asked)
                && !self.interval.unwrap_or(times.interval).is_zero()
                && self.count.unwrap_or(times.count) != 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn given(line: &str) -> Result<Given, clap::Error> {
        let command = Command::new("run").no_binary_name(true).args(flags(&TableTimes::default(), "Tables"));
        command.try_get_matches_from(line.split_whitespace()).map(|m| Given::of(&m))
    }

    #[test]
    fn both_names_of_the_flags_mean_the_same() {
        let wanted = Given { interval: Some(Duration::from_millis(500)), count: Some(3) };
        assert_eq!(given("--interval 500ms --count 3").unwrap(), wanted);
        assert_eq!(given("--map-fetch-interval 500ms --map-fetch-count 3").unwrap(), wanted);
        assert_eq!(given("").unwrap(), Given::default());
        for bad in ["--interval often", "--interval -1s", "--count many", "--count -1"] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_tables_that_follow_each_other_share_a_screen() {
        let again = TableTimes::default();
        let once = TableTimes { again: false, ..TableTimes::default() };
        let at_the_end = TableTimes { interval: Duration::ZERO, ..TableTimes::default() };
        let repeats = |line: &str, times: &TableTimes| given(line).unwrap().repeats(Some(times));
        assert!(repeats("", &again) && !repeats("", &once) && !repeats("", &at_the_end));
        assert!(
            repeats("--interval 1s", &once) && repeats("--count 2", &once) && repeats("--interval 1s", &at_the_end)
        );
        assert!(!repeats("--count 1", &again) && !repeats("--interval 0", &again));
        assert!(!Given::default().repeats(None));
    }
}
