//! What gadgets remember for a while has bounds. Where a bound costs a fact, the account says so, or a row that is marked.
//!
//! The load is made by the test itself, on the loopback interface of the host, and the gadget filters on its process.

use ig_tests::{
    alone,
    ig::{Finished, Ig, at},
    load,
    plain::Bundle,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

/// The gadget, on this process only.
fn tracing(gadget: &str, flags: &[&str]) -> Ig {
    let ig = Ig::new(&["run", gadget, "--host", "-o", "json", "--ledger", "--pid", &std::process::id().to_string()]);
    // Room for all rows: it is not the ring that is to be full.
    let ig = ig.args(&["--buffer-size", "67108864"]);
    ig.args(flags)
}

/// Panics unless the account balances and what was lost is of this number, all of it because a map was full.
fn check_map_full(done: &Finished, lost: u64) {
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), ledger.lost.get("map_full").copied().unwrap_or(0), "{ledger:?}");
    assert_eq!(ledger.lost_total(), lost, "{ledger:?}\n{}", done.stderr);
}

/// A query for `a.`, or the answer to it, with this number.
fn message(id: u16, flags: u16) -> Vec<u8> {
    let words = [id, flags, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    [&words[..], &[1, b'a', 0, 0, 1, 0, 1]].concat()
}

/// The beginning and the rest of a TLS ClientHello that asks for `a.test`.
fn hello() -> (Vec<u8>, Vec<u8>) {
    let name = [&[0, 0, 0, 11, 0, 9, 0, 0, 6][..], b"a.test"].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, name.len() as u8], &name].concat();
    let shake = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let mut all = [&[22, 3, 1, 0, shake.len() as u8][..], &shake].concat();
    let rest = all.split_off(20);
    (all, rest)
}

/// A TCP segment to this port of the loopback interface, with its IP header; nothing of it but what a reader of packets needs.
fn segment(port: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    const ACK: u8 = 0x10;
    let here = Ipv4Addr::LOCALHOST.octets();
    let total = (40 + payload.len() as u16).to_be_bytes();
    let ip = [&[0x45, 0][..], &total, &[0, 0, 0, 0, 64, 6, 0, 0], &here, &here].concat();
    let tcp = [&[0, 9][..], &port.to_be_bytes(), &seq.to_be_bytes(), &[0; 4], &[0x50, ACK, 0, 9, 0, 0, 0, 0]].concat();
    [&ip[..], &tcp, payload].concat()
}

