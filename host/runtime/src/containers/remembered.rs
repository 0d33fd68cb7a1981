//! A map that forgets what it was told first once it is full: for the words of those who may talk without end.
//!
//! Used on the containers' thread only.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;

pub(super) struct Remembered<V> {
    values: FxHashMap<Box<str>, V>,
    /// Keys in order of arrival; some may be gone already.
    order: VecDeque<Box<str>>,
    room: usize,
}

impl<V> Remembered<V> {
    pub(super) fn new(room: usize) -> Self {
        Remembered { values: FxHashMap::default(), order: VecDeque::new(), room }
    }

    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.values.get(key)
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    pub(super) fn insert(&mut self, key: Box<str>, value: V) {
        if let Some(known) = self.values.get_mut(&key) {
            *known = value;
            return;
        }
        // Keys that were removed stay in the order until their turn comes, so that it is the order that is bounded.
        while self.order.len() >= self.room {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
        self.order.push_back(key.clone());
        self.values.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_what_was_removed_makes_room_in_time() {
        let mut r = Remembered::new(2);
        r.insert("a".into(), 1);
        r.insert("b".into(), 2);
        r.insert("a".into(), 3);
        r.insert("c".into(), 4);
        assert_eq!((r.get("a"), r.get("b"), r.get("c")), (None, Some(&2), Some(&4)));
        r.remove("c");
        r.insert("d".into(), 5);
        r.insert("e".into(), 6);
        assert_eq!((r.get("c"), r.get("d"), r.get("e")), (None, Some(&5), Some(&6)));
        assert!(r.values.len() <= 2 && r.order.len() <= 2);
    }
}
