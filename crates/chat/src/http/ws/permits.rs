//! The number of open WebSockets of a user.

use std::{collections::HashMap, sync::Arc};

use common::identity::Owner;
use parking_lot::Mutex;

/// Limits the open WebSockets of each user on this instance.
#[derive(Clone, Debug)]
pub struct Sockets {
    most: usize,
    open: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// Counts one socket of a user until it is dropped.
#[derive(Debug)]
pub struct SocketPermit {
    sockets: Sockets,
    owner: Owner,
}

impl Sockets {
    pub fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// Counts one more socket of that user; `None` if there are too many.
    pub fn acquire(&self, owner: &Owner) -> Option<SocketPermit> {
        let mut open = self.open.lock();
        let count = open.entry(owner.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(SocketPermit { sockets: self.clone(), owner: owner.clone() })
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let mut open = self.sockets.open.lock();
        if let Some(count) = open.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.owner);
            }
        }
    }
}
