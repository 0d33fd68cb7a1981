//! The command line. Flags that depend on the gadget are added once the image is known (`commands::run`).

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs eBPF gadgets shipped as OCI images, and knows every container.
#[derive(Debug, Parser)]
#[command(name = "ig", version, max_term_width = 120, propagate_version = false, arg_required_else_help = true)]
// A script may add to what another has begun: of a flag with one value that is given twice, the last counts.
#[command(args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file [default: ~/.ig/config.yaml, then /etc/ig/config.yaml, if they exist]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say more on stderr: hooks, buffers, the ledger, whole verifier logs
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// OCI store directory [default: /var/lib/ig/oci-store as root, else ~/.ig/oci-store]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Mount bpffs, tracefs and debugfs where they are missing [default: on where HOST_ROOT is not /]
    #[arg(long, global = true)]
    pub auto_mount_filesystems: bool,
    /// In a container without CAP_SYS_ADMIN: run this command in a unit of the host's systemd (needs HOST_ROOT)
    #[arg(long, global = true)]
    pub auto_sd_unit_restart: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a gadget, or several at once, until Ctrl-C or --timeout
    Run(RunArgs),
    /// Show a recording made with `ig run --record`, through the same pipeline and without root
    Replay(ReplayArgs),
    /// Build, list, inspect, tag, remove, export, import, pull and push gadget images
    Image(crate::commands::image::ImageArgs),
    /// List the containers that run, or with --watch those that start and end
    ListContainers(crate::commands::list_containers::ListContainersArgs),
    /// List the gadgets that can be run right now, and where each comes from
    ListGadgets(crate::commands::list_gadgets::ListGadgetsArgs),
    /// Show what this host can do, and what to do about what it cannot
    Doctor(crate::commands::doctor::DoctorArgs),
    /// Print the version
    #[command(
        after_help = "Licence: Apache-2.0. Flame graphs are drawn by the library inferno, which is under CDDL-1.0; its source: \
                            https://crates.io/crates/inferno"
    )]
    Version,
    /// Print a completion script for a shell
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// How rows are chosen and shown: the same for a live run and a replay.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output mode: columns, columns=FIELD,…, json, jsonpretty, yaml, none; advise (only documents); folded and flamegraph
    /// (SVG) of gadgets with stacks [default: columns]
    #[arg(short, long, value_name = "MODE")]
    pub output: Option<String>,
    /// Fields to show: `a,b` only these, `+a,-b` besides and without
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub fields: String,
    /// Keep rows that match, e.g. 'proc.comm==cat,error!='; operators == != >= > <= < ~ !~ (regular expression)
    #[arg(short = 'F', long, value_name = "EXPR", allow_hyphen_values = true)]
    pub filter: Option<String>,
    /// Sort snapshots by fields; `-field` for descending
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Show at most N rows of each snapshot; -1 for all
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_most)]
    pub max_entries: Option<u64>,
    /// Print the account of events at the end, also when nothing was lost (JSON on stderr with a JSON output)
    #[arg(long)]
    pub ledger: bool,
    /// Exit with code 4 if an event was lost
    #[arg(long)]
    pub fail_on_loss: bool,
}

