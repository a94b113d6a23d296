//! Things by key, where a key of what is gone never finds what came after it: the kernel may still report an event.

/// Which thing. 60 bits: place and how often the place was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// The things of one kind.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<(u64, Option<T>)>,
    free: Vec<usize>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    pub(super) fn insert(&mut self, thing: T) -> Key {
        let place = self.free.pop().unwrap_or(self.slots.len());
        if place == self.slots.len() {
            self.slots.push((0, None));
        }
        let Some((uses, slot)) = self.slots.get_mut(place) else { return Key(u64::MAX) };
        *slot = Some(thing);
        Key((*uses << 32) | u64::try_from(place).unwrap_or(u64::from(u32::MAX)))
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let (place, uses) = parts(key);
        self.slots.get(place).filter(|slot| slot.0 == uses)?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (place, uses) = parts(key);
        self.slots.get_mut(place).filter(|slot| slot.0 == uses)?.1.as_mut()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let (place, uses) = parts(key);
        let slot = self.slots.get_mut(place).filter(|slot| slot.0 == uses)?;
        let thing = slot.1.take()?;
        slot.0 = (uses + 1) & USES;
        self.free.push(place);
        Some(thing)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(place, (uses, thing))| {
            let place = u64::try_from(place).ok()?;
            Some((Key((uses << 32) | place), thing.as_ref()?))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }
}

fn parts(key: Key) -> (usize, u64) {
    let place = usize::try_from(key.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    (place, key.0 >> 32)
}

/// 28 bits of a key count the uses; the four above are the event loop's.
const USES: u64 = (1 << 28) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_what_is_gone_finds_nothing() {
        let mut arena = Arena::default();
        let one = arena.insert('a');
        assert_eq!((arena.get(one), arena.len()), (Some(&'a'), 1));
        assert_eq!(arena.remove(one), Some('a'));
        let two = arena.insert('b');
        assert_eq!(arena.get(one), None);
        assert_eq!(arena.remove(one), None);
        assert_eq!(arena.get_mut(two), Some(&mut 'b'));
        assert_eq!(arena.iter().collect::<Vec<_>>(), [(two, &'b')]);
    }

    /// The event loop's own bits stay free, and a count that ends begins anew.
    #[test]
    fn a_place_may_be_used_without_end() {
        let mut arena = Arena::default();
        let first = arena.insert('a');
        arena.remove(first);
        arena.slots[0].0 = USES;
        let last = arena.insert('z');
        assert_eq!((last.0 >> 60, arena.get(last)), (0, Some(&'z')));
        assert_eq!(arena.remove(last), Some('z'));
        let again = arena.insert('b');
        assert_eq!((again, arena.get(last), arena.get(again)), (first, None, Some(&'b')));
        // Each in a place of its own.
        let other = arena.insert('c');
        assert_eq!((arena.len(), arena.get(again), arena.get(other)), (2, Some(&'b'), Some(&'c')));
    }
}
