//! What an idempotency key leads to: a turn to join, a failed one to run again, or nothing yet.

use std::sync::Arc;

use common::{identity::Owner, store::Bytes};

use crate::{
    domain::{
        error::ChatError,
        records::{Ending, KeyRecord, TurnRecord},
    },
    store::{
        Repository,
        turns::{Holder, TurnState},
    },
    turns::service::{Begun, IdempotencyKey, NewTurn, Turns},
};

/// What an idempotency key led to.
pub(crate) enum Known {
    /// A turn that answers for it.
    Turn(Begun),
    /// A turn that failed, to be run again while it is the last of its session: the key, and those bytes as stored.
    Again(KeyRecord, Bytes),
    /// A turn that this instance accepts at this moment, or takes back since the store did not say whether it took it.
    Unsettled,
    /// Nothing yet.
    New,
}

impl Turns {
    /// What an idempotency key stands for.
    pub(crate) async fn known(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        key: Option<&IdempotencyKey>,
    ) -> Result<Known, ChatError> {
        let Some(key) = key else {
            return Ok(Known::New);
        };
        let Some((record, stored)) = repository.key(owner, &key.digest).await? else {
            return Ok(Known::New);
        };
        if record.body != key.body {
            return Err(ChatError::IdempotencyMismatch);
        }
        match self.outcome(repository, owner, &record).await? {
            Outcome::Failed => return Ok(Known::Again(record, stored)),
            Outcome::Unsettled => return Ok(Known::Unsettled),
            Outcome::Readable => {}
        }
        let watch = self.attach(owner, &record.id, 0, repository).await?;
        Ok(Known::Turn(Begun {
            id: record.id,
            watch,
            joined: true,
        }))
    }

    /// How it stands with a key's turn.
    async fn outcome(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        record: &KeyRecord,
    ) -> Result<Outcome, ChatError> {
        if self.local(owner, &record.id).is_some() {
            return Ok(Outcome::Readable);
        }
        let (session, id) = (&record.session, &record.id);
        let mut stored = repository.turn(owner, session, id, false).await?;
        if stored.state.is_dead() {
            self.close_dead(repository, owner, session, id).await?;
            stored = repository.turn(owner, session, id, false).await?;
        }
        if stored.session.is_none() {
            return Err(ChatError::SessionNotFound);
        }
        Ok(match stored.state {
            TurnState::Ended(TurnRecord {
                ending: Some(Ending::Error { .. }),
                ..
            }) => Outcome::Failed,
            TurnState::Withdrawn => Outcome::Unsettled,
            // Accepted, and about to be started or taken back here.
            TurnState::Running {
                holder: Holder::Instance(instance),
                ..
            } if instance == self.instance && self.local(owner, id).is_none() => Outcome::Unsettled,
            TurnState::Running { .. } | TurnState::Ended(_) | TurnState::Forgotten => {
                Outcome::Readable
            }
        })
    }

    /// The ending of a key's turn once more, since it is no longer the last of its session.
    pub(crate) async fn last_ending(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
    ) -> Result<Begun, ChatError> {
        let digest = new
            .key
            .as_ref()
            .map(|key| key.digest.as_str())
            .unwrap_or_default();
        let Some((record, _)) = repository.key(owner, digest).await? else {
            return Err(ChatError::MessageNotFound);
        };
        let watch = self.attach(owner, &record.id, 0, repository).await?;
        Ok(Begun {
            id: record.id,
            watch,
            joined: true,
        })
    }
}

/// How it stands with a turn that a key remembers.
enum Outcome {
    /// It ended without success, and may run again.
    Failed,
    /// It is being accepted or taken back here.
    Unsettled,
    /// It runs, or has an answer.
    Readable,
}
