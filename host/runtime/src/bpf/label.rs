//! Says in the kernel whose a program is: a small map with the names of its gadget, bound to each program of it
//! (BPF_PROG_BIND_MAP, Linux 5.10). Whoever lists the programs of the machine can read it, another `ig` too; it goes with the
//! programs, however the process ends.
//!
//! Any thread. What is read was written by whoever may load programs: it is bounded here and escaped where it is shown.

use super::{
    maps::{MapInfo, RawMap, Update},
    sys,
};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Name of the map; none of a gadget's own may be taken for it.
const NAME: &str = "ig_gadget";
const MAP_ARRAY: u32 = 2;
/// Bytes of the value: a name, a zero, another name, zeros.
const SIZE: usize = 256;
/// Bytes of the first name.
const NAME_SIZE: usize = 64;

/// Names that are put on programs.
#[derive(Clone, Debug)]
pub(super) struct Label(Arc<RawMap<OwnedFd>>);

/// Whose a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The gadget's, or that of a part of the host.
    pub gadget: Vec<u8>,
    /// Under which it was run.
    pub image: Vec<u8>,
}

impl Label {
    pub(super) fn new(gadget: &str, image: &str) -> io::Result<Label> {
        let map = RawMap::new(sys::map_create_named(MAP_ARRAY, 4, SIZE as u32, 1, NAME)?)?;
        map.update(&[0; 4], &value(gadget, image), Update::Any)?;
        Ok(Label(Arc::new(map)))
    }

    /// Before Linux 5.10 nobody can be told, and the program works as well.
    pub(super) fn put_on(&self, program: BorrowedFd<'_>) {
        let (Ok(()) | Err(_)) = sys::bind_map(program, self.0.as_fd());
    }
}

fn value(gadget: &str, image: &str) -> [u8; SIZE] {
    let mut value = [0; SIZE];
    let gadget = &gadget.as_bytes()[..gadget.len().min(NAME_SIZE)];
    let image = &image.as_bytes()[..image.len().min(SIZE - NAME_SIZE - 2)];
    value[..gadget.len()].copy_from_slice(gadget);
    value[gadget.len() + 1..][..image.len()].copy_from_slice(image);
    value
}

/// What a map says, if it is a label.
pub(super) fn read(map: OwnedFd) -> Option<Names> {
    let map = RawMap::new(map).ok()?;
    let MapInfo { kind: MAP_ARRAY, key_size: 4, max_entries: 1, name, .. } = map.info() else { return None };
    let value = (name == NAME).then(|| map.lookup(&[0; 4]).ok()).flatten().flatten()?;
    names(&value)
}

fn names(value: &[u8]) -> Option<Names> {
    let mut parts = value.split(|b| *b == 0);
    let (gadget, image) = (parts.next()?, parts.next().unwrap_or_default());
    (!gadget.is_empty()).then(|| Names { gadget: gadget.to_vec(), image: image.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_long_ones_are_cut() {
        let read = |gadget: &str, image: &str| {
            let names = names(&value(gadget, image)).unwrap();
            [names.gadget, names.image].map(|n| String::from_utf8(n).unwrap())
        };
        assert_eq!(read("trace_open", "ghcr.io/x/trace_open:v1"), ["trace_open", "ghcr.io/x/trace_open:v1"]);
        assert_eq!(read("container tracker", ""), ["container tracker", ""]);
        let long = read(&"g".repeat(1000), &"i".repeat(1000));
        assert_eq!(long.map(|n| n.len()), [64, 190]);
        assert_eq!(names(&[0; SIZE]), None);
        assert_eq!(names(b"x"), Some(Names { gadget: b"x".to_vec(), image: Vec::new() }));
    }
}
