//! Sockets where no runtime answers as it should.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A plain file is where the socket should be.
    IsAFile,
    /// Nobody listens.
    Refuses,
    /// Takes connections and never answers.
    Hangs,
    /// Answers what is no protocol.
    Garbage,
    /// Begins a proper HTTP/1.1 answer, and closes in the middle of it.
    Closes,
}

impl Fault {
    pub const ALL: [Fault; 5] = [Fault::IsAFile, Fault::Refuses, Fault::Hangs, Fault::Garbage, Fault::Closes];
}

/// A socket with a fault, until it is dropped.
pub struct BadSocket {
    dir: TempDir,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl BadSocket {
    pub fn new(fault: Fault) -> BadSocket {
        let dir = tempfile::Builder::new().prefix("igs").tempdir_in("/tmp").expect("a temporary directory");
        let stop = Arc::new(AtomicBool::new(false));
        let path = dir.path().join("s");
        let server = match fault {
            Fault::IsAFile => {
                std::fs::write(&path, "no socket\n").expect("a writable directory");
                None
            }
            Fault::Refuses => {
                drop(listener(&path));
                None
            }
            Fault::Hangs | Fault::Garbage | Fault::Closes => {
                let (listener, stop) = (listener(&path), stop.clone());
                Some(std::thread::spawn(move || serve(&listener, fault, &stop)))
            }
        };
        BadSocket { dir, stop, server }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }
}

impl Drop for BadSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(server) = self.server.take() {
            // A server that panicked has served the test's purpose all the same.
            server.join().ok();
        }
    }
}

fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("a socket");
    listener.set_nonblocking(true).expect("a socket of ours");
    listener
}

fn serve(listener: &UnixListener, fault: Fault, stop: &AtomicBool) {
    let mut open = Vec::new();
    while !stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                answer(&mut stream, fault);
                if fault != Fault::Closes {
                    open.push(stream);
                }
            }
            Err(_nobody_yet) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Writes what the fault demands; whether the other side takes it is its own business.
fn answer(stream: &mut UnixStream, fault: Fault) {
    stream.set_nonblocking(false).ok();
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok();
    stream.set_write_timeout(Some(Duration::from_millis(500))).ok();
    // Whatever was asked.
    let mut request = [0; 4096];
    let mut listen = || drop(stream.read(&mut request));
    match fault {
        Fault::Garbage => {
            listen();
            let noise: Vec<u8> = (0..65_536u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            stream.write_all(&noise).ok();
        }
        Fault::Closes => {
            listen();
            let begun = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n[{\"Id\":";
            stream.write_all(begun.as_bytes()).ok();
        }
        Fault::IsAFile | Fault::Refuses | Fault::Hangs => {}
    }
}
