//! Sessions as their owner sees them: list, read, change, delete, page by page.

use std::{sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::identity::Owner;

use crate::{
    domain::{Message, NewSession, Session, SessionChange, SessionId, StopReason},
    error::ChatError,
    events::{recovery::Recovery, registry::Registry},
    store::{ChatStore, delete::Deleted},
};

/// A page of something, and where the next one begins.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to ask for the next with; `None` on the last.
    pub next_cursor: Option<String>,
}

/// A place in the list of sessions: a time of last use and the session that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCursor(i64, String);

impl SessionCursor {
    pub fn parse(text: &str) -> Option<Self> {
        let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (at, id) = decoded.split_once(' ')?;
        Some(Self(at.parse().ok()?, SessionId::parse(id)?.to_string()))
    }

    fn text(at: i64, id: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{at} {id}"))
    }

    /// As it is written, for the fuzz targets.
    #[cfg(fuzzing)]
    pub fn written(&self) -> String {
        Self::text(self.0, &self.1)
    }
}

/// A place in a session: messages before that position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageCursor(u64);

impl MessageCursor {
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
        is_number.then(|| text.parse().ok().map(Self)).flatten()
    }
}

#[derive(Clone)]
pub struct SessionService {
    store: ChatStore,
    registry: Arc<Registry>,
    recovery: Recovery,
}

impl SessionService {
    pub fn new(store: ChatStore, registry: Arc<Registry>, recovery: Recovery) -> Self {
        Self { store, registry, recovery }
    }

    /// The owner's sessions, newest first.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn list(
        &self,
        owner: &Owner,
        cursor: Option<SessionCursor>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page<(SessionId, Session)>, ChatError> {
        let before = cursor.map(|SessionCursor(at, id)| (at, id));
        let listed = self.store.by(deadline).sessions().list(owner, before, limit).await?;
        let last = listed.rows.last().filter(|_| listed.more);
        let next_cursor = last.map(|(id, at, _)| SessionCursor::text(*at, id.as_str()));
        let items =
            listed.rows.into_iter().filter_map(|(id, _, session)| Some((id, session?))).collect();
        Ok(Page { items, next_cursor })
    }

    /// Creates a session without a message.
    ///
    /// # Errors
    /// [`ChatError::SessionExists`].
    pub async fn create(
        &self,
        owner: &Owner,
        id: &SessionId,
        new: NewSession,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        let store = self.store.by(deadline);
        let created = store.sessions().create(owner, id, new).await?;
        let created = created.ok_or(ChatError::SessionExists)?;
        // What is left is shed by the next one.
        let _ = store.sessions().shed_expired(owner).await;
        Ok(created)
    }

    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn get(
        &self,
        owner: &Owner,
        id: &SessionId,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        let stored = self.store.by(deadline).sessions().get(owner, id).await?;
        stored.map(|stored| stored.session).ok_or(ChatError::SessionNotFound)
    }

    /// Changes a session's title, model or system prompt.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn change(
        &self,
        owner: &Owner,
        id: &SessionId,
        change: &SessionChange,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        let store = self.store.by(deadline);
        store.sessions().change(owner, id, change).await?.ok_or(ChatError::SessionNotFound)
    }

    /// Deletes a session; a turn that is being answered in it ends with `session_not_found`. Without a deadline each call to the
    /// store has its own.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn delete(
        &self,
        owner: &Owner,
        id: &SessionId,
        deadline: Option<Instant>,
    ) -> Result<(), ChatError> {
        let store = deadline.map_or_else(|| self.store.clone(), |deadline| self.store.by(deadline));
        match store.sessions().delete(owner, id).await? {
            Deleted::NotFound => Err(ChatError::SessionNotFound),
            Deleted::Yes(open) => {
                if let Some(turn) = open.and_then(|open| self.registry.get(owner, &open.id)) {
                    turn.stop(StopReason::SessionDeleted);
                }
                Ok(())
            }
        }
    }

    /// The newest messages before the cursor, oldest first. May be fewer than `limit`: pages are bounded by bytes.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn messages(
        &self,
        owner: &Owner,
        id: &SessionId,
        before: Option<MessageCursor>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Page<Message>, ChatError> {
        let session = self.get_settled(owner, id, deadline).await?;
        let end = before.map_or(session.message_count, |MessageCursor(before)| {
            before.min(session.message_count)
        });
        let store = self.store.by(deadline);
        let (items, start) = store.sessions().messages(owner, id).before(end, limit).await?;
        Ok(Page { items, next_cursor: (start > 0).then(|| start.to_string()) })
    }

    /// Messages from position `start` on, up to `end`, as many as one read returns, and the position after the last: for an
    /// export, which reads from the oldest.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn messages_after(
        &self,
        owner: &Owner,
        id: &SessionId,
        start: u64,
        end: u64,
    ) -> Result<(Vec<Message>, u64), ChatError> {
        let store = self.store.sessions();
        Ok(store.messages(owner, id).after(start, end).await?)
    }

    /// The session, after the turn of a dead instance was closed: whoever reads the history must find what is left of that answer.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn get_settled(
        &self,
        owner: &Owner,
        id: &SessionId,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        let session = self.get(owner, id, deadline).await?;
        let Some(open) = &session.open else { return Ok(session) };
        if self.registry.get(owner, &open.id).is_some() {
            return Ok(session);
        }
        let store = self.store.by(deadline);
        if store.turns().get(owner, id, &open.id).await?.state.is_dead() {
            self.recovery.close_dead(&store, owner, id, &open.id).await?;
        }
        self.get(owner, id, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_garbage_does_not() {
        let id = SessionId::default_session();
        assert_eq!(
            SessionCursor::parse(&SessionCursor::text(-5, id.as_str())),
            Some(SessionCursor(-5, id.to_string()))
        );
        for text in [
            "",
            "x",
            "AAAA",
            "!!",
            &URL_SAFE_NO_PAD.encode("5 a b"),
            &URL_SAFE_NO_PAD.encode("x default"),
        ] {
            assert_eq!(SessionCursor::parse(text), None, "{text}");
        }
        for text in ["", "-1", "+1", "1e9", "9999999999999"] {
            assert_eq!(MessageCursor::parse(text), None, "{text}");
        }
    }
}
