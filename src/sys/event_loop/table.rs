//! The sessions of a loop by their keys, as in a [`Slab`](slab::Slab), but that memory goes back when they have become few.
//!
//! A slab that is empty frees its storage as a whole. glibc takes a large block that is freed for a sign that more of that size
//! will come (mallopt(3), `M_MMAP_THRESHOLD`): from then on it has such blocks on its heap, of which it gives nothing back
//! until twice that size is free at the end. A block that is made smaller goes back at once, as often as that happens.

const NONE: usize = usize::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Table<T> {
    places: Vec<Place<T>>,
    /// The place that is taken next, or else a new one at the end.
    vacant: usize,
    taken: usize,
}

#[derive(Debug)]
pub(super) enum Place<T> {
    Taken(T),
    /// And the next such place.
    Vacant(usize),
}

impl<T> Place<T> {
    fn value(&self) -> Option<&T> {
        match self {
            Place::Taken(value) => Some(value),
            Place::Vacant(_) => None,
        }
    }

    fn value_mut(&mut self) -> Option<&mut T> {
        match self {
            Place::Taken(value) => Some(value),
            Place::Vacant(_) => None,
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { places: Vec::new(), vacant: NONE, taken: 0 }
    }
}

impl<T> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// All keys are smaller.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, key: usize) -> Option<&T> {
        self.places.get(key)?.value()
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.places.get_mut(key)?.value_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().enumerate().filter_map(|(key, place)| Some((key, place.value()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(key, place)| Some((key, place.value_mut()?)))
    }

    /// The key of what is inserted next.
    pub(super) fn next_key(&self) -> usize {
        self.vacant.min(self.places.len())
    }

    /// Puts it where [`Table::next_key`] says.
    pub(super) fn insert(&mut self, value: T) {
        match self.places.get_mut(self.vacant) {
            Some(place) => {
                if let Place::Vacant(next) = std::mem::replace(place, Place::Taken(value)) {
                    self.vacant = next;
                }
            }
            None => self.places.push(Place::Taken(value)),
        }
        self.taken += 1;
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<T> {
        let place = self.places.get_mut(key)?;
        place.value()?;
        let Place::Taken(value) = std::mem::replace(place, Place::Vacant(self.vacant)) else { return None };
        self.vacant = key;
        self.taken -= 1;
        Some(value)
    }

    /// Gives back the places behind the last one that is taken. The first of those before it are taken first from now on, so that
    /// there are more the next time.
    pub(super) fn shrink(&mut self) {
        let used = self.places.iter().rposition(|place| place.value().is_some()).map_or(0, |last| last + 1);
        if used < self.places.len() {
            self.places.truncate(used);
            give_back(&mut self.places);
        }
        self.vacant = NONE;
        for (key, place) in self.places.iter_mut().enumerate().rev() {
            if let Place::Vacant(next) = place {
                *next = std::mem::replace(&mut self.vacant, key);
            }
        }
    }
}

/// Gives back what is behind the last entry. A block of which nothing is needed is small before it is freed: see above.
pub(super) fn give_back<T>(entries: &mut Vec<T>) {
    entries.shrink_to(1);
    entries.shrink_to_fit();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_map() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below) as usize
        };
        let mut table = Table::default();
        let mut model = BTreeMap::new();
        for number in 0..20_000 {
            match random(9) {
                0..4 => {
                    let key = table.next_key();
                    table.insert(number);
                    assert_eq!(model.insert(key, number), None, "the key was another's");
                }
                4..8 => {
                    let key = random(100);
                    assert_eq!(table.remove(key), model.remove(&key));
                }
                _ => {
                    table.shrink();
                    assert_eq!(table.places(), model.last_key_value().map_or(0, |(&last, _)| last + 1));
                    let first_free = (0..).find(|key| !model.contains_key(key)).unwrap();
                    assert_eq!(table.next_key(), first_free);
                }
            }
            let key = random(100);
            assert_eq!((table.get(key), table.len()), (model.get(&key), model.len()));
            assert_eq!(
                (table.get_mut(key).copied(), table.is_empty()),
                (model.get(&key).copied(), model.is_empty())
            );
            assert!(table.iter().eq(model.iter().map(|(&key, value)| (key, value))));
            assert!(table.iter_mut().map(|(key, value)| (key, *value)).eq(model.clone()));
        }
    }

    #[test]
    fn what_few_do_not_need_is_given_back() {
        let mut table = Table::default();
        (0..1000).for_each(|number| table.insert(number));
        (0..1000).filter(|key| *key != 99).for_each(|key| assert_eq!(table.remove(key), Some(key)));
        table.shrink();
        assert_eq!((table.get(99), table.places.capacity()), (Some(&99), 100));
        assert_eq!(table.next_key(), 0);
        assert_eq!(table.remove(99), Some(99));
        table.shrink();
        assert_eq!(table.places.capacity(), 0);
    }
}