/// Sends a datagram to each of so many ports.
const SENDER: &str = "#include <arpa/inet.h>
int main(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    for (int i = 0; i < PORTS; i++) {
        struct sockaddr_in to = { AF_INET, htons(20000 + i), { inet_addr(\"10.7.0.2\") } };
        if (sendto(fd, \"x\", 1, 0, (void *)&to, sizeof(to)) != 1) return 1;
    }
    return 0;
}
";

mod root {
    use super::*;

    #[test]
    fn queries_that_wait_for_too_many_others_lose_their_latency_and_are_counted() {
        const QUERIES: u16 = 9000;
        const KEPT: u64 = 8192;
        let _alone = alone();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        client.connect(server.local_addr().unwrap()).unwrap();
        let ig = tracing("trace_dns", &["--port", &port, "--fields", "id,qr,pkt_type,latency_ns_raw"]).start_ready();
        let mut got = [0; 512];
        for id in 0..QUERIES {
            client.send(&message(id, 0x0100)).unwrap();
            server.recv(&mut got).unwrap();
        }
        for id in 0..QUERIES {
            server.send_to(&message(id, 0x8180), client.local_addr().unwrap()).unwrap();
            client.recv(&mut got).unwrap();
        }
        let done = ig.stop().expect_success();
        let lost = u64::from(QUERIES) - KEPT;
        check_map_full(&done, lost);
        let rows = done.rows();
        let answers: Vec<_> = rows.iter().filter(|r| at(r, "qr") == "R" && at(r, "pkt_type") == "HOST").collect();
        let without = answers.iter().filter(|r| at(r, "latency_ns_raw") == 0).count();
        assert_eq!((answers.len(), without as u64), (QUERIES.into(), lost));
    }

    #[test]
    fn answered_queries_make_room_without_a_word() {
        let _alone = alone();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        client.connect(server.local_addr().unwrap()).unwrap();
        let flags = ["--port", &port, "--fields", "id,qr,pkt_type,latency_ns_raw", "--fail-on-loss"];
        let ig = tracing("trace_dns", &flags).start_ready();
        let mut got = [0; 512];
        // One that is never answered, and far more than the table holds that are.
        client.send(&message(u16::MAX, 0x0100)).unwrap();
        server.recv(&mut got).unwrap();
        for id in 0..20_000 {
            client.send(&message(id, 0x0100)).unwrap();
            server.recv(&mut got).unwrap();
            server.send_to(&message(id, 0x8180), client.local_addr().unwrap()).unwrap();
            client.recv(&mut got).unwrap();
        }
        let done = ig.stop().expect_success();
        check_map_full(&done, 0);
        let rows = done.rows();
        let mut answers = rows.iter().filter(|r| at(r, "qr") == "R" && at(r, "pkt_type") == "HOST");
        assert!(answers.all(|r| at(r, "latency_ns_raw").as_u64() > Some(0)));
    }

    #[test]
    fn a_stream_from_before_shows_messages_only_from_where_one_begins() {
        let _alone = alone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut send = |bytes: &[u8]| {
            client.write_all(bytes).unwrap();
            server.read_exact(&mut vec![0; bytes.len()]).unwrap();
        };
        // A message of 30,000 bytes whose beginning nobody saw; its letters are no plausible one.
        send(&[&30_000_u16.to_be_bytes()[..], &message(1, 0x0100)].concat());
        let ig = tracing("trace_dns", &["--port", &port, "--fields", "id,pkt_type,len,malformed"]).start_ready();
        for letter in b'A'..=b'H' {
            send(&[letter; 3000]);
        }
        let whole = |id| {
            let m = message(id, 0x0100);
            [&(m.len() as u16).to_be_bytes()[..], &m].concat()
        };
        send(&whole(2));
        send(&whole(3));
        let done = ig.stop().expect_success();
        check_map_full(&done, 0);
        let rows = done.rows();
        let mut seen: Vec<_> = rows.iter().map(|r| (at(r, "id"), at(r, "pkt_type"), at(r, "len"))).collect();
        seen.sort_by_key(|s| format!("{s:?}"));
        let expected = ["0002", "0003"].map(|id| ["HOST", "OUTGOING"].map(|t| (json!(id), json!(t), json!(19))));
        let expected = expected.concat();
        assert_eq!(seen, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    }

    #[test]
    fn gaps_in_a_stream_are_counted_under_their_own_name() {
        use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
        let _alone = alone();
        // Segments that no connection has: only the gadget makes something of them.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
        let flags = ["--port", &port.to_string(), "--fields", "id,pkt_type"];
        let ig = tracing("trace_dns", &flags).start_ready();
        let whole = |id| {
            let m = message(id, 0x0100);
            [&(m.len() as u16).to_be_bytes()[..], &m].concat()
        };
        let mut seq = 1000;
        let mut send = |bytes: &[u8], missing: u32| {
            seq += missing;
            let to = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            sendto(&raw, &segment(port, seq, bytes), SendFlags::empty(), &to).unwrap();
            seq += bytes.len() as u32;
        };
        send(&whole(1), 0);
        send(&whole(2), 0);
        send(&whole(3), 100);
        // More than are looked at in one segment.
        send(&(10..19).flat_map(whole).collect::<Vec<u8>>(), 0);
        let done = ig.stop().expect_success();
        let ledger = done.ledger();
        ledger.check();
        assert_eq!(ledger.lost, [("stream_gap".to_owned(), 2)].into(), "{}", done.stderr);
        let rows = done.rows();
        let seen: Vec<_> = rows.iter().map(|r| at(r, "id").as_str().unwrap()).collect();
        let eight = ["000a", "000b", "000c", "000d", "000e", "000f", "0010", "0011"];
        assert_eq!(seen, [&["0001", "0002", "0003"][..], &eight].concat());
        assert!(rows.iter().all(|r| at(r, "pkt_type") == "HOST"), "of the other side nobody is the owner");
    }

    #[test]
    fn hellos_that_make_room_for_others_are_shown_as_far_as_they_came() {
        // On the loopback interface each is seen twice.
        const CONNECTIONS: usize = 200;
        const KEPT: usize = 256;
        let _alone = alone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = u64::from(listener.local_addr().unwrap().port());
        let ig = tracing("trace_sni", &["--fields", "dst.port,name,truncated,malformed,pkt_type"]).start_ready();
        let (begin, rest) = hello();
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nodelay(true).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(&begin).unwrap();
            server.read_exact(&mut vec![0; begin.len()]).unwrap();
            open.push((client, server));
        }
        for (client, server) in &mut open {
            client.write_all(&rest).unwrap();
            server.read_exact(&mut vec![0; rest.len()]).unwrap();
        }
        let done = ig.stop().expect_success();
        check_map_full(&done, 0);
        let rows: Vec<_> = done.rows().into_iter().filter(|r| at(r, "dst.port") == port).collect();
        let cut = rows.iter().filter(|r| at(r, "truncated") == true);
        let why: BTreeSet<_> = cut.clone().map(|r| at(r, "malformed").as_str().unwrap()).collect();
        assert_eq!((rows.len(), cut.count()), (2 * CONNECTIONS, 2 * CONNECTIONS - KEPT));
        assert_eq!(why, BTreeSet::from(["ClientHello ends too early"]));
        assert!(rows.iter().all(|r| at(r, "truncated") == true || at(r, "name") == "a.test"), "{rows:#?}");
    }

    #[test]
    fn connections_without_room_for_their_owner_are_counted() {
        const KEPT: u64 = 16_384;
        const CONNECTIONS: u64 = 8_250;
        let _alone = alone();
        rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(20_000), maximum: Some(20_000) },
        )
        .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ig = tracing("trace_tcp", &["--fields", "type,error"]).start_ready();
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            open.push((client, listener.accept().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(200));
        let done = ig.stop().expect_success();
        check_map_full(&done, 2 * CONNECTIONS - KEPT);
    }

    #[test]
    fn datagrams_whose_answers_would_be_taken_for_beginnings_are_counted() {
        const PORTS: u64 = 17_000;
        const KEPT: u64 = 16_384;
        let _alone = alone();
        // An interface whose other end takes nothing in, because the packets are for another machine. It says that it is up before it
        // sends anything.
        let script = "busybox=/bin/busybox; set -e
            $busybox ip link add type veth; $busybox ip link set veth0 up; $busybox ip link set veth1 up
            $busybox ip addr add 10.7.0.1/24 dev veth0
            $busybox arp -i veth0 -s 10.7.0.2 02:00:00:00:00:07
            until [ \"$($busybox cat /sys/class/net/veth0/operstate)\" = up ]; do $busybox usleep 10000; done
            sent() { $busybox cat /sys/class/net/veth0/statistics/tx_packets; }
            before=$(sent)
            for i in $($busybox seq 300); do [ \"$(sent)\" != $before ] && break; $busybox ping -c 1 -W 1 10.7.0.2 || true; done
            exec /workload";
        let bundle = Bundle::with(&["/bin/sh", "-c", script], |config| {
            let capabilities = config["process"]["capabilities"].as_object_mut().unwrap();
            let more = ["CAP_NET_ADMIN", "CAP_NET_RAW"].map(serde_json::Value::from);
            capabilities.values_mut().for_each(|c| c.as_array_mut().unwrap().extend(more.clone()));
        });
        let source = bundle.path().join("workload.c");
        std::fs::write(&source, SENDER.replace("PORTS", &PORTS.to_string())).unwrap();
        load::compile(&source, &bundle.path().join("rootfs/workload"));
        let name = format!("sends-{}", std::process::id());
        let ig = Ig::new(&["run", "advise_networkpolicy", "-c", &name, "-o", "json", "--ledger", "--interval", "0"]);
        let ig = ig.start_ready();
        let ran = bundle.runc(&["run", &name]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let done = ig.stop().expect_success();
        check_map_full(&done, PORTS - KEPT);
        assert_eq!(done.ledger().delivered, PORTS, "{}", done.stderr);
    }
}
