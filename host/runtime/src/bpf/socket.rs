//! Socket filters: a gadget's program that sees every packet of a network namespace, through a packet socket in it.
//!
//! One program serves any number of namespaces. Each gets a socket of its own with a dispatcher of eight instructions, which
//! writes the namespace's number into `skb->cb[0]` and calls the gadget's program: gadgets read it there, because the kernel
//! does not tell a socket filter in which namespace it runs. The answer is always to keep nothing of the packet, so nothing
//! piles up in the sockets. Usable from any thread; who opens a socket decides by its own namespace where.

use super::{
    insn::{self, Insn},
    label::Label,
    maps::{RawMap, Update},
    object::MAP_PROG_ARRAY,
    sys,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// `offsetof(struct __sk_buff, cb)`
const CB: i16 = 48;
const PROG_SOCKET_FILTER: u32 = 1;
const TAIL_CALL: i32 = 12;

/// Where in opening a socket something failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("cannot open a packet socket")]
    Open(#[source] io::Error),
    #[error("the kernel refused the dispatcher")]
    Dispatcher(#[source] io::Error),
    #[error("the kernel refused to attach the filter")]
    Attach(#[source] io::Error),
    #[error("cannot receive its packets")]
    Bind(#[source] io::Error),
}

/// A loaded socket filter, ready to be opened in network namespaces.
#[derive(Debug)]
pub(crate) struct SocketProgram {
    /// One slot, which holds the program, or nothing once it is silenced.
    slot: RawMap<OwnedFd>,
    /// For the dispatchers: the kernel measures what they call as theirs.
    label: Option<Label>,
}

impl SocketProgram {
    pub(super) fn new(program: BorrowedFd<'_>, label: Option<Label>) -> io::Result<SocketProgram> {
        let slot = RawMap::new(sys::map_create(MAP_PROG_ARRAY, 4, 4, 1)?)?;
        slot.update(&[0; 4], &program.as_raw_fd().to_ne_bytes(), Update::Any)?;
        Ok(SocketProgram { slot, label })
    }

    /// Has the program see all packets of this thread's network namespace, whose number is `netns`, until the socket is
    /// closed. Closing takes a grace period of the kernel, some ten milliseconds.
    pub(crate) fn open(&self, netns: u32) -> Result<OwnedFd, SocketError> {
        let dispatcher = dispatcher(netns, self.slot.as_fd());
        let dispatcher = sys::prog_load(PROG_SOCKET_FILTER, 0, 0, &dispatcher).map_err(SocketError::Dispatcher)?;
        self.label.iter().for_each(|l| l.put_on(dispatcher.as_fd()));
        // Without a protocol it receives nothing before the filter is there.
        let socket = sys::packet_socket().map_err(SocketError::Open)?;
        sys::socket_attach_bpf(socket.as_fd(), dispatcher.as_fd()).map_err(SocketError::Attach)?;
        sys::receive_all_packets(socket.as_fd()).map_err(SocketError::Bind)?;
        Ok(socket)
    }

    /// Stops the program in all namespaces at once; those that are at work still end.
    pub(crate) fn silence(&self) -> io::Result<()> {
        self.slot.delete(&[0; 4]).map(drop)
    }
}

/// `skb->cb[0] = netns; tail_call(skb, slots, 0); return 0;`
fn dispatcher(netns: u32, slots: BorrowedFd<'_>) -> [u64; 8] {
    const MOV32_IMM: u8 = 0xb4;
    const STORE_WORD: u8 = 0x63;
    const EXIT: u8 = 0x95;
    let (skb, value, index) = (1, 2, 3);
    [
        Insn::new(MOV32_IMM, value, 0, 0, netns as i32),
        Insn::new(STORE_WORD, skb, value, CB, 0),
        Insn::new(insn::LD_IMM64, value, insn::PSEUDO_MAP_FD, 0, slots.as_raw_fd()),
        Insn::new(0, 0, 0, 0, 0),
        Insn::new(MOV32_IMM, index, 0, 0, 0),
        Insn::new(insn::CALL, 0, 0, 0, TAIL_CALL),
        Insn::new(MOV32_IMM, 0, 0, 0, 0),
        Insn::new(EXIT, 0, 0, 0, 0),
    ]
    .map(|i| u64::from_le_bytes(i.0))
}
