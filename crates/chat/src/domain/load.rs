//! How busy a model server is.

use std::collections::BTreeMap;

use common::identity::UserId;
use serde::{Deserialize, Serialize};

/// What a request to a model server is; answers go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Answers,
    Embeddings,
}

/// What one instance has at a provider.
pub type InstanceLoad = BTreeMap<(Lane, UserId), UserLoad>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLoad {
    pub running: usize,
    pub waiting: usize,
    /// When the user last got or gave back a slot, or began to wait: Unix milliseconds.
    pub turn: i64,
}