/// Where an image may come from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Image")]
pub struct PullArgs {
    /// When to ask the registry: always, missing, never
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub pull: String,
    /// Registries to speak to in plain HTTP, `host[:port]`, comma-separated
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub insecure_registries: Vec<String>,
    /// Registry credentials, in Docker's config.json format
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "A gadget's own parameters are flags too, after its name: see `ig run GADGET --help`.")]
pub struct RunArgs {
    /// Gadget: a name, an image reference, a digest, an image tar, or a gadget's folder; several run side by side
    #[arg(value_name = "GADGET", required = true)]
    pub images: Vec<String>,
    #[command(flatten)]
    pub out: OutputArgs,
    #[command(flatten)]
    pub pull: PullArgs,
    #[command(flatten)]
    pub containers: ContainerArgs,
    /// Stop after this many seconds; 0 never stops
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    pub timeout: u64,
    /// Kernel event buffer: bytes, or with KiB, MiB, GiB; rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_size, help_heading = "Run")]
    pub buffer_size: u32,
    /// Write the raw records to FILE as well, for `ig replay`
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub record: Option<PathBuf>,
    /// Stop the gadget when its Wasm fails, instead of showing rows undecoded
    #[arg(long, help_heading = "Run")]
    pub fail_on_trap: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Containers")]
pub struct ContainerArgs {
    /// Show events of the host too
    #[arg(long)]
    pub host: bool,
    /// Show what container runtimes do inside a container before its first program runs
    #[arg(long)]
    pub include_setup: bool,
    #[command(flatten)]
    pub select: SelectArgs,
    #[command(flatten)]
    pub runtimes: RuntimeArgs,
}

/// Which containers are meant. All that is given must hold; all of it may be given before they start.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Containers")]
pub struct SelectArgs {
    /// Only these containers: names, comma-separated; `!name` leaves one out. May be given before they start
    #[arg(
        short,
        long,
        visible_alias = "runtime-containername",
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    pub containername: String,
    /// Only containers of these images, by the first 12 digits or more of the digest; `!digest` leaves one out
    #[arg(long, alias = "containerimage-digest", value_name = "LIST")]
    pub runtime_containerimage_digest: Option<String>,
    /// Only containers of these images, by the first 12 digits or more of the id; `!id` leaves one out
    #[arg(long, alias = "containerimage-id", value_name = "LIST")]
    pub runtime_containerimage_id: Option<String>,
    /// Only containers of pods in these namespaces; `!name` leaves one out
    #[arg(long, value_name = "LIST")]
    pub k8s_namespace: Option<String>,
    /// Only containers of these pods; `!name` leaves one out
    #[arg(long, value_name = "LIST")]
    pub k8s_podname: Option<String>,
    /// Only containers with these names in their pods; `!name` leaves one out
    #[arg(long, value_name = "LIST")]
    pub k8s_containername: Option<String>,
    /// Only containers of pods with these labels: `k=v,k2=v2`; `!k=v` or `k=!v` leaves out
    #[arg(long, value_name = "LIST")]
    pub k8s_selector: Option<String>,
}

/// Which container runtimes are asked, and where.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Container runtimes")]
pub struct RuntimeArgs {
    /// Runtimes whose API is asked, comma-separated: docker, containerd, cri-o, podman [default: those that are there]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub runtimes: Vec<String>,
    /// Docker's socket [default: /run/docker.sock, if it exists]
    #[arg(long, value_name = "PATH")]
    pub docker_socketpath: Option<PathBuf>,
    /// containerd's socket [default: /run/containerd/containerd.sock, if it exists]
    #[arg(long, value_name = "PATH")]
    pub containerd_socketpath: Option<PathBuf>,
    /// CRI-O's socket [default: /run/crio/crio.sock, if it exists]
    #[arg(long, value_name = "PATH")]
    pub crio_socketpath: Option<PathBuf>,
    /// Podman's socket, root's or a user's [default: /run/podman/podman.sock and every user's, if they exist]
    #[arg(long, value_name = "PATH")]
    pub podman_socketpath: Option<PathBuf>,
    /// containerd's namespaces, comma-separated [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub containerd_namespace: Vec<String>,
    /// How containerd is asked: internal (its own API), cri (knows the labels of pods, and nothing outside Kubernetes)
    /// [default: internal]
    #[arg(long, value_name = "PROTOCOL")]
    pub runtime_protocol: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording; `-` for standard input
    pub file: PathBuf,
    #[command(flatten)]
    pub out: OutputArgs,
}

/// What `--max-entries -1` is: as if it had not been given, on streams too.
pub(crate) const NO_LIMIT: u64 = u64::MAX;

pub(crate) fn parse_most(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(NO_LIMIT),
        _ => text.parse().map_err(|_e: std::num::ParseIntError| "expected a number of rows, or -1 for all".to_owned()),
    }
}

/// `4096`, `64KiB`, `4MiB`, `1GiB` (also `k`, `M`, `G`) to a power of two between one page and 1 GiB.
fn parse_size(text: &str) -> Result<u32, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_e: std::num::ParseIntError| "expected a number of bytes such as 4194304 or 4MiB".to_owned())?;
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("unknown unit {unit:?}; use KiB, MiB or GiB")),
    };
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|b| (1..=1 << 30).contains(b))
        .ok_or("must be between 1 byte and 1 GiB")?;
    // A ring buffer is a power of two of whole pages.
    Ok((bytes as u32).next_power_of_two().max(4096))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_counts() {
        let line = "ig run x -t 4 -o json --timeout 6 --host --host -r docker --store /a -r podman --store /b -o yaml";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(run) = cli.command else { panic!("another command") };
        assert_eq!((run.timeout, run.out.output.as_deref(), run.containers.host), (6, Some("yaml"), true));
        assert_eq!(run.containers.runtimes.runtimes, ["docker", "podman"], "a list grows");
        assert_eq!(cli.global.store, Some("/b".into()));
    }

    #[test]
    fn minus_one_is_no_limit_and_no_other_negative_number_is_taken_for_a_flag() {
        let parsed = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|e| e.to_string());
        let most = |line: &str| match parsed(line).unwrap().command {
            Command::Run(run) => run.out.max_entries,
            _ => None,
        };
        assert_eq!(most("ig run x --max-entries -1"), Some(NO_LIMIT));
        assert_eq!((most("ig run x --max-entries 0"), most("ig run x")), (Some(0), None));
        for bad in ["--max-entries -2", "--max-entries many", "--timeout -1"] {
            let e = parsed(&format!("ig run x {bad}")).unwrap_err();
            assert!(e.starts_with("error: invalid value"), "{e}");
        }
    }

    #[test]
    fn sizes_are_read_and_bad_ones_refused() {
        assert_eq!(parse_size("4MiB"), Ok(4 << 20));
        assert_eq!(parse_size("5000"), Ok(8192));
        assert_eq!(parse_size("1"), Ok(4096));
        assert_eq!(parse_size("64k"), Ok(64 << 10));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        for bad in ["", "MiB", "4XiB", "0", "2GiB", "99999999999999999999", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
