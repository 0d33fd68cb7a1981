//! `--auto-sd-unit-restart`: runs this same command line in a transient unit of the host's systemd, with full privileges,
//! where the container that ig was started in lacks CAP_SYS_ADMIN.
//!
//! Speaks D-Bus to systemd directly: the unit inherits our standard streams, gets the signals that we get, and its exit
//! code becomes ours. On the main thread; nothing is left of the unit when this returns.

mod connection;
mod unit;
mod wire;

use crate::{context::Context, error::CliError};
use connection::{Connection, Heard};
use ig_runtime::{doctor::has_sys_admin, host_root};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::{
    ffi::OsString,
    io::{self, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use unit::{Outcome, Unit};

/// The flag, looked for before the command line is parsed: parsing `run` may open the gadget's image.
const FLAG: &str = "--auto-sd-unit-restart";
/// Set to 1 in the unit, so that it does not start another one.
const IN_UNIT: &str = "IG_IN_SYSTEMD_UNIT";
const PRIVATE_SOCKET: &str = "/run/systemd/private";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("the host's root is not known")]
    NoHostRoot,
    #[error("the host's systemd cannot be reached: neither {PRIVATE_SOCKET} nor {BUS_SOCKET} is below {}", root.display())]
    NoSocket { root: PathBuf },
    #[error("starting a unit of the host's systemd needs root")]
    NotRoot,
    #[error("this process cannot be found in {}", proc.display())]
    NoPid { proc: PathBuf },
    #[error("an argument is not UTF-8, and systemd takes nothing else")]
    Argument,
    #[error("systemd at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("systemd refused to authenticate us: {answer}")]
    Refused { answer: String },
    #[error("systemd refused {member}: {error}: {message}")]
    Call { member: &'static str, error: String, message: String },
    #[error("systemd did not answer {member} within {seconds} s")]
    Silent { member: &'static str, seconds: u64 },
    #[error("systemd ended the connection")]
    Gone,
    #[error("systemd sent what is no D-Bus message")]
    Garbage,
    #[error("unit {unit} did not run: systemd says `{result}`")]
    DidNotRun { unit: String, result: String },
    #[error("watching for signals")]
    Signals { source: io::Error },
}

impl SystemdError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SystemdError::NoHostRoot => Some("mount the host's root and say where: -v /:/host, HOST_ROOT=/host"),
            SystemdError::NoSocket { .. } => Some("does the host run systemd? else run this container privileged"),
            SystemdError::NotRoot => Some("run the container as root (runAsUser: 0)"),
            SystemdError::NoPid { .. } => Some("the host's proc must be mounted below HOST_ROOT: -v /:/host"),
            SystemdError::DidNotRun { .. } => Some("`journalctl -u UNIT` on the host may say more"),
            _ => None,
        }
    }
}

impl From<SystemdError> for CliError {
    fn from(e: SystemdError) -> Self {
        let kind = match e {
            SystemdError::Argument => crate::error::Kind::User,
            _ => crate::error::Kind::Environment,
        };
        CliError::chain(kind, &e, e.hint().map(str::to_owned))
    }
}

/// True where the flag is given, and this process is neither privileged nor in a unit already.
pub fn is_wanted(args: &[OsString]) -> bool {
    // What follows `--` is not ours.
    let asked = args.iter().take_while(|a| *a != "--").any(|a| a == FLAG);
    let in_unit = std::env::var_os(IN_UNIT).is_some_and(|v| v == "1");
    asked && !in_unit && !has_sys_admin()
}

/// True where the flag would help: the host's systemd can be reached from here.
pub fn would_help(host_root: &Path) -> bool {
    host_root != Path::new("/") && socket(host_root).is_some()
}

fn socket(root: &Path) -> Option<(PathBuf, bool)> {
    let at = |path: &str| host_root::join(root, Path::new(path));
    let private = (at(PRIVATE_SOCKET), false);
    [private, (at(BUS_SOCKET), true)].into_iter().find(|(path, _)| path.exists())
}

