//! Names of the kernel's functions, from /proc/kallsyms. Read once, when the first kernel address is to be named.

use std::{fs::File, io::Read, path::Path};

/// The list of a kernel with every driver loaded is a tenth of this.
const MAX_BYTES: u64 = 128 << 20;

/// Functions by address.
#[derive(Debug, Default)]
pub(super) struct KernelSymbols {
    /// Address, and where in `names` the name begins.
    functions: Vec<(u64, u32)>,
    names: Vec<u8>,
}

impl KernelSymbols {
    /// Reads the list. Empty where it cannot be read, or hides its addresses (kernel.kptr_restrict, no CAP_SYSLOG).
    pub(super) fn read(kallsyms: &Path) -> KernelSymbols {
        let mut text = Vec::new();
        match File::open(kallsyms).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => KernelSymbols::parse(&text),
            Err(_) => KernelSymbols::default(),
        }
    }

    /// Lines of `address type name [module]`.
    fn parse(text: &[u8]) -> KernelSymbols {
        let mut out = KernelSymbols::default();
        for line in text.split(|b| *b == b'\n') {
            let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty());
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let address = std::str::from_utf8(address).ok().and_then(|a| u64::from_str_radix(a, 16).ok());
            let (Some(address @ 1..), b"t" | b"T" | b"w" | b"W") = (address, kind) else { continue };
            out.functions.push((address, out.names.len() as u32));
            out.names.extend_from_slice(name);
            out.names.push(0);
        }
        // stable, so that of several names of a place the first listed is used
        out.functions.sort_by_key(|f| f.0);
        out.functions.dedup_by_key(|f| f.0);
        out
    }

    /// What a fuzzer calls: every function is found where the list says that it is.
    #[cfg(fuzzing)]
    pub(super) fn fuzz(text: &[u8]) {
        let k = KernelSymbols::parse(text);
        assert!(k.functions.iter().all(|f| k.name(f.0).is_some_and(|name| !name.contains(&0))));
        assert_eq!(k.name(0), None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function that an address is in.
    pub(super) fn name(&self, address: u64) -> Option<&[u8]> {
        let next = self.functions.partition_point(|f| f.0 <= address);
        let name = self.functions.get(next.checked_sub(1)?)?.1 as usize;
        self.names.get(name..).and_then(|n| n.split(|b| *b == 0).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_any_address_in_them() {
        let k = KernelSymbols::parse(
            b"ffffffff81000200 T second\nffffffff81000000 T first\nffffffff81000000 t alias\nffffffff81000100 D data\n\
              ffffffffc0000000 t in_module\t[mod]\nnonsense\nzz T x\n",
        );
        assert_eq!(k.name(0xffff_ffff_8100_0000), Some(&b"first"[..]));
        assert_eq!(k.name(0xffff_ffff_8100_01ff), Some(&b"first"[..]));
        assert_eq!(k.name(0xffff_ffff_8100_0200), Some(&b"second"[..]));
        assert_eq!(k.name(0xffff_ffff_c000_0010), Some(&b"in_module"[..]));
        assert_eq!(k.name(5), None);
    }

    #[test]
    fn hidden_addresses_are_no_names() {
        assert!(KernelSymbols::parse(b"0000000000000000 T first\n0000000000000000 T second\n").is_empty());
        assert!(KernelSymbols::read(Path::new("/nonexistent")).is_empty());
    }
}
