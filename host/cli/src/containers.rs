//! The flags about containers, turned into what the runtime crate understands: which are meant, and who is asked.

use crate::{
    args::{RuntimeArgs, SelectArgs},
    context::Context,
    error::{CliError, Kind},
    output::say,
};
use ig_runtime::containers::{
    Attribute, ContainersError, ContainersOptions, RuntimeName, RuntimeProtocol, Selector, SelectorError,
};
use std::path::{Path, PathBuf};

/// The containers that are meant.
pub fn selector(args: &SelectArgs) -> Result<Selector, CliError> {
    let wrong = |e: SelectorError| CliError::chain(Kind::User, &e, e.hint());
    let mut selector = Selector::parse(&args.containername).map_err(wrong)?;
    for (attribute, list) in [
        (Attribute::ImageDigest, &args.runtime_containerimage_digest),
        (Attribute::ImageId, &args.runtime_containerimage_id),
        (Attribute::PodNamespace, &args.k8s_namespace),
        (Attribute::PodName, &args.k8s_podname),
        (Attribute::PodContainerName, &args.k8s_containername),
    ] {
        if let Some(list) = list {
            selector = selector.and(attribute, list).map_err(wrong)?;
        }
    }
    match &args.k8s_selector {
        Some(list) => selector.and_labels(list).map_err(wrong),
        None => Ok(selector),
    }
}

/// How containers are found. A runtime that is asked for by name and is not there is said on stderr.
pub fn options(args: &RuntimeArgs, ctx: &Context) -> Result<ContainersOptions, CliError> {
    let config = &ctx.config;
    let names = if args.runtimes.is_empty() { &config.runtimes } else { &args.runtimes };
    let runtimes = runtimes(names)?;
    let mut options = ContainersOptions { host_root: ctx.host_root.clone(), ..ContainersOptions::default() };
    for (runtime, flag, given, configured) in [
        (RuntimeName::Docker, "docker", &args.docker_socketpath, &config.docker_socketpath),
        (RuntimeName::Containerd, "containerd", &args.containerd_socketpath, &config.containerd_socketpath),
        (RuntimeName::CriO, "crio", &args.crio_socketpath, &config.crio_socketpath),
        (RuntimeName::Podman, "podman", &args.podman_socketpath, &config.podman_socketpath),
    ] {
        let asked = runtimes.is_empty() || runtimes.contains(&runtime);
        if given.is_some() && !asked {
            return Err(CliError::user(format!("--{flag}-socketpath is given, but {runtime} is not asked"))
                .hint(format!("add {runtime} to --runtimes, or leave --runtimes out")));
        }
        if let Some(path) = given.as_ref().or(configured.as_ref().filter(|_| asked)) {
            options.sockets.insert(runtime, absolute(path)?);
        }
    }
    let namespaces =
        if args.containerd_namespace.is_empty() { &config.containerd_namespace } else { &args.containerd_namespace };
    if namespaces.iter().any(|n| n.trim().is_empty()) {
        return Err(CliError::user("empty name in --containerd-namespace")
            .hint("names are separated by commas: k8s.io,moby; leave the flag out for all"));
    }
    options.containerd_namespaces = namespaces.iter().map(|n| n.trim().to_owned()).collect();
    options.node_name = std::env::var("NODE_NAME").ok().filter(|n| !n.is_empty());
    options.protocol = protocol(args.runtime_protocol.as_ref().or(config.runtime_protocol.as_ref()))?;
    if !runtimes.is_empty() {
        options.runtimes = runtimes;
        options.absent().iter().filter(|(r, _)| !options.sockets.contains_key(r)).for_each(warn_of_absent);
    }
    Ok(options)
}

/// None: all.
fn runtimes(names: &[String]) -> Result<Vec<RuntimeName>, CliError> {
    let parse = |name: &String| {
        let e = match name.trim().parse::<RuntimeName>() {
            Ok(runtime) => return Ok(runtime),
            Err(e) => e,
        };
        Err(CliError::chain(Kind::User, &e, e.hint()))
    };
    names.iter().map(parse).collect()
}

/// A path on the observed host: where a process happens to be says nothing there.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(CliError::user(format!("socket {}: not an absolute path", path.display()))
        .hint("sockets are named from the root of the observed host, such as /run/docker.sock"))
}

fn protocol(name: Option<&String>) -> Result<RuntimeProtocol, CliError> {
    match name.map(String::as_str) {
        None | Some("internal") => Ok(RuntimeProtocol::Internal),
        Some("cri") => Ok(RuntimeProtocol::Cri),
        Some(other) => Err(CliError::user(format!("--runtime-protocol {other:?} is no protocol"))
            .hint("valid values are internal, cri")),
    }
}

