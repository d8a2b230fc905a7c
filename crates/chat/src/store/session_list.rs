//! The index of a user's sessions by last use.

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{Session, SessionId},
    store::{
        keys::Keys,
        sessions::{SessionStore, StoredSession},
    },
};

const STEP: usize = 64;

/// Bytes of records at which a page ends before its limit.
const PAGE_SIZE: usize = 256 * 1024;

/// Expired ids taken out of the index for each session that begins: more than one, so that it shrinks.
const SHED: usize = 16;

/// A row of the list of sessions: its id, the time of its last use, and the session unless it has expired or cannot be read.
pub type ListedSession = (SessionId, i64, Option<Session>);

/// A page of the list of sessions.
#[derive(Debug, Default)]
pub struct SessionRows {
    pub rows: Vec<ListedSession>,
    /// Whether there may be more after the last row.
    pub more: bool,
}

impl SessionStore<'_> {
    /// Sessions by last use, newest first, after `before` (the time of last use and the id of the last row seen).
    pub async fn list(
        &self,
        owner: &Owner,
        before: Option<(i64, String)>,
        limit: usize,
    ) -> Result<SessionRows, StoreError> {
        let keys = Keys::of(owner);
        let read = Read::Newest { key: keys.sessions(), before, limit };
        let members = self.context.store.read(vec![read]).await?.members(0);
        let (count, mut rows, mut size) = (members.len(), Vec::with_capacity(members.len()), 0);
        let ids: Vec<(SessionId, i64)> = members
            .into_iter()
            .filter_map(|(id, score)| Some((SessionId::parse(&id)?, score)))
            .collect();
        for ids in ids.chunks(STEP) {
            size += self.read_rows(&keys, ids, &mut rows).await?;
            if size >= PAGE_SIZE {
                break;
            }
        }
        let expired = rows.iter().filter(|(_, _, session)| session.is_none());
        let expired: Vec<SessionId> = expired.map(|(id, _, _)| id.clone()).collect();
        // If that fails, the next listing tries again.
        let _ = self.forget_expired(&keys, &expired).await;
        Ok(SessionRows { more: count >= limit || rows.len() < ids.len(), rows })
    }

    /// Reads these sessions; returns how many bytes they were.
    async fn read_rows(
        &self,
        keys: &Keys,
        ids: &[(SessionId, i64)],
        rows: &mut Vec<ListedSession>,
    ) -> Result<usize, StoreError> {
        let reads = ids
            .iter()
            .flat_map(|(id, _)| [Read::Value(keys.session(id)), Read::Length(keys.messages(id))]);
        let mut found = self.context.store.read(reads.collect()).await?;
        let mut size = 0;
        for (i, (id, at)) in ids.iter().enumerate() {
            let record = found.value(2 * i);
            size += record.as_ref().map_or(0, Bytes::len);
            let stored = record
                .and_then(|record| StoredSession::decode(record, None, found.count(2 * i + 1)));
            rows.push((id.clone(), *at, stored.map(|stored| stored.session)));
        }
        Ok(size)
    }

    /// Takes ids of expired sessions out of the index.
    async fn forget_expired(&self, keys: &Keys, ids: &[SessionId]) -> Result<(), StoreError> {
        for id in ids {
            let txn = Txn::relaxed()
                .check(Check::Absent(keys.session(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            self.context.store.commit(txn).await?;
        }
        Ok(())
    }

    /// Takes some ids of expired sessions out of the index, the least used first: called for each session that begins, so that the
    /// index does not grow where nobody lists it.
    pub async fn shed_expired(&self, owner: &Owner) -> Result<(), StoreError> {
        let Some(ttl) = self.context.session_ttl else { return Ok(()) };
        let keys = Keys::of(owner);
        let read = Read::Since { key: keys.sessions(), score: 0, limit: SHED };
        let unused_since = clock::now_ms() - i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let oldest = self.context.store.read(vec![read]).await?.members(0);
        let unused = oldest.into_iter().filter(|(_, at)| *at < unused_since);
        let unused: Vec<SessionId> = unused.filter_map(|(id, _)| SessionId::parse(&id)).collect();
        self.forget_expired(&keys, &unused).await
    }
}
