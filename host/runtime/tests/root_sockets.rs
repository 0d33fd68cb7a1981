//! The socket enricher on a real kernel: sockets of this process, those from before it included, come into its map and
//! leave it. Needs root. One test, because two enrichers would see each other's sockets all the same.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use ig_runtime::{
    bpf::{KernelBtf, maps::RawMap},
    enrich::sockets::Sockets,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

const INET: u16 = 2;
const INET6: u16 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn netns() -> u32 {
    std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32
}

/// Laid out as `struct gadget_socket_key`.
fn key(family: u16, proto: u8, port: u16) -> Vec<u8> {
    let mut k = netns().to_ne_bytes().to_vec();
    k.extend(family.to_ne_bytes());
    k.extend([proto, 0]);
    k.extend(port.to_ne_bytes());
    k.extend([0, 0]);
    k
}

/// Process and mount namespace of who has this port, and whether it is IPv6 only.
fn owner(map: &RawMap<BorrowedFd<'_>>, family: u16, proto: u8, port: u16) -> Option<(u32, u64, bool)> {
    let v = map.lookup(&key(family, proto, port)).unwrap()?;
    let word = |at: usize| u64::from_ne_bytes(v[at..at + 8].try_into().unwrap());
    assert_eq!(word(64), 0, "nothing is kept after the end of its socket");
    Some(((word(8) >> 32) as u32, word(0), v[80] != 0))
}

/// Local address, as it is kept, and port of the peer.
fn ends(map: &RawMap<BorrowedFd<'_>>, family: u16, proto: u8, port: u16) -> (IpAddr, u16) {
    let v = map.lookup(&key(family, proto, port)).unwrap().unwrap();
    let addr = match family {
        INET => IpAddr::from(<[u8; 4]>::try_from(&v[84..88]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&v[84..100]).unwrap()),
    };
    (addr, u16::from_ne_bytes([v[82], v[83]]))
}

/// Ports of this protocol in this network that a socket of this process is entered for.
fn mine_of(map: &RawMap<BorrowedFd<'_>>, proto: u8) -> Vec<u16> {
    let (mut ports, mut at) = (Vec::new(), None);
    while let Some(k) = map.next_key(at.as_deref()).unwrap() {
        let mine = || map.lookup(&k).unwrap().is_some_and(|v| v[12..16] == std::process::id().to_ne_bytes());
        if k[..4] == netns().to_ne_bytes() && k[6] == proto && mine() {
            ports.push(u16::from_ne_bytes([k[8], k[9]]));
        }
        at = Some(k);
    }
    ports
}

/// A connected datagram socket gives up its peer, and with it the port that the kernel chose.
fn disconnect(socket: &UdpSocket) {
    let none = [0_u8; 16];
    // SAFETY: an address of 16 bytes is read, whose family is AF_UNSPEC.
    let done = unsafe { libc::connect(socket.as_raw_fd(), none.as_ptr().cast(), none.len() as u32) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// A port that this process connected from and that was refused.
fn refused() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert!(TcpStream::connect(closed).is_err());
}

fn multipath_listener() -> TcpListener {
    // SAFETY: plain system calls; the address is one of AF_INET (2), port 0, 127.0.0.1; the descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
        assert!(fd >= 0, "no MPTCP: {}", std::io::Error::last_os_error());
        let here = [2_u8, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!((libc::bind(fd, here.as_ptr().cast(), 16), libc::listen(fd, 1)), (0, 0));
        TcpListener::from_raw_fd(fd)
    }
}

/// A TCP socket that is bound, and closed without more.
fn bound_only() {
    // SAFETY: plain system calls; the address is one of AF_INET (2), port 0, 0.0.0.0, and the socket is closed once.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let any = [2_u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!((libc::bind(fd, any.as_ptr().cast(), 16), libc::close(fd)), (0, 0));
    }
}

/// A socket in the table of files of one thread, which is not that of the process. Closed when it is dropped.
struct OfAThread {
    port: u16,
    end: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn of_a_thread_alone() -> OfAThread {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread's own table of files is concerned.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0, "{}", std::io::Error::last_os_error());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        tell.send(socket.local_addr().unwrap().port()).unwrap();
        assert!(ended.recv().is_err());
    });
    OfAThread { port: told.recv().unwrap(), end: Some(end), thread: Some(thread) }
}

impl Drop for OfAThread {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn root_sockets_have_their_process_as_long_as_they_are_open() {
    let before = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp_before = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    // Found twice at the start, as the sockets of a server are that has several processes.
    let again = udp_before.try_clone().unwrap();
    let lone = of_a_thread_alone();
    let sockets = Sockets::start(&KernelBtf::new(), Path::new("/"), false).unwrap();
    assert_eq!(sockets.notes(), Vec::<String>::new());
    let map = RawMap::new(sockets.map()).unwrap();
    let mntns = std::fs::metadata("/proc/self/ns/mnt").unwrap().ino();
    let mine = Some((std::process::id(), mntns, false));