fn warn_of_absent((runtime, places): &(RuntimeName, Vec<PathBuf>)) {
    let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    say(&format!("warning: {runtime} was asked for, but there is no socket at {}", places.join(" or ")));
}

/// What is wrong with finding containers, for the user.
pub fn error(e: &ContainersError) -> CliError {
    CliError::chain(Kind::Environment, e, e.hint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn context(config: Config) -> Context {
        let (store, home) = (Ok("/s".into()), None);
        let root = "/nonexistent".into();
        Context { config, verbose: false, store, host_root: root, home, auto_mount: false, is_root: false }
    }

    fn options_of(change: impl FnOnce(&mut RuntimeArgs)) -> Result<ContainersOptions, CliError> {
        let mut args = RuntimeArgs::default();
        change(&mut args);
        options(&args, &context(Config::default()))
    }

    #[test]
    fn every_condition_of_the_command_line_is_in_the_selector() {
        let some = |s: &str| Some(s.to_owned());
        let args = SelectArgs {
            containername: "web".into(),
            runtime_containerimage_digest: some("sha256:0123456789ab"),
            runtime_containerimage_id: some("!0123456789ab"),
            k8s_namespace: some("shop"),
            k8s_podname: some("!a,!b"),
            k8s_containername: some("nginx"),
            k8s_selector: some("app=web,!tier=back"),
        };
        let expected = Selector::parse("web")
            .and_then(|s| s.and(Attribute::ImageDigest, "0123456789ab"))
            .and_then(|s| s.and(Attribute::ImageId, "!0123456789ab"))
            .and_then(|s| s.and(Attribute::PodNamespace, "shop"))
            .and_then(|s| s.and(Attribute::PodName, "!a,!b"))
            .and_then(|s| s.and(Attribute::PodContainerName, "nginx"))
            .and_then(|s| s.and_labels("app=web,tier=!back"))
            .unwrap();
        assert_eq!(selector(&args).unwrap(), expected);
        assert!(selector(&SelectArgs::default()).unwrap().selects_all());
        let bad = SelectArgs { k8s_namespace: some(""), ..SelectArgs::default() };
        let e = selector(&bad).unwrap_err();
        assert_eq!((e.kind, e.message.as_str()), (Kind::User, "empty pod namespace in ``"));
        assert!(e.hint.is_some());
    }

    #[test]
    fn runtimes_and_sockets_are_read_and_senseless_ones_refused() {
        let all = options_of(|_| {}).unwrap();
        assert_eq!((all.runtimes.len(), all.sockets.len()), (RuntimeName::ALL.len(), 0));
        let some = options_of(|a| {
            a.runtimes = vec!["docker".into(), " podman ".into()];
            a.podman_socketpath = Some("/p.sock".into());
            a.containerd_namespace = vec!["k8s.io".into(), "moby".into()];
            a.runtime_protocol = Some("cri".into());
        })
        .unwrap();
        assert_eq!(some.runtimes, [RuntimeName::Docker, RuntimeName::Podman]);
        assert_eq!(some.sockets, [(RuntimeName::Podman, "/p.sock".into())].into());
        assert_eq!((some.containerd_namespaces.len(), some.protocol), (2, RuntimeProtocol::Cri));
        let e = options_of(|a| a.runtimes = vec!["dockr".into()]).unwrap_err();
        assert_eq!(e.message, "`dockr` is no container runtime");
        assert!(e.hint.unwrap().contains("cri-o"));
        for change in [
            (|a: &mut RuntimeArgs| a.runtimes = vec![String::new()]) as fn(&mut RuntimeArgs),
            |a| a.docker_socketpath = Some("run/docker.sock".into()),
            |a| a.runtime_protocol = Some("grpc".into()),
            |a| a.containerd_namespace = vec![String::new()],
            |a| {
                a.runtimes = vec!["docker".into()];
                a.podman_socketpath = Some("/p.sock".into());
            },
        ] {
            let e = options_of(change).unwrap_err();
            assert!(e.kind == Kind::User && e.hint.is_some(), "{e:?}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let config = Config {
            runtimes: vec!["podman".into()],
            podman_socketpath: Some("/file.sock".into()),
            docker_socketpath: Some("/docker.sock".into()),
            ..Config::default()
        };
        let ctx = context(config);
        let by_file = options(&RuntimeArgs::default(), &ctx).unwrap();
        assert_eq!(by_file.runtimes, [RuntimeName::Podman]);
        assert_eq!(by_file.sockets, [(RuntimeName::Podman, "/file.sock".into())].into());
        let args = RuntimeArgs { podman_socketpath: Some("/flag.sock".into()), ..RuntimeArgs::default() };
        assert_eq!(options(&args, &ctx).unwrap().sockets[&RuntimeName::Podman], PathBuf::from("/flag.sock"));
    }
}
