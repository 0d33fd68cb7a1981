//! The gadgets' filter maps: filled by the kernel at every birth, corrected from here once it is known whose birth it was.
//!
//! Shared by the containers' thread and whoever starts or stops a gadget, behind one lock that is held for a few system
//! calls. Never taken on the event thread.
//!
//! Deleting a key is a race with the kernel, which may give the same number to a new namespace at that very moment. The
//! kernel writes the birth first and the filter key second; so after a delete the birth is read, and where it is a newer
//! one the key goes back in.

use super::{
    ContainersError,
    filter::{Selector, Verdict},
    registry::{Owner, Table},
};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData};
use std::{os::fd::BorrowedFd, sync::Arc};

/// `struct birth` in C: time, whether anything was executed in it, identity.
pub(super) type BirthRecord = [u64; 4];
type FilterMap = HashMap<MapData, u64, u32>;

const SLOTS: usize = 64;
const STATE_USED: u32 = 0;
const STATE_HOST_MNTNS: u32 = 1;

struct Slot {
    map: FilterMap,
    selector: Arc<Selector>,
    /// Keys that could not be put in because the map was full.
    refused: u64,
}

pub(super) struct Admission {
    outer: ArrayOfMaps<MapData, FilterMap>,
    births: HashMap<MapData, u64, BirthRecord>,
    state: Array<MapData, u64>,
    /// Stands in the place of a filter that is gone, so that the gadget's map is released.
    vacant: FilterMap,
    slots: Vec<Option<Slot>>,
    /// `refused` of the filters that are gone.
    refused_before: u64,
}

impl Admission {
    pub(super) fn new(
        filters: Map,
        births: HashMap<MapData, u64, BirthRecord>,
        state: Array<MapData, u64>,
    ) -> Result<Self, ContainersError> {
        let error = |source| ContainersError::Map { map: "filters", source };
        let outer = ArrayOfMaps::try_from(filters).map_err(error)?;
        let vacant = FilterMap::create(1024, 0).map_err(error)?;
        Ok(Admission { outer, births, state, vacant, slots: (0..SLOTS).map(|_| None).collect(), refused_before: 0 })
    }

    /// Mount namespace of the machine's first process; 0 until some process has forked.
    pub(super) fn host_mntns(&self) -> u64 {
        self.state.get(&STATE_HOST_MNTNS, 0).unwrap_or_default()
    }

    pub(super) fn set_host_mntns(&mut self, mntns: u64) -> Result<(), ContainersError> {
        self.state.set(STATE_HOST_MNTNS, mntns, 0).map_err(|source| ContainersError::Map { map: "state", source })
    }

    /// Lets the kernel fill `map` from now on, and puts in what matches already.
    pub(super) fn add(
        &mut self,
        map: BorrowedFd<'_>,
        selector: Arc<Selector>,
        table: &Table,
    ) -> Result<usize, ContainersError> {
        let index =
            self.slots.iter().position(Option::is_none).ok_or(ContainersError::TooManyFilters { limit: SLOTS })?;
        let error = |source| ContainersError::Filter { source };
        let owned = map.try_clone_to_owned().map_err(|source| ContainersError::FilterFd { source })?;
        let map = Map::from_map_data(MapData::from_fd(owned).map_err(error)?).map_err(error)?;
        let map = FilterMap::try_from(map).map_err(error)?;
        self.outer.set(index as u32, &map, 0).map_err(error)?;
        self.slots[index] = Some(Slot { map, selector, refused: 0 });
        // Births from here on are the kernel's; those before are in the table, or come to it and then through `decide`.
        self.set_used().inspect_err(|_| self.slots[index] = None)?;
        if let Some(slot) = &mut self.slots[index] {
            for (mntns, generation) in table.present() {
                slot.apply(mntns, generation.birth, &generation.owner, &self.births);
            }
        }
        Ok(index)
    }

    pub(super) fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.refused_before += slot.refused;
        // Both can only fail if the tracker's own maps are broken; then the gadget's map lives a little longer.
        drop(self.set_used());
        drop(self.outer.set(index as u32, &self.vacant, 0));
    }

    fn set_used(&mut self) -> Result<(), ContainersError> {
        let used = self.slots.iter().enumerate().filter(|(_, s)| s.is_some()).fold(0u64, |m, (i, _)| m | 1 << i);
        self.state.set(STATE_USED, used, 0).map_err(|source| ContainersError::Map { map: "state", source })
    }

    /// Brings every filter in line with what is now known of this generation.
    pub(super) fn decide(&mut self, mntns: u64, birth: u64, owner: &Owner) {
        for slot in self.slots.iter_mut().flatten() {
            slot.apply(mntns, birth, owner, &self.births);
        }
    }

    /// The generation is over: takes its key out of every filter.
    pub(super) fn retire(&mut self, mntns: u64, birth: u64) {
        for slot in self.slots.iter_mut().flatten() {
            slot.delete(mntns, birth, &self.births);
        }
    }

    /// Keys that found a filter map full.
    pub(super) fn refused(&self) -> u64 {
        self.refused_before + self.slots.iter().flatten().map(|s| s.refused).sum::<u64>()
    }
}

/// Whether a namespace's events are to reach the gadget.
fn wanted(selector: &Selector, owner: &Owner) -> bool {
    match owner {
        Owner::Host => false,
        Owner::Container(c) => selector.verdict(c) != Verdict::No,
    }
}

impl Slot {
    fn apply(&mut self, mntns: u64, birth: u64, owner: &Owner, births: &HashMap<MapData, u64, BirthRecord>) {
        if !wanted(&self.selector, owner) {
            self.delete(mntns, birth, births);
        } else if self.map.insert(mntns, 1, 0).is_err() {
            self.refused += 1;
        }
    }

    fn delete(&mut self, mntns: u64, birth: u64, births: &HashMap<MapData, u64, BirthRecord>) {
        // An absent key is what is wanted; no other failure is possible with a map of the right shape.
        drop(self.map.remove(&mntns));
        let reborn = births.get(&mntns, 0).is_ok_and(|[time, ..]| time > birth);
        if reborn && self.map.insert(mntns, 1, 0).is_err() {
            self.refused += 1;
        }
    }
}
