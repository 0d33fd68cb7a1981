//! `kernel` and `containers`: what the host knows anyway. No addresses, no paths of the host.

use super::{
    State,
    bindings::ig::gadget::{
        containers::{self, Container},
        kernel::{self, Abi, SyscallParam},
    },
};
use crate::{syscalls, wasm::services::Owner};

impl kernel::Host for State {
    fn arch(&mut self) -> String {
        rustix::system::uname().machine().to_string_lossy().into_owned()
    }

    fn syscall_names(&mut self, abi: Abi) -> Vec<String> {
        let table = match abi {
            Abi::Native => syscalls::native(),
            Abi::Compat => syscalls::compat(),
        };
        table.iter().map(|name| (*name).to_owned()).collect()
    }

    fn syscall_params(&mut self, name: String) -> Option<Vec<SyscallParam>> {
        let params = syscalls::params(&name)?;
        let one = |p: syscalls::Param| SyscallParam { name: p.name, type_name: p.type_name, pointer: p.pointer };
        Some(params.into_iter().map(one).collect())
    }

    fn errno_names(&mut self) -> Vec<String> {
        ig_event::errno_names().map(str::to_owned).collect()
    }
}

impl containers::Host for State {
    fn by_mntns(&mut self, mntns: u64, boot_ns: u64) -> containers::Owner {
        let c = match self.services.owner(mntns, boot_ns) {
            Owner::Container(c) => c,
            Owner::Nobody => return containers::Owner::Nobody,
            Owner::LeftOut => return containers::Owner::LeftOut,
            Owner::Doubtful => return containers::Owner::Doubtful,
        };
        let text = |t: &Option<Box<str>>| t.as_deref().unwrap_or_default().to_owned();
        let pod = c.pod.as_deref();
        let labels = c.pod_labels().into_iter().flatten().map(|(k, v)| (k.to_string(), v.to_string()));
        containers::Owner::Container(Container {
            id: c.id.to_string(),
            name: text(&c.name),
            runtime: c.runtime.as_str().to_owned(),
            image: text(&c.image_name),
            pod_namespace: pod.map(|p| p.namespace.to_string()).unwrap_or_default(),
            pod_name: pod.map(|p| p.name.to_string()).unwrap_or_default(),
            pod_labels: labels.collect(),
        })
    }
}