    let port = before.local_addr().unwrap().port();
    assert_eq!(owner(&map, INET, TCP, port), mine, "one from before the start");
    let udp_port = udp_before.local_addr().unwrap().port();
    assert_eq!(owner(&map, INET6, UDP, udp_port), mine);
    assert_eq!(owner(&map, INET, UDP, lone.port), mine, "in the files of a thread alone");
    let lone_port = lone.port;
    drop(lone);

    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (accepted, _) = before.accept().unwrap();
    let client_port = client.local_addr().unwrap().port();
    assert_eq!(owner(&map, INET, TCP, client_port), mine, "a port that the kernel chose in connect");

    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let bound = udp.local_addr().unwrap().port();
    assert_eq!(owner(&map, INET, UDP, bound), mine, "a port from bind");

    // A packet is theirs only if it has their address.
    let (any, here) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::LOCALHOST));
    assert_eq!(ends(&map, INET, TCP, port), (here, 0));
    assert_eq!(ends(&map, INET, TCP, client_port), (here, port));
    assert_eq!(ends(&map, INET6, UDP, udp_port), (Ipv6Addr::UNSPECIFIED.into(), 0));
    let wide = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let wide_port = wide.local_addr().unwrap().port();
    assert_eq!(ends(&map, INET, UDP, wide_port), (any, 0));
    wide.connect((Ipv4Addr::LOCALHOST, bound)).unwrap();
    assert_eq!(ends(&map, INET, UDP, wide_port), (here, bound), "connect chose the address");
    let group = UdpSocket::bind((Ipv4Addr::new(239, 1, 2, 3), 0)).unwrap();
    let group_port = group.local_addr().unwrap().port();
    assert_eq!(ends(&map, INET, UDP, group_port), (any, 0), "what it sends has another address");
    let both = UdpSocket::bind((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0)).unwrap();
    let both_port = both.local_addr().unwrap().port();
    assert_eq!(ends(&map, INET6, UDP, both_port), (Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 0));
    drop((wide, group, both));

    drop(accepted);
    assert_eq!(owner(&map, INET, TCP, port), mine, "the listener stays when a connection of the same port ends");
    drop((client, udp, before, udp_before, again));
    let gone = |family, proto, port| {
        // The last packets of a connection may still be under way.
        (0..3000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            owner(&map, family, proto, port).is_none()
        })
    };
    assert!(gone(INET, TCP, port) && gone(INET, TCP, client_port));
    assert!(gone(INET, UDP, bound) && gone(INET6, UDP, udp_port));
    // A thread that was waited for closes its files after that.
    assert!(gone(INET, UDP, lone_port));

    // Of MPTCP, a server of that kind is the owner of what comes by TCP.
    let multipath = multipath_listener();
    assert_eq!(owner(&map, INET, TCP, multipath.local_addr().unwrap().port()), mine);
    drop(multipath);

    // Sockets whose port is another one when they end, or none any more, or that end without a change of state.
    for _ in 0..20 {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        udp.connect((Ipv4Addr::LOCALHOST, 9)).unwrap();
        assert_eq!(mine_of(&map, UDP), [udp.local_addr().unwrap().port()]);
        disconnect(&udp);
        drop(udp);
        refused();
        bound_only();
    }
    let none = || mine_of(&map, UDP).is_empty() && mine_of(&map, TCP).is_empty();
    let left = || (mine_of(&map, UDP), mine_of(&map, TCP));
    assert!(
        (0..3000).any(|_| none() || (std::thread::sleep(std::time::Duration::from_millis(20)), false).1),
        "{:?}",
        left()
    );
    assert_eq!(sockets.overflow(), 0);
    assert!(sockets.paths().is_none());
    drop(sockets);
    with_paths();
}

/// Where a socket's owner works and what it runs is known of those from before and of new ones, and goes with them.
fn with_paths() {
    let before = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sockets = Sockets::start(&KernelBtf::new(), Path::new("/"), true).unwrap();
    assert_eq!(sockets.notes(), Vec::<String>::new());
    let (map, paths) = (RawMap::new(sockets.map()).unwrap(), RawMap::new(sockets.paths().unwrap()).unwrap());
    let text = |bytes: &[u8]| String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
    let known = |proto, port| {
        let owner = map.lookup(&key(INET, proto, port)).unwrap().unwrap();
        // the address of the socket, behind three numbers and two names
        let sock = owner[56..64].to_vec();
        let found = paths.lookup(&sock).unwrap().unwrap();
        assert_eq!((found.len(), &found[..8]), (1032, &[0; 8][..]));
        (sock, text(&found[8..520]), text(&found[520..]))
    };
    let wanted = (
        std::env::current_dir().unwrap().to_str().unwrap().to_owned(),
        std::env::current_exe().unwrap().to_str().unwrap().to_owned(),
    );
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(before.local_addr().unwrap()).unwrap();
    let ports = [
        (TCP, before.local_addr().unwrap().port()),
        (UDP, udp.local_addr().unwrap().port()),
        (TCP, client.local_addr().unwrap().port()),
    ];
    let all = ports.map(|(proto, port)| known(proto, port));
    for (_, cwd, exe) in &all {
        assert_eq!((cwd, exe), (&wanted.0, &wanted.1));
    }
    drop((before, udp, client));
    for (sock, ..) in all {
        let gone = || paths.lookup(&sock).unwrap().is_none();
        assert!((0..3000).any(|_| gone() || (std::thread::sleep(std::time::Duration::from_millis(20)), false).1));
    }
    assert_eq!(sockets.overflow(), 0);
}
