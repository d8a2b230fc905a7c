//! What instances tell each other: an inbox an instance, and marks of remote subscribers.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Bytes, Check, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::MessageId,
    store::{
        Context,
        codec::{decode, encode},
        keys,
        keys::Keys,
    },
};

/// How long a request waits for an instance that does not read its inbox.
const INBOX_TTL: Duration = Duration::from_secs(60);

/// How long a remote subscriber's mark holds.
const WATCHED_TTL: Duration = Duration::from_secs(3);

/// A request to another instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InboxRequest {
    /// Stop that turn.
    Cancel { message_id: MessageId },
}

/// Sends and receives what instances tell each other.
pub struct ControlStore<'a> {
    pub(super) context: &'a Context,
}

impl ControlStore<'_> {
    /// Puts a request into an instance's inbox, which it reads every 250 ms while turns run there. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may have been sent.
    pub async fn send(&self, instance: &str, request: &InboxRequest) -> Result<(), StoreError> {
        let key = keys::inbox(instance);
        let txn = Txn::relaxed()
            .op(Op::Push(key.clone(), encode(request)?))
            .op(Op::Expire(key, Some(INBOX_TTL)));
        self.context.store.commit(txn).await.map(drop)
    }

    /// Takes the requests to this instance. One that was sent twice may be returned twice.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn receive(&self) -> Result<Vec<InboxRequest>, StoreError> {
        let key = keys::inbox(&self.context.instance);
        let read = Read::Items {
            key: key.clone(),
            start: 0,
            stop: -1,
        };
        let items = self.context.store.read(vec![read]).await?.items(0);
        if !items.is_empty() {
            // Refused where more came meanwhile: then all of it is read again.
            let txn = Txn::relaxed()
                .check(Check::LengthIs(key.clone(), items.len() as u64))
                .op(Op::Delete(key));
            self.context.store.commit(txn).await?;
        }
        Ok(items.iter().filter_map(|item| decode(item)).collect())
    }

    /// Says for 3 s that a turn has a subscriber on an instance that does not run it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mark_watched(&self, owner: &Owner, id: &MessageId) -> Result<(), StoreError> {
        let key = Keys::of(owner).watched(id);
        let op = Op::Set {
            key,
            value: Bytes::from_static(b"1"),
            ttl: Some(WATCHED_TTL),
        };
        self.context.store.apply(vec![op]).await.map(drop)
    }

    /// Whether a turn has a subscriber on an instance that does not run it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn is_watched(&self, owner: &Owner, id: &MessageId) -> Result<bool, StoreError> {
        let read = Read::Value(Keys::of(owner).watched(id));
        Ok(self
            .context
            .store
            .read(vec![read])
            .await?
            .value(0)
            .is_some())
    }
}
