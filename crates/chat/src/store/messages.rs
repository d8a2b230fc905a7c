//! Reads the messages of a session, in pieces that are bounded by bytes.

use std::sync::Arc;

use common::{
    identity::Owner,
    store::{Bytes, Read, StoreError},
};

use crate::{
    domain::{Message, MessageId, Role, SessionId},
    offload,
    store::{
        StoreContext,
        codec::decode,
        keys::Keys,
        message_sizes::{MessageSize, READ_SIZE, UNKNOWN_STEP, decode_sizes, fitting},
        sessions::{SessionStore, SessionTail, StoredSession},
        signed,
    },
};

/// Sizes that are looked at for one read.
const SIZES: u64 = 1000;

/// From this size on, a read has a connection of its own: what waits behind it on the shared one would wait too long.
pub(super) const BULK_SIZE: usize = 64 * 1024;

/// How much of a session's history is read for a prompt: until one of the two is reached.
#[derive(Clone, Copy, Debug)]
pub struct TailLimit {
    pub messages: usize,
    /// Bytes of text.
    pub bytes: usize,
    pub at_least: usize,
}

impl SessionStore<'_> {
    /// A session with the newest of its messages, as many as a prompt can hold.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the session's record cannot be read.
    pub async fn with_tail(
        &self,
        owner: &Owner,
        id: &SessionId,
        limit: TailLimit,
    ) -> Result<SessionTail, StoreError> {
        let keys = Keys::of(owner);
        let reads = vec![
            Read::Value(keys.session(id)),
            Read::Length(keys.messages(id)),
            Read::Value(keys.system_prompt(id)),
            Read::Length(keys.message_sizes(id)),
            Read::Items {
                key: keys.message_sizes(id),
                start: -signed(limit.messages as u64),
                stop: -1,
            },
        ];
        let mut found = self.context.store.read(reads).await?;
        let Some(session) = StoredSession::found(&mut found)? else {
            return Ok(SessionTail::default());
        };
        let (count, stored) = (session.session.message_count, self.messages(owner, id));
        let sizes = found.items(4);
        let first = sizes.len().saturating_sub(count as usize);
        let is_complete = found.count(3) == count + 1 || count == 0;
        let sizes = decode_sizes(&sizes[first..]).filter(|_| is_complete);
        let messages = match sizes {
            Some(sizes) => {
                let all = fitting(sizes.iter().rev().map(|size| size.text), limit.bytes);
                let all = all.max(limit.at_least).min(sizes.len());
                let sizes = &sizes[sizes.len() - all..];
                stored.read_sized(count, sizes).await?
            }
            None => {
                let oldest = count.saturating_sub(limit.messages as u64);
                let bytes = limit.bytes.max(1);
                stored.read_unsized(oldest, count, bytes).await?.0
            }
        };
        Ok(SessionTail {
            session: Some(session),
            messages: messages.into_iter().map(Arc::new).collect(),
        })
    }

    pub fn messages<'a>(&'a self, owner: &Owner, id: &'a SessionId) -> SessionMessages<'a> {
        SessionMessages { context: self.context, keys: Keys::of(owner), id }
    }
}

pub struct SessionMessages<'a> {
    context: &'a StoreContext,
    keys: Keys,
    id: &'a SessionId,
}

