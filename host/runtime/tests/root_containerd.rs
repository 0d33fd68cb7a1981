//! A real containerd on a real kernel, by its own API and by its CRI: names, namespaces, images, pods and their labels,
//! before and after the daemon is killed.
//!
//! Needs root, Debian's containerd, runc and busybox-static; fails where one of them is missing. Ground truth is what the
//! containers print themselves, and what `ctr` says.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/containerd.rs"]
mod containerd;
#[path = "support/process.rs"]
mod process;

use containerd::{Containerd, IMAGE, Kubelet, Pod};
use ig_runtime::containers::{
    Container, Containers, ContainersOptions, Resolution, RuntimeName, RuntimeProtocol, Selector, Verdict,
};
use process::{run, wait_for};
use std::sync::Arc;

/// What a container does: says where it is and when. /proc/uptime counts hundredths: the nap keeps it from telling a time
/// before the container's birth.
const SAY: [&str; 4] =
    ["/bin/busybox", "sh", "-c", "sleep 0.02; echo $(readlink /proc/self/ns/mnt) $(cat /proc/uptime)"];
const STAY: [&str; 3] = ["/bin/busybox", "sleep", "3600"];
const NODE: &str = "node-7";

/// What the row of that moment would be labelled with.
fn container(containers: &Containers, said: &str) -> Arc<Container> {
    let mut words = said.split_ascii_whitespace();
    let link = words.next().unwrap_or_default();
    let mntns = link.strip_prefix("mnt:[").and_then(|s| s.strip_suffix(']')?.parse().ok());
    let mntns = mntns.unwrap_or_else(|| panic!("a container said `{said}`"));
    let time = (words.next().unwrap().parse::<f64>().unwrap() * 1e9) as u64;
    wait_for("the container to be known", || match containers.resolve(mntns, time) {
        Resolution::Known(c) => Some(c),
        Resolution::Pending => None,
        other => panic!("`{said}` is {other:?}: {:?}", containers.status()),
    })
}

fn start(cd: &Containerd, protocol: RuntimeProtocol) -> Containers {
    let options = ContainersOptions {
        sockets: [(RuntimeName::Containerd, cd.socket())].into(),
        runtimes: vec![RuntimeName::Containerd],
        protocol,
        node_name: Some(NODE.to_owned()),
        ..ContainersOptions::default()
    };
    let containers = Containers::start(options).expect("the tracker loads: are you root?");
    assert_eq!(containers.notes(), Vec::<String>::new());
    containers
}

fn by_name(containers: &Containers, name: &str) -> Option<Arc<Container>> {
    containers.list().into_iter().find(|c| c.name.as_deref() == Some(name))
}

fn labels(c: &Container) -> Vec<String> {
    c.pod_labels().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect()
}

#[test]
fn root_containerd() {
    let mut cd = Containerd::start(&["red", "blue", "k8s.io"]);
    let mut kubelet = Kubelet::new(&cd.socket());
    // The same id in two namespaces; only containerd's API knows the names.
    cd.run("red", &["-d", "--label", "nerdctl/name=red-web"], "web", &STAY);
    cd.run("blue", &["-d", "--label", "nerdctl/name=blue-web"], "web", &STAY);
    let pod = kubelet.pod("frontend", &[("app", "shop"), ("tier", "web")]);
    let early = kubelet.container(&pod, "early", &STAY);

    let containers = start(&cd, RuntimeProtocol::Internal);
    running_before_the_start(&containers, &cd);
    a_pod_before_the_start(&containers, &cd, &pod, &early);
    short_ones(&containers, &cd);
    containers_of_pods(&containers, &mut kubelet, &pod);
    a_daemon_that_dies(&containers, &mut cd, &mut kubelet, &pod);
    by_cri(&cd, &mut kubelet, &pod, &early);
    let status = containers.status();
    assert_eq!((status.loss, status.malformed), (Default::default(), 0), "{status:?}");
}

fn running_before_the_start(containers: &Containers, cd: &Containerd) {
    for namespace in ["red", "blue"] {
        let name = format!("{namespace}-web");
        let c = wait_for("containerd's list", || by_name(containers, &name).filter(|c| c.image_id.is_some()));
        assert_eq!((&*c.id, c.runtime, c.namespace.as_deref()), ("web", RuntimeName::Containerd, Some(namespace)));
        assert_eq!(c.pid, cd.pid(namespace, "web"));
        assert_eq!(c.image_name.as_deref(), Some(IMAGE));
        assert_eq!(c.image_id.as_deref(), Some(&*cd.image_id));
        assert_eq!(c.image_digest.as_deref(), Some(&*cd.image_digest(namespace)));
        assert_eq!(c.pod, None);
    }
    wait_for("the client", || (containers.status().connected == [RuntimeName::Containerd]).then_some(()));
    for (label, shown) in [("nerdctl/name=renamed", "renamed"), ("nerdctl/name=red-web", "red-web")] {
        run(cd.ctr("red").args(["container", "label", "web", label]));
        wait_for("the new name", || by_name(containers, shown).filter(|c| c.namespace.as_deref() == Some("red")));
    }
    assert_eq!(containers.list().iter().filter(|c| &*c.id == "web").count(), 2, "{:?}", containers.list());
}

fn of_the_pod(c: &Container, pod: &Pod, name: &str) {
    let p = c.pod.as_deref().unwrap_or_else(|| panic!("no pod: {c:?}"));
    assert_eq!((&*p.namespace, &*p.name, &*p.uid), ("shop", "frontend", "uid-frontend"));
    assert_eq!((&*p.container_name, &*p.node), (name, NODE));
    assert_eq!(labels(c), ["app=shop", "tier=web"], "{c:?}");
    assert_eq!(c.sandbox.as_deref(), Some(&*pod.sandbox));
    assert!(c.complete && c.runtime == RuntimeName::Containerd, "{c:?}");
}

