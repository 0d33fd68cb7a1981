//! `maps` and `maps-write`: a guest reads and changes the maps of its own object, which `services` lends it.

use super::{
    State, WitResult,
    bindings::ig::gadget::{
        maps::{self, MapInfo},
        maps_write::{self, Mode},
    },
    service_error, types,
};
use crate::{bpf::maps::Update, wasm::services::OpenMap};
use wasmtime::component::Resource;

impl maps::Host for State {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<OpenMap>, types::Error>> {
        match self.services.map(&name) {
            Ok(map) => Ok(Ok(self.table.push(map)?)),
            Err(e) => Ok(Err(service_error(e))),
        }
    }
}

impl maps::HostBpfMap for State {
    fn info(&mut self, this: Resource<OpenMap>) -> wasmtime::Result<MapInfo> {
        let map = self.table.get(&this)?;
        let (value_size, cpus) = map.value_parts();
        let info = map.info();
        Ok(MapInfo { key_size: info.key_size, value_size, max_entries: info.max_entries, cpus })
    }

    fn lookup(
        &mut self,
        this: Resource<OpenMap>,
        key: Vec<u8>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, types::Error>> {
        Ok(self.table.get(&this)?.lookup(&key).map_err(service_error))
    }

    fn scan(
        &mut self,
        this: Resource<OpenMap>,
        after: Option<Vec<u8>>,
        max: u32,
    ) -> wasmtime::Result<Result<(Vec<u8>, Vec<u8>), types::Error>> {
        Ok(self.table.get(&this)?.scan(after, max).map_err(service_error))
    }

    fn drop(&mut self, this: Resource<OpenMap>) -> wasmtime::Result<()> {
        self.table.delete(this).map(drop)?;
        Ok(())
    }
}

impl maps_write::Host for State {
    fn update(
        &mut self,
        map: Resource<OpenMap>,
        key: Vec<u8>,
        value: Vec<u8>,
        mode: Mode,
    ) -> wasmtime::Result<WitResult> {
        let how = match mode {
            Mode::Any => Update::Any,
            Mode::OnlyNew => Update::OnlyNew,
            Mode::OnlyExisting => Update::OnlyExisting,
        };
        Ok(self.table.get(&map)?.update(&key, &value, how).map_err(service_error))
    }

    fn delete(&mut self, map: Resource<OpenMap>, key: Vec<u8>) -> wasmtime::Result<Result<bool, types::Error>> {
        Ok(self.table.get(&map)?.delete(&key).map_err(service_error))
    }
}
