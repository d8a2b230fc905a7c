//! Sessions as their owner sees them: list, read, rename, delete, page by page.

use std::{sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{clock, identity::Owner};

pub use crate::store::sessions::{NewSession, SessionChange};
use crate::{
    domain::{
        SessionId,
        error::ChatError,
        records::{MessageRecord, Session},
    },
    store::{Repository, delete::Deleted, usage::DayUsage},
    turns::service::{Stop, Turns},
};

/// Messages read at a time: so few that even the longest come within a store call's patience.
pub const READ_STEP: u64 = 50;

/// Text, in bytes, at which a page of messages ends before its limit.
const PAGE_SIZE: usize = 16 * 1024 * 1024;

/// A page of something, and where the next one begins.
#[derive(Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to ask for the next with; `None` on the last.
    pub next_cursor: Option<String>,
}

/// A place in the list of sessions: a time of last use and the session that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCursor(i64, String);

impl SessionCursor {
    /// The cursor of that text.
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
    /// The cursor of that text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
        is_number.then(|| text.parse().ok().map(Self)).flatten()
    }
}

impl Turns {
    /// The owner's sessions, newest first.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn sessions(
        &self,
        owner: &Owner,
        cursor: Option<SessionCursor>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page<(SessionId, Session)>, ChatError> {
        let before = cursor.map(|SessionCursor(at, id)| (at, id));
        let listed = self
            .repository
            .by(deadline)
            .list(owner, before, limit)
            .await?;
        let next_cursor = match listed.last() {
            Some((id, at, _)) if listed.len() == limit => {
                Some(SessionCursor::text(*at, id.as_str()))
            }
            _ => None,
        };
        let items = listed
            .into_iter()
            .filter_map(|(id, _, session)| Some((id, session?)))
            .collect();
        Ok(Page { items, next_cursor })
    }

    /// Begins a session without a message.
    ///
    /// # Errors
    /// [`ChatError::SessionExists`].
    pub async fn create_session(
        &self,
        owner: &Owner,
        id: &SessionId,
        new: NewSession,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        self.repository
            .by(deadline)
            .create(owner, id, new)
            .await?
            .ok_or(ChatError::SessionExists)
    }

    /// One session.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn session(
        &self,
        owner: &Owner,
        id: &SessionId,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        self.repository
            .by(deadline)
            .view(owner, id, 0)
            .await?
            .session
            .ok_or(ChatError::SessionNotFound)
    }

    /// Changes a session's title, model or system prompt.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn change_session(
        &self,
        owner: &Owner,
        id: &SessionId,
        change: &SessionChange,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        self.repository
            .by(deadline)
            .change(owner, id, change)
            .await?
            .ok_or(ChatError::SessionNotFound)
    }

    /// Deletes a session; a turn that is being answered in it ends with `session_not_found`.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn delete_session(
        &self,
        owner: &Owner,
        id: &SessionId,
        deadline: Instant,
    ) -> Result<(), ChatError> {
        self.remove_session(&self.repository.by(deadline), owner, id)
            .await
    }

    pub(crate) async fn remove_session(
        &self,
        repository: &Repository,
        owner: &Owner,
        id: &SessionId,
    ) -> Result<(), ChatError> {
        match repository.delete(owner, id).await? {
            Deleted::NotFound => Err(ChatError::SessionNotFound),
            Deleted::Yes(open) => {
                if let Some(turn) = open.and_then(|open| self.local(owner, &open.id)) {
                    turn.stop(Stop::Deleted);
                }
                Ok(())
            }
        }
    }

    /// The newest messages before the cursor, oldest first.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn messages(
        self: &Arc<Self>,
        owner: &Owner,
        id: &SessionId,
        before: Option<MessageCursor>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Page<MessageRecord>, ChatError> {
        let session = self.settled(owner, id, deadline).await?;
        let end = before.map_or(session.count, |MessageCursor(before)| {
            before.min(session.count)
        });
        let (repository, oldest) = (self.repository.by(deadline), end.saturating_sub(limit));
        let (mut reads, mut start, mut size) = (Vec::new(), end, 0);
        while start > oldest && size < PAGE_SIZE {
            let stop = start - 1;
            start = start.saturating_sub(READ_STEP).max(oldest);
            let read = repository.messages(owner, id, start, stop).await?;
            size += read.iter().map(MessageRecord::size).sum::<usize>();
            reads.push(read);
        }
        Ok(Page {
            items: reads.into_iter().rev().flatten().collect(),
            next_cursor: (start > 0).then(|| start.to_string()),
        })
    }

    /// Messages from that position on, at most `limit`: for an export, which reads from the oldest.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn messages_from(
        &self,
        owner: &Owner,
        id: &SessionId,
        start: u64,
        limit: u64,
    ) -> Result<Vec<MessageRecord>, ChatError> {
        Ok(self
            .repository
            .messages(owner, id, start, start.saturating_add(limit) - 1)
            .await?)
    }

    /// What the owner used since midnight UTC.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn usage_today(
        &self,
        owner: &Owner,
        deadline: Instant,
    ) -> Result<DayUsage, ChatError> {
        let today = clock::utc_day(clock::now_ms());
        Ok(self.repository.by(deadline).usage(owner, &today).await?)
    }

    /// The session, after a turn whose instance is dead has been closed: who reads the history must find what is left
    /// of that answer.
    ///
    /// # Errors
    /// [`ChatError::SessionNotFound`].
    pub async fn settled(
        self: &Arc<Self>,
        owner: &Owner,
        id: &SessionId,
        deadline: Instant,
    ) -> Result<Session, ChatError> {
        let session = self.session(owner, id, deadline).await?;
        let Some(open) = &session.open else {
            return Ok(session);
        };
        if self.local(owner, &open.id).is_some() {
            return Ok(session);
        }
        let repository = self.repository.by(deadline);
        let stored = repository.turn(owner, id, &open.id, false).await?;
        if !stored.state.is_dead() {
            return stored.session.ok_or(ChatError::SessionNotFound);
        }
        self.close_dead(&repository, owner, id, &open.id).await?;
        self.session(owner, id, deadline).await
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
