//! `perf`: a guest reads the perf buffers of its own object; what the kernel lost goes into the ledger on the way.

use super::{
    State,
    bindings::ig::gadget::perf::{self, Records},
    service_error, types,
};
use crate::wasm::services::{OpenMap, PerfBuffers, WhenFull};
use wasmtime::component::Resource;

impl perf::Host for State {
    fn open(
        &mut self,
        events: Resource<OpenMap>,
        bytes: u32,
        when_full: perf::WhenFull,
    ) -> wasmtime::Result<Result<Resource<PerfBuffers>, types::Error>> {
        let full = match when_full {
            perf::WhenFull::LoseNew => WhenFull::LoseNew,
            perf::WhenFull::OverwriteOld => WhenFull::OverwriteOld,
        };
        match self.table.get(&events)?.buffers(bytes, full) {
            Ok(buffers) => Ok(Ok(self.table.push(buffers)?)),
            Err(e) => Ok(Err(service_error(e))),
        }
    }
}

impl perf::HostReader for State {
    fn drain(
        &mut self,
        this: Resource<PerfBuffers>,
        max_bytes: u32,
    ) -> wasmtime::Result<Result<Records, types::Error>> {
        let drained = self.table.get_mut(&this)?.drain(max_bytes);
        Ok(drained.map_err(service_error).map(|d| {
            self.services.lose(d.lost);
            Records { data: d.data, ends: d.ends, lost: d.lost }
        }))
    }

    fn drop(&mut self, this: Resource<PerfBuffers>) -> wasmtime::Result<()> {
        self.table.delete(this).map(drop)?;
        Ok(())
    }
}