impl SessionMessages<'_> {
    /// The newest messages before position `end`, oldest first, and the position of the first: at most `limit`, and no more than
    /// one read returns.
    pub async fn before(&self, end: u64, limit: u64) -> Result<(Vec<Message>, u64), StoreError> {
        let oldest = end.saturating_sub(limit);
        if oldest == end {
            return Ok((Vec::new(), end));
        }
        let Some(sizes) = self.sizes(oldest, end - 1).await? else {
            return self.read_unsized(oldest, end, READ_SIZE).await;
        };
        let all = fitting(sizes.iter().rev().map(|size| size.record), READ_SIZE).max(1);
        let read = &sizes[sizes.len().saturating_sub(all)..];
        let start = end - read.len() as u64;
        Ok((self.read_messages(start, read).await?, start))
    }

    /// The messages from position `start` on, up to `end`, and the position after the last: no more than one read returns.
    pub async fn after(&self, start: u64, end: u64) -> Result<(Vec<Message>, u64), StoreError> {
        let end = end.min(start.saturating_add(SIZES));
        if start >= end {
            return Ok((Vec::new(), end));
        }
        let sizes = match self.sizes(start, end - 1).await? {
            Some(sizes) => sizes,
            None => vec![MessageSize::UNKNOWN; UNKNOWN_STEP],
        };
        let all = fitting(sizes.iter().map(|size| size.record), READ_SIZE).max(1);
        let read = sizes.get(..all).unwrap_or(&sizes);
        let messages = self.read_messages(start, read).await?;
        Ok((messages, start + read.len().max(1) as u64))
    }

    /// The message of that id; `None` where it is gone or was replaced.
    pub async fn by_id(&self, id: &MessageId) -> Result<Option<Message>, StoreError> {
        let at = id.position();
        let (found, _) = self.after(at, at + 1).await?;
        Ok(found.into_iter().find(|message| message.id == *id))
    }

    /// The id of the answer that stands where that one stood or stands.
    pub async fn answer_at(&self, id: &MessageId) -> Result<Option<MessageId>, StoreError> {
        let at = id.position();
        let (found, _) = self.after(at, at + 1).await?;
        let answer = found.into_iter().find(|message| message.role == Role::Assistant);
        Ok(answer.map(|message| message.id).filter(|found| found.position() == at))
    }

    /// The sizes of the messages from `start` to `stop`, both included; `None` where not every message has one.
    async fn sizes(&self, start: u64, stop: u64) -> Result<Option<Vec<MessageSize>>, StoreError> {
        let reads = vec![
            Read::Items {
                key: self.keys.message_sizes(self.id),
                start: signed(start) + 1,
                stop: signed(stop) + 1,
            },
            Read::Length(self.keys.message_sizes(self.id)),
            Read::Length(self.keys.messages(self.id)),
        ];
        let mut found = self.context.store.read(reads).await?;
        let is_complete = found.count(1) == found.count(2) + 1;
        Ok(decode_sizes(&found.items(0)).filter(|_| is_complete))
    }

    /// The messages before `end` that have these sizes, newest piece first, so that no read is large.
    async fn read_sized(
        &self,
        end: u64,
        mut sizes: &[MessageSize],
    ) -> Result<Vec<Message>, StoreError> {
        let (mut pieces, mut end) = (Vec::new(), end);
        while !sizes.is_empty() {
            let step = fitting(sizes.iter().rev().map(|size| size.record), READ_SIZE).max(1);
            let (older, read) = sizes.split_at(sizes.len() - step);
            end = end.saturating_sub(step as u64);
            pieces.push(self.read_messages(end, read).await?);
            sizes = older;
        }
        Ok(pieces.into_iter().rev().flatten().collect())
    }

    /// The newest messages from `oldest` on and before `end` until that many bytes are read, and the position of the first: where
    /// their sizes are not known, in steps judged by the messages before.
    async fn read_unsized(
        &self,
        oldest: u64,
        end: u64,
        bytes: usize,
    ) -> Result<(Vec<Message>, u64), StoreError> {
        let (mut pieces, mut start, mut size, mut count) = (Vec::new(), end, 0, 0);
        while start > oldest && size < bytes {
            let average = size.checked_div(count).map(|average| average + 1);
            let step = average
                .map_or(UNKNOWN_STEP, |average| ((bytes - size).min(READ_SIZE) / average).max(1));
            let step = start.saturating_sub(step as u64).max(oldest)..start;
            start = step.start;
            let read = vec![MessageSize::UNKNOWN; (step.end - step.start) as usize];
            let piece = self.read_messages(start, &read).await?;
            size += piece.iter().map(Message::size).sum::<usize>();
            count += piece.len();
            pieces.push(piece);
        }
        Ok((pieces.into_iter().rev().flatten().collect(), start))
    }

    /// The messages from `start` on that have these sizes.
    async fn read_messages(
        &self,
        start: u64,
        sizes: &[MessageSize],
    ) -> Result<Vec<Message>, StoreError> {
        let size: usize = sizes.iter().map(|size| size.record).sum();
        let read = vec![Read::Items {
            key: self.keys.messages(self.id),
            start: signed(start),
            stop: signed(start + sizes.len() as u64) - 1,
        }];
        let store = &self.context.store;
        let mut found =
            if size > BULK_SIZE { store.read_bulk(read).await? } else { store.read(read).await? };
        let items = found.items(0);
        let size: usize = items.iter().map(Bytes::len).sum();
        let count = items.len();
        let decode = move || items.iter().filter_map(|item| decode(item)).collect();
        let messages: Vec<Message> = offload::by_size(size, decode)
            .await
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        // One that cannot be read hides nothing but itself.
        let skipped = count - messages.len();
        if skipped > 0 {
            metrics::counter!("history_records_skipped_total").increment(skipped as u64);
            tracing::warn!(skipped, "skipped stored messages that cannot be read");
        }
        Ok(messages)
    }
}
