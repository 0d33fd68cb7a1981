//! The tests that run on other kernels, in virtual machines: see docs/guides/kernel-tests.md.
//!
//! Two sides that share the names below. The host (`machine`) packs an initramfs, boots it and reads the console. The guest
//! (`guest`, the init process of the machine) runs the `cases`, each in a process of its own.

pub mod cases;
pub mod guest;
pub mod machine;

/// A line of results on the serial console: `VM-TEST name ok|FAIL seconds`.
pub const RESULT: &str = "VM-TEST";
/// The last line: `VM-DONE passed failed`. Without it the machine died.
pub const DONE: &str = "VM-DONE";
/// Variable (on the kernel's command line, hence in init's environment): runs only cases whose name contains
/// one of its texts, which commas separate.
pub const FILTER: &str = "IG_VM_FILTER";
/// Variable: a shell on the console instead of the tests.
pub const SHELL: &str = "IG_VM_SHELL";
/// Variable: every test of every gadget, not only the first.
pub const EVERY: &str = "IG_VM_EVERY";
/// In the guest: a file system on the machine's disk.
pub const DISK: &str = "/disk";
/// In the guest: images of `tests/vm/gadgets`, and beside them the compiled Wasm of all gadgets.
pub const STORE: &str = "/var/lib/vm/store";
/// In the guest: the load generator's files.
pub const LOAD: &str = "/opt/load";
/// In the guest: root file system of the containers.
pub const ROOTFS: &str = "/opt/rootfs";
/// In the guest: `gadget.yaml` and `test.yaml` of every gadget, and its compiled workload.
pub const GADGETS: &str = "/opt/gadgets";
/// A line for the table of gadgets, on the console: `VM-GADGET name cell`.
pub const FACT: &str = "VM-GADGET";
/// A line on the console for what a test does not ask for on this kernel: `VM-WITHOUT gadget: "test": what and why`.
pub const WITHOUT: &str = "VM-WITHOUT";
/// In the guest: modules of its kernel, in the order in which they are loaded.
pub const MODULES: &str = "/lib/modules";
