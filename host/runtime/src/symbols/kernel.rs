//! Names of the kernel's functions, from /proc/kallsyms. Read once, when the first kernel address is to be named.

use std::{fs::File, io::Read, path::Path};

/// The list of a kernel with every driver loaded is a tenth of this.
const MAX_BYTES: u64 = 128 << 20;
/// How functions are called that lie between a place that is traced and the program that takes the stack, beside compiled
/// programs: how tracepoints and calls come to them, and what runs them where they are not compiled.
const TRACING: [&[u8]; 16] = [
    b"__bpf_prog_enter",
    b"__bpf_prog_exit",
    b"__bpf_prog_run",
    b"___bpf_prog_run",
    b"bpf_dispatcher_",
    b"bpf_get_stack",
    b"bpf_trace_run",
    b"__bpf_trace_",
    b"__traceiter_",
    b"trace_call_bpf",
    b"perf_trace_",
    b"perf_syscall_enter",
    b"perf_syscall_exit",
    b"perf_call_bpf_",
    b"bpf_trampoline_",
    b"bpf_lsm_",
];

/// Compiled programs are listed with a hash: `bpf_prog_93cd6282e304fdb5_name`. Other functions begin so, too.
fn is_tracing(name: &[u8]) -> bool {
    let hash = name.strip_prefix(b"bpf_prog_").and_then(|rest| rest.get(..16));
    hash.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)) || TRACING.iter().any(|start| name.starts_with(start))
}

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

    /// How many frames at the beginning of a stack are of the tracing itself. What has no name among them is too: programs
    /// have none where the kernel does not list them. Of a stack that would have nothing else left, none.
    pub(super) fn frames_of_tracing(&self, addresses: &[u64]) -> usize {
        let mut count = 0;
        for (depth, address) in addresses.iter().enumerate() {
            match self.name(super::called_from(depth, *address)) {
                Some(name) if is_tracing(name) => count = depth + 1,
                Some(_) => break,
                None => {}
            }
        }
        if count < addresses.len() { count } else { 0 }
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
    fn a_stack_begins_with_what_was_traced() {
        let k = KernelSymbols::parse(
            b"1000 T do_work\n2000 T bpf_trace_run5\n3000 T __traceiter_cap_capable\n4000 t bpf_prog_93cd6282e304fdb5_own [bpf]\n\
              5000 t bpf_trampoline_6442 [bpf]\n6000 T bpf_iter_run_prog\n7000 T cap_capable\n\
              8000 T bpf_prog_load\n",
        );
        let (work, run, iter, own) = (0x1010, 0x2010, 0x3010, 0x4010);
        assert_eq!(k.frames_of_tracing(&[own, own, run, iter, 0x7010, work]), 4);
        assert_eq!(k.frames_of_tracing(&[own, 0x5010, work]), 2);
        // a program that is not listed is before every function here
        assert_eq!(k.frames_of_tracing(&[0x10, run, work]), 2);
        // nothing of it is cut where it comes later, or where nothing says that it is tracing
        assert_eq!(k.frames_of_tracing(&[work, own, run, work]), 0);
        assert_eq!(k.frames_of_tracing(&[0x10, work]), 0);
        assert_eq!(k.frames_of_tracing(&[own, work, run, 0x7010]), 1);
        assert_eq!(k.frames_of_tracing(&[0x6010, work]), 0);
        assert_eq!(k.frames_of_tracing(&[0x8010, work]), 0);
        // there is nothing else
        assert_eq!(k.frames_of_tracing(&[own, run]), 0);
        assert_eq!(k.frames_of_tracing(&[]), 0);
        // an address that a call returns to may be the next function's first
        assert_eq!(k.frames_of_tracing(&[own, 0x3000, 0x4000, work]), 3);
    }

    #[test]
    fn hidden_addresses_are_no_names() {
        assert!(KernelSymbols::parse(b"0000000000000000 T first\n0000000000000000 T second\n").is_empty());
        assert!(KernelSymbols::read(Path::new("/nonexistent")).is_empty());
    }
}
