//! A small bounded memory of what was looked up lately: the newest half always stays.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Answers by SHA-256 of the question. At most twice `half` entries.
pub(super) struct Cache<V> {
    halves: Mutex<Halves<V>>,
    half: usize,
}

struct Halves<V> {
    young: HashMap<[u8; 32], V>,
    old: HashMap<[u8; 32], V>,
}

impl<V: Clone> Cache<V> {
    pub fn new(half: usize) -> Self {
        Self {
            halves: Mutex::new(Halves {
                young: HashMap::new(),
                old: HashMap::new(),
            }),
            half,
        }
    }

    pub fn get(&self, key: &[u8; 32]) -> Option<V> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves
            .young
            .get(key)
            .or_else(|| halves.old.get(key))
            .cloned()
    }

    pub fn put(&self, key: [u8; 32], value: V) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.young.len() >= self.half {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.old.remove(&key);
        halves.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_small_and_keeps_the_newest() {
        let cache = Cache::new(4);
        for n in 0..=255_u8 {
            cache.put([n; 32], n);
            assert_eq!(cache.get(&[n; 32]), Some(n));
            let halves = cache.halves.lock().unwrap();
            assert!(halves.young.len() + halves.old.len() <= 8);
        }
        assert!((252..=255_u8).all(|n| cache.get(&[n; 32]) == Some(n)));
        assert_eq!(cache.get(&[0; 32]), None);
    }
}
