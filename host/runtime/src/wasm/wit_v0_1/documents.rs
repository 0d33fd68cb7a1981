//! `documents`: what a guest writes goes into drafts of `services`, and out when its call has returned.

use super::{State, WitResult, bindings::ig::gadget::documents, service_error};
use crate::wasm::services::{Draft, LARGEST_CALL, ServiceError};
use wasmtime::component::Resource;

impl documents::Host for State {}

impl documents::HostDocument for State {
    fn new(&mut self, name: String, media_type: String) -> wasmtime::Result<Resource<Draft>> {
        Ok(self.table.push(Draft::new(&name, &media_type))?)
    }

    fn annotate(&mut self, this: Resource<Draft>, key: String, value: String) -> wasmtime::Result<WitResult> {
        Ok(self.table.get_mut(&this)?.annotate(key, value).map_err(service_error))
    }

    fn write(&mut self, this: Resource<Draft>, chunk: Vec<u8>) -> wasmtime::Result<WitResult> {
        let draft = self.table.get_mut(&this)?;
        if self.drafted + chunk.len() > LARGEST_CALL {
            let e = ServiceError::TooMuch { what: "bytes in unpublished documents", limit: LARGEST_CALL };
            return Ok(Err(service_error(e)));
        }
        let written = draft.write(&chunk);
        self.drafted += if written.is_ok() { chunk.len() } else { 0 };
        Ok(written.map_err(service_error))
    }

    fn publish(&mut self, this: Resource<Draft>) -> wasmtime::Result<WitResult> {
        let draft = self.table.get_mut(&this)?;
        let before = draft.len();
        let published = self.published.publish(draft);
        self.drafted -= before - draft.len();
        Ok(published.map_err(service_error))
    }

    fn drop(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.drafted -= self.table.delete(this)?.len();
        Ok(())
    }
}
