//! What a gadget may ask of its host besides rows: documents, its own maps and perf buffers, the kernel's names, the
//! containers, the ledger.
//!
//! Each function is a permission of its own: a component that does not call it does not import it, and `ig image inspect`
//! shows what is imported. They only work in a guest; on the host they answer `unsupported` or nothing, so that what is
//! worth a test belongs into functions that take plain data.

use crate::Error;
#[cfg(not(target_arch = "wasm32"))]
use crate::ErrorCode;

/// By which door a system call comes in: the machine's own, or that for 32-bit programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    Native,
    Compat,
}

/// A parameter of a system call, as the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallParam {
    pub name: String,
    pub type_name: String,
    /// The argument is an address.
    pub pointer: bool,
}

/// What the run knows of a container. Texts it does not know are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub runtime: String,
    pub image: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_labels: Vec<(String, String)>,
}

/// Sizes of a map in bytes, and how many values a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub cpus: u32,
}

/// Something to write instead of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// For people, such as the name of the container it is about.
    pub name: String,
    pub media_type: String,
    pub annotations: Vec<(String, String)>,
    pub text: String,
}

impl Document {
    /// Hands it to the user, once the present call has returned.
    pub fn publish(&self) -> Result<(), Error> {
        #[cfg(target_arch = "wasm32")]
        return crate::guest::boundary::publish(self);
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }
}

/// One of the gadget's own maps.
pub struct Map {
    #[cfg(target_arch = "wasm32")]
    map: crate::guest::boundary::Map,
}

/// Entries that are asked for at once.
#[cfg(target_arch = "wasm32")]
const SCAN: u32 = 512;

#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has maps"))]
impl Map {
    pub fn open(name: &str) -> Result<Map, Error> {
        #[cfg(target_arch = "wasm32")]
        return Ok(Map { map: crate::guest::boundary::Map::open(name)? });
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }

    pub fn info(&self) -> MapInfo {
        #[cfg(target_arch = "wasm32")]
        return self.map.info();
        #[cfg(not(target_arch = "wasm32"))]
        MapInfo { key_size: 0, value_size: 0, max_entries: 0, cpus: 0 }
    }

    /// The value of a key; of per-CPU maps all values, each rounded up to 8 bytes.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        #[cfg(target_arch = "wasm32")]
        return self.map.lookup(key);
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }

    /// Sets a value; of per-CPU maps the values of all CPUs, as `lookup` gives them.
    pub fn update(&self, key: &[u8], value: &[u8], how: Update) -> Result<(), Error> {
        #[cfg(target_arch = "wasm32")]
        return self.map.update(key, value, how);
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }

    /// False where there was no such key.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        #[cfg(target_arch = "wasm32")]
        return self.map.delete(key);
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }

    /// Every key with its value, at most twice as many as the map has room for: entries that come and go may be missed,
    /// or come twice.
    pub fn each(&self, f: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        #[cfg(target_arch = "wasm32")]
        {
            let mut f = f;
            let info = self.map.info();
            let (key, value) = (info.key_size as usize, info.value_size as usize * info.cpus as usize);
            let mut last: Option<Vec<u8>> = None;
            let mut left = 2 * u64::from(info.max_entries);
            while key > 0 && value > 0 && left > 0 {
                let (keys, values) = self.map.scan(last.as_deref(), SCAN)?;
                let Some(end) = keys.chunks_exact(key).next_back() else { break };
                keys.chunks_exact(key).zip(values.chunks_exact(value)).for_each(|(k, v)| f(k, v));
                left = left.saturating_sub((keys.len() / key) as u64);
                last = Some(end.to_vec());
            }
            Ok(())
        }
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }
}

/// How an entry of a map is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    Any,
    OnlyNew,
    OnlyExisting,
}

/// What the kernel does with a record for which a perf buffer has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is lost, and counted.
    LoseNew,
    /// It takes the place of the oldest.
    OverwriteOld,
}

/// The perf buffers of one of the gadget's own maps, a `perf_event_array`.
pub struct PerfReader {
    #[cfg(target_arch = "wasm32")]
    reader: crate::guest::boundary::PerfReader,
}

/// Bytes that are asked for at once.
#[cfg(target_arch = "wasm32")]
const DRAIN: u32 = 1 << 20;
/// As much as all buffers can hold, and as much again.
#[cfg(target_arch = "wasm32")]
const ROUNDS: u32 = 128;

#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has perf buffers"))]
impl PerfReader {
    /// Opens a buffer of `bytes` on each CPU: a power of two, at least a page, at most 64 MiB for all.
    pub fn open(map: &Map, bytes: u32, full: WhenFull) -> Result<PerfReader, Error> {
        #[cfg(target_arch = "wasm32")]
        return Ok(PerfReader { reader: map.map.perf_buffers(bytes, full)? });
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }

    /// Gives each record that has come since the last time to `f`, oldest first of each CPU, one CPU after the other; up to
    /// seven bytes of padding may follow what the program wrote. Answers how many the kernel lost, which are in the ledger
    /// already.
    pub fn each(&self, f: impl FnMut(&[u8])) -> Result<u64, Error> {
        #[cfg(target_arch = "wasm32")]
        {
            let (mut f, mut all_lost) = (f, 0);
            // Where records come as fast as they are read, there is no end to wait for.
            for _ in 0..ROUNDS {
                let (data, ends, lost) = self.reader.drain(DRAIN)?;
                all_lost += lost;
                if ends.is_empty() {
                    break;
                }
                let mut start = 0;
                for end in ends {
                    f(data.get(start..end as usize).unwrap_or_default());
                    start = end as usize;
                }
            }
            Ok(all_lost)
        }
        #[cfg(not(target_arch = "wasm32"))]
        nobody()
    }
}

/// Counts things that should have been in rows or documents and are not, in the run's ledger. Say what they were with
/// [`log`](crate::log()).
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has a ledger"))]
pub fn lost(count: u64) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::boundary::lost(count);
}

/// Whose a mount namespace was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Container(Container),
    /// Of no container that is known.
    Nobody,
    /// Not asked for: the filter in the kernel lets some in before their names are known.
    LeftOut,
    /// Not known, and only certain containers were asked for.
    Doubtful,
}

/// Whose mount namespace it was at that time (nanoseconds of the boot clock).
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has containers"))]
pub fn owner(mntns: u64, boot_ns: u64) -> Owner {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::boundary::owner(mntns, boot_ns);
    #[cfg(not(target_arch = "wasm32"))]
    Owner::Nobody
}

/// The machine, as `uname -m` says it.
pub fn arch() -> String {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::boundary::arch();
    #[cfg(not(target_arch = "wasm32"))]
    std::env::consts::ARCH.to_owned()
}

/// Names of the system calls by number; empty = none.
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has a kernel"))]
pub fn syscall_names(abi: Abi) -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::boundary::syscall_names(abi);
    #[cfg(not(target_arch = "wasm32"))]
    Vec::new()
}

/// The parameters of a system call; `None` where the kernel does not tell.
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has a kernel"))]
pub fn syscall_params(name: &str) -> Option<Vec<SyscallParam>> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::boundary::syscall_params(name);
    #[cfg(not(target_arch = "wasm32"))]
    None
}

/// Names of the errors by number; empty = none.
pub fn errno_names() -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::boundary::errno_names();
    #[cfg(not(target_arch = "wasm32"))]
    Vec::new()
}

#[cfg(not(target_arch = "wasm32"))]
fn nobody<T>() -> Result<T, Error> {
    Err(Error::new(ErrorCode::Unsupported, "only a guest can ask its host"))
}
