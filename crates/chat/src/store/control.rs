//! What instances tell each other: an inbox an instance.

use std::time::Duration;

use common::store::{Check, Op, Read, StoreError, Txn};
use serde::{Deserialize, Serialize};

use crate::{
    domain::MessageId,
    store::{
        StoreContext,
        codec::{decode, encode},
        events::{EventBatch, StoredEvents},
        keys,
    },
};

/// How long a request waits for an instance that does not read its inbox.
const INBOX_TTL: Duration = Duration::from_secs(60);

/// Most bytes of new events that are sent to whoever watches a turn; of more they are told, and read them in the store.
const PROGRESS_SIZE: usize = 8 * 1024;

/// A request to another instance, or news for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InboxRequest {
    Cancel {
        message_id: MessageId,
    },
    /// These of the receiver's turns, and no others, have subscribers on that instance; said again every second.
    Watch {
        instance: String,
        turns: Vec<MessageId>,
    },
    /// What has become of turns that the receiver watches.
    Progress {
        turns: Vec<TurnProgress>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnProgress {
    pub id: MessageId,
    pub last_event_id: u64,
    /// The newest events as they are stored, if they are short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lines: Option<String>,
}

impl TurnProgress {
    pub fn new(id: MessageId, last_event_id: u64, batch: &EventBatch) -> Self {
        let fits = !batch.is_empty() && batch.size() <= PROGRESS_SIZE;
        Self { id, last_event_id, lines: fits.then(|| batch.lines()) }
    }

    pub fn events(&self) -> Option<StoredEvents> {
        let lines = self.lines.clone()?;
        Some(StoredEvents::decode(&[lines.into()]))
    }
}

/// Sends and receives what instances tell each other.
pub struct ControlStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl ControlStore<'_> {
    /// Puts a request into an instance's inbox, which it reads several times a second while turns run or are followed there.
    /// Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may have been sent.
    pub async fn send(&self, instance: &str, request: &InboxRequest) -> Result<(), StoreError> {
        let txn = Txn::relaxed().ops(send(instance, request)?);
        self.context.store.commit(txn).await.map(drop)
    }

    /// Takes the requests to this instance. One that was sent twice may be returned twice.
    pub async fn receive(&self) -> Result<Vec<InboxRequest>, StoreError> {
        let key = keys::inbox(&self.context.instance);
        let read = Read::Items { key: key.clone(), start: 0, stop: -1 };
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
}

/// What puts a request into an instance's inbox.
pub(super) fn send(instance: &str, request: &InboxRequest) -> Result<[Op; 2], StoreError> {
    let key = keys::inbox(instance);
    Ok([Op::Push(key.clone(), encode(request)?), Op::Expire(key, Some(INBOX_TTL))])
}
