//! What instances ask of each other: a list for each instance, emptied by it while it has turns running.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Bytes, Check, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::MessageId,
    store::{
        Repository, encode,
        keys::{self, Keys},
    },
};

/// How long a request waits for an instance that does not look.
const INBOX_TTL: Duration = Duration::from_secs(60);

/// How long a watcher on another instance counts as there after it last said so.
const WATCHED_TTL: Duration = Duration::from_secs(3);

/// What one instance asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Stop that turn.
    Cancel(MessageId),
}

impl Repository {
    /// Asks something of an instance; it looks within 250 ms while it lives. Safe to repeat.
    pub async fn ask(&self, instance: &str, request: &Request) -> Result<(), StoreError> {
        let key = keys::inbox(instance);
        let txn = Txn::relaxed()
            .op(Op::Push(key.clone(), encode(request)?))
            .op(Op::Expire(key, Some(INBOX_TTL)));
        self.store.commit(txn).await.map(|_| ())
    }

    /// Takes what was asked of that instance. What is asked twice may be handed over twice.
    pub async fn take_inbox(&self, instance: &str) -> Result<Vec<Request>, StoreError> {
        let key = keys::inbox(instance);
        let read = Read::Items {
            key: key.clone(),
            start: 0,
            stop: -1,
        };
        let items = self.store.read(vec![read]).await?.items(0);
        if !items.is_empty() {
            // Refused where more came meanwhile: all of it is read again.
            let txn = Txn::relaxed()
                .check(Check::LengthIs(key.clone(), items.len() as u64))
                .op(Op::Delete(key));
            self.store.commit(txn).await?;
        }
        Ok(items
            .iter()
            .filter_map(|item| serde_json::from_slice(item).ok())
            .collect())
    }

    /// Says that somebody watches a turn from an instance that does not run it; holds for 3 s.
    pub async fn say_watched(&self, owner: &Owner, id: &MessageId) -> Result<(), StoreError> {
        let key = Keys::of(owner).watched(id);
        let op = Op::Set {
            key,
            value: Bytes::from_static(b"1"),
            ttl: Some(WATCHED_TTL),
        };
        self.store.apply(vec![op]).await.map(|_| ())
    }

    /// Whether somebody watches a turn from an instance that does not run it.
    pub async fn is_watched(&self, owner: &Owner, id: &MessageId) -> Result<bool, StoreError> {
        let read = Read::Value(Keys::of(owner).watched(id));
        Ok(self.store.read(vec![read]).await?.value(0).is_some())
    }
}
