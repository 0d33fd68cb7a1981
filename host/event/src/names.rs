//! Names that only the observed host knows: users, groups, system calls. Filled by the runtime, read by formatters.

use rustc_hash::FxHashMap;

/// Tables from numbers to names. An empty table is valid: numbers are then shown as `uid:1000`, `gid:1000`.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    pub users: FxHashMap<u32, String>,
    pub groups: FxHashMap<u32, String>,
    /// Lower-case system call names by number (`openat`).
    pub syscalls: FxHashMap<u64, String>,
}
