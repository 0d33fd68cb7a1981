//! `ig doctor`: what this host can do, on one screen; each line that is not well with what to do about it.
//!
//! The report is data of the runtime; what it looks like is decided here, by a pure function.

use super::image::{escaped, json};
use crate::{
    commands::print,
    context::Context,
    error::{CliError, Kind},
};
use ig_runtime::{
    containers::ContainersOptions,
    doctor::{Check, DoctorOptions, Report, Status, examine},
    image::Bundle,
};
use std::{path::Path, process::ExitCode};

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Output mode: columns, json, jsonpretty
    #[arg(short, long, value_name = "MODE", default_value = "columns")]
    output: String,
}

pub fn run(args: &DoctorArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let render: fn(&Report) -> Result<String, CliError> = match args.output.as_str() {
        "columns" => |r| Ok(screen(r)),
        "json" => |r| json(r, false),
        "jsonpretty" => |r| json(r, true),
        other => {
            return Err(CliError::user(format!("-o {other:?} is no output mode of doctor"))
                .hint("valid values are columns, json, jsonpretty"));
        }
    };
    let catalogue = Bundle::from_executable(Path::new("/proc/self/exe"))?.map_or(0, |b| b.entries().count());
    let report = examine(&DoctorOptions {
        containers: ContainersOptions { host_root: ctx.host_root.clone(), ..ContainersOptions::default() },
        store: ctx.store.clone(),
        auto_mount: ctx.auto_mount,
        catalogue,
    });
    let written = print(render(&report)?.as_bytes())?;
    Ok(if report.ready { written } else { ExitCode::from(Kind::Environment as u8) })
}

fn mark(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "FAIL",
        Status::Unknown => "?",
    }
}

/// The report for people. Words, not colours, tell how a check ended.
fn screen(report: &Report) -> String {
    let checks = || report.groups.iter().flat_map(|g| &g.checks);
    let width = checks().map(|c| escaped(&c.name).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for group in &report.groups {
        text.push_str(group.name);
        text.push('\n');
        group.checks.iter().for_each(|c| line(c, width, &mut text));
    }
    let count = |status| checks().filter(|c| c.status == status).count();
    let (warnings, unknown) = (count(Status::Warn), count(Status::Unknown));
    text.push('\n');
    text.push_str(match report.ready {
        true => "Gadgets can run on this host",
        false => "Gadgets cannot run on this host; missing: ",
    });
    text.push_str(&report.missing.iter().map(|m| escaped(m)).collect::<Vec<_>>().join(", "));
    text.push_str(&format!(". {warnings} warnings, {unknown} not checked"));
    text.push_str(if unknown > 0 {
        ": run it as root, or with the capabilities above, to check them.\n"
    } else {
        ".\n"
    });
    text
}

fn line(check: &Check, width: usize, text: &mut String) {
    let (name, finding) = (escaped(&check.name), escaped(&check.finding));
    text.push_str(&format!("  {:<4}  {name:<width$}  {finding}\n", mark(check.status)));
    if let Some(remedy) = &check.remedy {
        text.push_str(&format!("  {:<4}  {:<width$}  -> {}\n", "", "", escaped(remedy)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_runtime::doctor::Group;

    fn check(name: &str, status: Status, finding: &str, remedy: Option<&str>) -> Check {
        Check { name: name.into(), status, finding: finding.into(), remedy: remedy.map(Into::into) }
    }

    fn report(root: Status) -> Report {
        Report::new(vec![
            Group {
                name: "kernel",
                checks: vec![
                    check("release", Status::Ok, "6.1.0-40-amd64 x86_64", None),
                    check("kprobe", Status::Warn, "this kernel has no kprobes", Some("boot another")),
                ],
            },
            Group {
                name: "privileges",
                checks: vec![
                    check("user", root, "user id 1000", (root == Status::Fail).then_some("sudo ig ...")),
                    check("tracker", Status::Unknown, "not permitted to try", None),
                ],
            },
        ])
    }

    #[test]
    fn a_host_that_is_well() {
        insta::assert_snapshot!(screen(&report(Status::Ok)));
    }

    #[test]
    fn a_host_that_lacks_something_essential() {
        insta::assert_snapshot!(screen(&report(Status::Fail)));
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(json(&report(Status::Fail), true).unwrap());
    }

    #[test]
    fn what_a_daemon_says_cannot_steer_the_terminal() {
        let checks = vec![check("docker", Status::Warn, "said \x1b[2J\nFAIL", None)];
        let text = screen(&Report::new(vec![Group { name: "g", checks }]));
        assert!(!text.contains('\x1b') && text.lines().count() == 4, "{text}");
    }
}
