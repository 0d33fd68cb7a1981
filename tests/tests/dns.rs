//! Many containers, each of which resolves a name of its own: every query and every response is seen, under its container.
//!
//! Some run before the gadget does, some start while it runs and wait, and some resolve as the first thing they do, which
//! shows that a network is looked into before its container's first program runs. And a router, with servers of its own, that
//! sees packets of others.

use ig_tests::{
    alone, full_scale,
    ig::{Ig, at},
    load,
    plain::Bundle,
    source_root, wait_for,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Containers that start at the same time.
const AT_ONCE: usize = 8;
const LIMIT: Duration = Duration::from_secs(300);

fn containers() -> usize {
    if full_scale() { 512 } else { 32 }
}

/// One root file system for all containers, and a bundle of its own for each.
struct Crowd {
    base: Bundle,
    config: Value,
}

impl Crowd {
    fn new() -> Crowd {
        let base = Bundle::new();
        let program = base.path().join("rootfs/workload");
        let source = source_root().join("gadgets/trace_dns/workload.c");
        load::compile(&source, &program);
        for dir in ["go", "rootfs/go"] {
            std::fs::create_dir(base.path().join(dir)).expect("a writable directory");
        }
        let text = std::fs::read(base.path().join("config.json")).expect("a bundle's config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        config["root"] = json!({"path": base.path().join("rootfs"), "readonly": true});
        let go =
            json!({"destination": "/go", "type": "bind", "source": base.path().join("go"), "options": ["bind", "ro"]});
        config["mounts"].as_array_mut().expect("a list of mounts").push(go);
        Crowd { base, config }
    }

    /// Starts container `n`, which resolves its name at once, or when `go` is called.
    fn start(&self, n: usize, waits: bool) -> Child {
        let dir = self.base.path().join(format!("bundle-{n}"));
        std::fs::create_dir(&dir).expect("a writable directory");
        let resolve = format!("/workload udp {} 1 0 {}", name(n), address(n));
        let mut config = self.config.clone();
        config["process"]["args"] = match waits {
            true => json!(["/bin/sh", "-c", format!("until [ -e /go/now ]; do sleep 0.2; done; exec {resolve}")]),
            false => json!(resolve.split(' ').collect::<Vec<_>>()),
        };
        std::fs::write(dir.join("config.json"), config.to_string()).expect("a writable directory");
        let mut runc = self.base.runc(&["run", "--bundle"]);
        runc.arg(&dir).arg(container(n)).stdin(Stdio::null()).stdout(Stdio::null());
        runc.spawn().expect("runc")
    }

    fn go(&self) {
        std::fs::write(self.base.path().join("go/now"), "").expect("a writable directory");
    }

    /// Waits until these containers run.
    fn wait_running(&self, numbers: impl Iterator<Item = usize>) {
        for n in numbers {
            wait_for("a container to run", LIMIT, || {
                let out = self.base.runc(&["state", &container(n)]).output().expect("runc");
                String::from_utf8_lossy(&out.stdout).contains("\"running\"").then_some(())
            });
        }
    }
}

fn name(n: usize) -> String {
    format!("name-{n}.test")
}

fn container(n: usize) -> String {
    format!("resolves-{}-{n}", std::process::id())
}

fn address(n: usize) -> String {
    format!("10.9.{}.{}", n / 256, n % 256)
}

fn finish(children: &mut Vec<Child>, leave: usize) {
    while children.len() > leave {
        let status = children.remove(0).wait().expect("runc");
        assert!(status.success(), "a container that resolves a name: {status}");
    }
}

/// Rows by name and direction, as (container, addresses).
fn by_name(rows: &[Value], kind: &str, direction: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows.iter().filter(|r| at(r, "qr") == kind && at(r, "pkt_type") == direction) {
        let text = |field| at(row, field).as_str().unwrap_or_default().to_owned();
        all.entry(text("name")).or_default().push((text("runtime.containerName"), text("addresses")));
    }
    all
}

/// A container that routes between two networks of its own making; `forwarded.c` says how.
fn router() -> Bundle {
    let bundle = Bundle::with(&["/router"], |config| {
        let capabilities = config["process"]["capabilities"].as_object_mut().expect("capabilities");
        for set in capabilities.values_mut().filter_map(Value::as_array_mut) {
            set.extend(["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"].map(Value::from));
        }
        // It switches forwarding on.
        config["linux"]["readonlyPaths"] = json!([]);
    });
    let source = source_root().join("tests/tests/forwarded.c");
    load::compile(&source, &bundle.path().join("rootfs/router"));
    bundle
}

/// Every row, as name, kind, direction and process.
fn owners(rows: &[Value]) -> Vec<String> {
    let text = |row, field| at(row, field).as_str().unwrap_or_default().to_owned();
    let row = |r| ["name", "qr", "pkt_type", "proc.comm"].map(|field| text(r, field)).join(" ");
    rows.iter().map(row).collect()
}

mod root {
    use super::*;

    #[test]
    fn every_query_is_seen_under_its_container() {
        let _alone = alone();
        assert!(Path::new("/usr/sbin/runc").exists(), "runc (Debian package runc)");
        let (all, crowd) = (containers(), Crowd::new());
        let (before, waiting) = (all / 4, all / 2);
        let mut waiters: Vec<Child> = (0..before).map(|n| crowd.start(n, true)).collect();
        crowd.wait_running(0..before);
        let mut ig = Ig::new(&["run", "trace_dns", "-o", "json", "--ledger"]).start_ready();
        waiters.extend((before..waiting).map(|n| crowd.start(n, true)));
        crowd.wait_running(before..waiting);
        crowd.go();
        let mut children = Vec::new();
        for n in waiting..all {
            children.push(crowd.start(n, false));
            finish(&mut children, AT_ONCE - 1);
        }
        finish(&mut children, 0);
        finish(&mut waiters, 0);
        let stopped = Instant::now();
        ig.signal("INT");
        let done = ig.wait_at_most(LIMIT).expect_success();
        println!("{all} containers; the end took {:?}", stopped.elapsed());
        let ledger = done.ledger();
        ledger.check();
        assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
        let rows = done.rows();
        for (kind, direction) in [("Q", "OUTGOING"), ("Q", "HOST"), ("R", "OUTGOING"), ("R", "HOST")] {
            let seen = by_name(&rows, kind, direction);
            for n in 0..all {
                let addresses = if kind == "R" { address(n) } else { String::new() };
                let wanted = vec![(container(n), addresses)];
                let found = seen.get(&format!("{}.", name(n)));
                assert_eq!(found, Some(&wanted), "{kind} {direction} of container {n} of {all}\n{}", done.stderr);
            }
        }
        let answered = rows.iter().filter(|r| at(r, "qr") == "R" && at(r, "pkt_type") == "HOST");
        assert!(answered.clone().all(|r| at(r, "latency_ns_raw").as_u64() > Some(10_000_000)), "all took 40 ms");
        let own = rows.iter().filter(|r| at(r, "proc.comm") == "workload").count();
        assert_eq!(own, rows.len(), "every packet has its program");
    }

    #[test]
    fn the_two_rows_of_a_packet_on_loopback_differ_on_a_terminal_too() {
        use std::net::{Ipv4Addr, UdpSocket};
        let _alone = alone();
        let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let (server, client) = (socket(), socket());
        client.connect(server.local_addr().expect("an address")).expect("a connected socket");
        let port = server.local_addr().expect("an address").port().to_string();
        let pid = std::process::id().to_string();
        let ig = Ig::new(&["run", "trace_dns", "--host", "--port", &port, "--pid", &pid]).start_ready();
        // A query for "a.", its answer, and what breaks off in the middle of a name.
        let (query, cut) =
            (b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01", b"\0\x08\x01\0\0\x01\0\0\0\0\0\0\x09a");
        let mut answer = *query;
        answer[2] = 0x81;
        // Each has arrived before the next leaves, and before the end.
        let mut got = [0; 512];
        client.send(query).expect("a query");
        server.recv(&mut got).expect("a query");
        server.send_to(&answer, client.local_addr().expect("an address")).expect("an answer");
        client.recv(&mut got).expect("an answer");
        client.send(cut).expect("a query");
        server.recv(&mut got).expect("a query");
        let shown = ig.stop().expect_success().stdout();
        let lines: Vec<Vec<&str>> = shown.lines().map(|l| l.split_whitespace().collect()).collect();
        assert!(lines[0].ends_with(&[
            "PKT_TYPE",
            "LATENCY_NS",
            "QR",
            "QTYPE",
            "NAME",
            "RCODE",
            "ADDRESSES",
            "MALFORMED"
        ]));
        // From behind the two ends on.
        let rest: Vec<String> = lines[1..].iter().map(|l| l[4..].join(" ")).collect();
        let too_early = |way: &str| format!("{way} Q message ends too early");
        assert_eq!(rest[..3], ["OUTGOING Q A a.", "HOST Q A a.", "OUTGOING R A a. Success"], "{shown}");
        assert!(rest[3].starts_with("HOST ") && rest[3].ends_with("s R A a. Success"), "{shown}");
        assert_eq!(rest[4..], [too_early("OUTGOING"), too_early("HOST")], "{shown}");
    }

    #[test]
    fn packets_of_others_that_a_router_sees_have_no_process() {
        let _alone = alone();
        let router = router();
        let name = format!("routes-{}", std::process::id());
        let ig = Ig::new(&["run", "trace_dns", "-o", "json", "--ledger", "-c", &name]).start_ready();
        let ran = router.runc(&["run", &name]).output().expect("runc");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let done = ig.stop().expect_success();
        assert_eq!(done.ledger().lost_total(), 0);
        // The router's server, by each of its addresses, sends back what it gets; what it passes on has its port, too.
        let served = |name: &str| [format!("{name}. Q HOST router"), format!("{name}. R OUTGOING router")];
        let passed = |name: &str| [format!("{name}. Q HOST "), format!("{name}. Q OUTGOING ")];
        let mut expected = Vec::new();
        for name in ["near", "far", "near-six", "far-six", "near-both"] {
            expected.extend(served(name));
        }
        for name in ["through", "through-six", "through-both"] {
            expected.extend(passed(name));
        }
        expected
            .extend(["all. Q BROADCAST router", "all. R OUTGOING router", "injected. Q OUTGOING "].map(str::to_owned));
        let mut seen = owners(&done.rows());
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected);
    }
}