/// Runs the command line in a unit; gives the exit code it ended with.
pub fn run(args: &[OsString], ctx: &Context) -> Result<ExitCode, SystemdError> {
    let root = ctx.host_root.as_path();
    if root == Path::new("/") {
        return Err(SystemdError::NoHostRoot);
    }
    let (socket, on_bus) = socket(root).ok_or_else(|| SystemdError::NoSocket { root: root.to_owned() })?;
    if !ctx.is_root {
        return Err(SystemdError::NotRoot);
    }
    let unit = Unit { name: unit_name(), command: command(args, root)?, environment: environment() };
    let signals = Signals::new().map_err(|source| SystemdError::Signals { source })?;
    let connection = Connection::open(&socket, 0, on_bus)?;
    let outcome = drive(unit, connection, &signals)?;
    Ok(ExitCode::from(outcome.code()))
}

fn unit_name() -> String {
    // Two of one process would need two clocks that stand still.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("ig-{:x}-{:x}.service", std::process::id(), now.as_nanos() as u64)
}

/// This program, as the host reaches it, with the same arguments.
fn command(args: &[OsString], root: &Path) -> Result<Vec<String>, SystemdError> {
    let proc = host_root::join(root, Path::new("/proc"));
    // The number that the host knows us by, also where we have a pid namespace of our own.
    let pid = std::fs::read_link(proc.join("self")).map_err(|_e| SystemdError::NoPid { proc: proc.clone() })?;
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_else(|_e| "/usr/bin/ig".into());
    let own = own.strip_prefix("/").unwrap_or(&own);
    let program = Path::new("/proc").join(pid).join("root").join(own);
    let program = program.into_os_string();
    let all = [program].into_iter().chain(args.iter().skip(1).cloned());
    all.map(|a| a.into_string().map_err(|_not_text| SystemdError::Argument)).collect()
}

/// What the unit is to know of our environment: the terminal, and that it is one.
fn environment() -> Vec<String> {
    let mut all = vec![format!("{IN_UNIT}=1")];
    for key in ["TERM", "TZ", "NO_COLOR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        all.extend(std::env::var(key).ok().map(|v| format!("{key}={v}")));
    }
    all
}

/// Signals that a user sends to what they started, told through a pipe.
struct Signals {
    pipe: UnixStream,
    last: Arc<AtomicUsize>,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            signal_hook::flag::register_usize(signal, last.clone(), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Signals { pipe, last })
    }

    /// The last signal since the last call.
    fn take(&self) -> Option<i32> {
        let mut bytes = [0; 64];
        while (&self.pipe).read(&mut bytes).is_ok_and(|n| n == bytes.len()) {}
        i32::try_from(self.last.swap(0, Ordering::AcqRel)).ok().filter(|s| *s != 0)
    }
}

/// Starts the unit and stays until it has ended.
fn drive(unit: Unit, mut c: Connection, signals: &Signals) -> Result<Outcome, SystemdError> {
    let mut early = Vec::new();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    unit::accepted("Subscribe", c.ask(unit.subscribe(), &[], &mut early)?)?;
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let started = unit::accepted("StartTransientUnit", c.ask(unit.start(), &streams, &mut early)?)?;
    let job = unit::job(&started).ok_or(SystemdError::Garbage)?;
    let mut result = early.iter().find_map(|m| unit::removed(m, &job));
    while result.is_none() {
        match c.next(None, Some(signals.pipe.as_fd()))? {
            Heard::Message(m) => result = unit::removed(&m, &job),
            Heard::Other => {
                if let Some(signal) = signals.take() {
                    // Its answer is of no interest: the process may have just ended.
                    c.send(unit.kill(signal), &[])?;
                }
            }
            Heard::Nothing => {}
        }
    }
    let mut number = |name| -> Result<i32, SystemdError> {
        let answer = unit::accepted("Get", c.ask(unit.property(name), &[], &mut Vec::new())?)?;
        wire::Reader::new(&answer.body).variant_number().ok_or(SystemdError::Garbage)
    };
    let ended = (number("ExecMainCode")?, number("ExecMainStatus")?);
    // Whatever it was, nothing of it is to stay; there may be nothing left to stop or to reset.
    for tidy in [unit.stop(), unit.reset()] {
        c.ask(tidy, &[], &mut Vec::new())?;
    }
    unit.outcome(ended, &result.unwrap_or_default())
}

#[cfg(test)]
mod tests;
