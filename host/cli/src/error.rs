//! What the user is told when something fails: a kind that becomes the exit code, a message that names the object and the
//! cause, and a hint with the next step. Every error of the runtime ends here; nothing else prints errors.

use rustix::io::Errno;
use std::process::ExitCode;

/// Kinds of failure. The numbers are the documented exit codes (`docs/reference/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A defect of ig, or an answer from the kernel that should not happen.
    Internal = 1,
    /// Wrong input: a flag, a name, a file, an image.
    User = 2,
    /// The machine cannot do it now: privileges, kernel, disk, network, runtime.
    Environment = 3,
    /// `--fail-on-loss`, and events were lost.
    Loss = 4,
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct CliError {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
    /// More for `-v`, such as the whole verifier log.
    pub detail: Option<String>,
}

impl CliError {
    pub fn user(message: impl Into<String>) -> Self {
        CliError { kind: Kind::User, message: message.into(), hint: None, detail: None }
    }

    pub fn environment(message: impl Into<String>) -> Self {
        CliError { kind: Kind::Environment, ..Self::user(message) }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        CliError { kind: Kind::Internal, ..Self::user(message) }
    }

    /// An error of the runtime with its causes, each named once.
    pub fn chain(kind: Kind, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(c) = cause {
            let text = c.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = c.source();
        }
        CliError { kind, message, hint, detail: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn detail(mut self, detail: Option<String>) -> Self {
        self.detail = detail;
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }

    /// The text for stderr, newline included.
    pub fn render(&self, verbose: bool) -> String {
        let mut text = format!("error: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        match &self.detail {
            Some(detail) if verbose => {
                text.push_str(detail);
                if !detail.ends_with('\n') {
                    text.push('\n');
                }
            }
            Some(_) => text.push_str("hint: run again with -v for all of it\n"),
            None => {}
        }
        text
    }
}

impl From<ig_runtime::instance::GadgetError> for CliError {
    fn from(e: ig_runtime::instance::GadgetError) -> Self {
        CliError::chain(Kind::User, &e, e.hint())
    }
}

/// Whether the image (or a flag) is wrong, or this machine cannot do what it asks for.
fn load_kind(e: &ig_runtime::bpf::LoadError) -> Kind {
    use ig_runtime::bpf::{LoadError as E, core_reloc::CoreError};
    match e {
        E::Prepare { .. }
        | E::Core { source: CoreError::Damaged(_), .. }
        | E::NoMap { .. }
        | E::NoProgram { .. }
        | E::AllOff { .. }
        | E::BadTarget { .. }
        | E::RingSize { .. }
        | E::InjectShape { .. } => Kind::User,
        // What is left depends on the kernel and on privileges.
        E::KernelBtf { .. }
        | E::Core { .. }
        | E::Inject { .. }
        | E::Map { .. }
        | E::Create { .. }
        | E::NotPermitted { .. }
        | E::NothingStarted { .. }
        | E::NoAlternative { .. }
        | E::Verifier { .. } => Kind::Environment,
    }
}

/// What to do where the system had too little of something, whatever it was wanted for.
fn lacking(e: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match e.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error) {
        Some(Errno::MFILE | Errno::NFILE) => Some("raise the limit on open files (ulimit -n)"),
        _ => e.source().and_then(lacking),
    }
}

impl From<ig_runtime::instance::RunError> for CliError {
    fn from(e: ig_runtime::instance::RunError) -> Self {
        use ig_runtime::instance::RunError as E;
        let (kind, hint) = match &e {
            E::Gadget(e) => (Kind::User, e.hint()),
            E::Param(e) => (Kind::User, e.hint()),
            E::Filter(e) => (Kind::User, e.hint()),
            E::Sort(e) => (Kind::User, e.hint()),
            E::Limit(e) => (Kind::User, e.hint()),
            E::Filesystem(e) => (Kind::Environment, e.hint()),
            E::Load(e) => (load_kind(e), e.hint()),
            E::Containers(e) => (Kind::Environment, e.hint()),
            E::Network(e) => (Kind::Environment, e.hint()),
            E::Sockets(e) => (Kind::Environment, e.hint()),
            E::Wasm(e) => (Kind::User, e.hint()),
            E::GuestFailed { .. } => (Kind::User, None),
            E::Record(e) => (Kind::User, e.hint()),
            E::RecordFile { .. } | E::Sink(_) | E::Thread { .. } | E::Uprobes(_) => (Kind::Environment, None),
            E::TagTaken { .. } => (Kind::User, None),
            E::HostSource { source, .. } => (Kind::Environment, source.hint()),
            E::Operator(_) | E::Wait(_) | E::Read { .. } => (Kind::Internal, None),
        };
        let (kind, hint) = match lacking(&e) {
            Some(remedy) => {
                (if kind == Kind::Internal { Kind::Environment } else { kind }, hint.or(Some(remedy.into())))
            }
            None => (kind, hint),
        };
        let detail = match &e {
            E::Load(e) => e.log().map(str::to_owned),
            _ => None,
        };
        CliError::chain(kind, &e, hint).detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_runtime::{
        bpf::{LoadError, prepare::PrepareError},
        instance::RunError,
    };

    #[test]
    fn a_system_that_lacks_descriptors_is_no_defect_of_ours() {
        let failed = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            CliError::from(RunError::Read { gadget: "g".into(), what: "the maps".into(), source })
        };
        let (e, other) = (failed(24), failed(22));
        assert_eq!((e.kind, e.hint.as_deref()), (Kind::Environment, Some("raise the limit on open files (ulimit -n)")));
        assert_eq!((other.kind, other.hint), (Kind::Internal, None));
    }

    #[test]
    fn a_wrong_image_is_told_from_a_kernel_that_refuses() {
        let image = || "i".to_owned();
        let missing = PrepareError::NoVariable { var: "v".into() };
        for (error, kind) in [
            (LoadError::Prepare { image: image(), source: missing }, Kind::User),
            (LoadError::NoProgram { image: image(), program: "p".into() }, Kind::User),
            (LoadError::NothingStarted { image: image(), reports: Vec::new() }, Kind::Environment),
            (
                LoadError::NotPermitted { image: image(), source: std::io::ErrorKind::PermissionDenied.into() },
                Kind::Environment,
            ),
        ] {
            assert_eq!(load_kind(&error), kind, "{error}");
        }
    }
}