fn sandbox(containers: &Containers, pod: &Pod) -> Arc<Container> {
    let is_known = |c: &Container| *c.id == *pod.sandbox && c.is_sandbox() && c.complete && c.pod_labels().is_some();
    wait_for("the sandbox", || containers.list().into_iter().find(|c| is_known(c)))
}

fn a_pod_before_the_start(containers: &Containers, cd: &Containerd, pod: &Pod, id: &str) {
    let find = || containers.list().into_iter().find(|c| *c.id == *id && c.complete && c.image_id.is_some());
    let c = wait_for("the pod's container", find);
    of_the_pod(&c, pod, "early");
    assert_eq!((c.name.as_deref(), c.pid), (Some("early"), cd.pid("k8s.io", id)));
    assert!(c.host_network && !c.is_sandbox());
    assert_eq!(c.image_id.as_deref(), Some(&*cd.image_id));
    let sandbox = sandbox(containers, pod);
    of_the_pod(&sandbox, pod, "");
}

fn short_ones(containers: &Containers, cd: &Containerd) {
    let selector = Selector::parse("blue-3").unwrap();
    for n in 0..10 {
        for namespace in ["red", "blue"] {
            let (id, label) = (format!("short-{n}"), format!("nerdctl/name={namespace}-{n}"));
            let said = cd.said(namespace, &["--label", &label], &id, &SAY);
            let c = container(containers, &said);
            assert_eq!((&*c.id, c.name.as_deref()), (&*id, Some(&*format!("{namespace}-{n}"))), "{c:?}");
            assert_eq!(c.namespace.as_deref(), Some(namespace));
            assert_eq!((c.image_name.as_deref(), c.image_id.as_deref()), (Some(IMAGE), Some(&*cd.image_id)));
            assert!(c.pid != 0 && c.started_at > 0, "{c:?}");
            let wanted = if (namespace, n) == ("blue", 3) { Verdict::Yes } else { Verdict::No };
            assert_eq!(selector.verdict(&c), wanted);
        }
    }
}

fn containers_of_pods(containers: &Containers, kubelet: &mut Kubelet, pod: &Pod) {
    for n in 0..5 {
        let name = format!("step-{n}");
        let id = kubelet.container(pod, &name, &SAY);
        let c = container(containers, &kubelet.said(pod, &name));
        assert_eq!((&*c.id, c.name.as_deref()), (&*id, Some(&*name)));
        of_the_pod(&c, pod, &name);
    }
    // A pod that is made now: its labels are asked for while it is being made.
    let late = kubelet.pod("late", &[("app", "late")]);
    kubelet.container(&late, "only", &SAY);
    let c = container(containers, &kubelet.said(&late, "only"));
    assert_eq!((c.name.as_deref(), labels(&c)), (Some("only"), vec!["app=late".to_owned()]));
    assert_eq!(labels(&sandbox(containers, &late)), ["app=late"]);
}

fn a_daemon_that_dies(containers: &Containers, cd: &mut Containerd, kubelet: &mut Kubelet, pod: &Pod) {
    let before = containers.list();
    cd.kill();
    // Two clients, each of which learns of it by itself: the one for pods, and the one for all.
    wait_for("the loss", || {
        let status = containers.status();
        (!status.failed.is_empty() && status.connected.is_empty()).then_some(())
    });
    assert!(containers.notes().iter().any(|n| n.starts_with("containerd: ")), "{:?}", containers.notes());
    for name in ["red-web", "blue-web", "early"] {
        let kept = by_name(containers, name).unwrap_or_else(|| panic!("{name} was forgotten"));
        let known = before.iter().find(|c| c.name.as_deref() == Some(name)).unwrap();
        assert_eq!(kept, *known);
    }
    cd.again();
    wait_for("the client to be back", || (containers.status().connected == [RuntimeName::Containerd]).then_some(()));
    wait_for("all of it", || containers.status().failed.is_empty().then_some(()));
    assert_eq!(containers.notes(), ["containerd: its API was away once; what runs was listed again when it came back"]);
    of_the_pod(&by_name(containers, "early").unwrap(), pod, "early");
    assert_eq!(containers.list().iter().filter(|c| &*c.id == "web").count(), 2);
    let said = cd.said("red", &["--label", "nerdctl/name=again"], "again-id", &SAY);
    assert_eq!(container(containers, &said).name.as_deref(), Some("again"));
    kubelet.connect_again(&cd.socket());
    kubelet.container(pod, "after", &SAY);
    of_the_pod(&container(containers, &kubelet.said(pod, "after")), pod, "after");
}

/// The same daemon, asked by the CRI only.
fn by_cri(cd: &Containerd, kubelet: &mut Kubelet, pod: &Pod, early: &str) {
    let containers = start(cd, RuntimeProtocol::Cri);
    let find = || containers.list().into_iter().find(|c| *c.id == *early && c.complete && c.image_id.is_some());
    let c = wait_for("the pod's container", find);
    of_the_pod(&c, pod, "early");
    assert_eq!(c.image_id.as_deref(), Some(&*cd.image_id));
    let id = kubelet.container(pod, "by-cri", &SAY);
    let c = container(&containers, &kubelet.said(pod, "by-cri"));
    assert_eq!(&*c.id, &*id);
    of_the_pod(&c, pod, "by-cri");
    // What is no pod's is seen all the same, by its id.
    let said = cd.said("red", &[], "plain-id", &SAY);
    let c = container(&containers, &said);
    assert_eq!((c.name.as_deref(), c.namespace.as_deref()), (Some("plain-id"), Some("red")));
}
