//! Every key of the `c:` family. All keys of a user share the hash tag `{user}`, so that one transaction can span them,
//! and carry the account's generation, so that a new account of an old id sees nothing of the old.

use common::identity::Owner;

use crate::domain::{MessageId, SessionId};

/// The keys of one account.
#[derive(Clone)]
pub struct Keys {
    base: String,
}

impl Keys {
    /// The keys of that account.
    pub fn of(owner: &Owner) -> Self {
        Self {
            base: format!("c:{{{}}}:{}", owner.user, owner.generation),
        }
    }

    /// Index: session ids by the time of their last use.
    pub fn sessions(&self) -> String {
        format!("{}:sessions", self.base)
    }

    /// Hash: a session.
    pub fn session(&self, id: &SessionId) -> String {
        format!("{}:s:{id}", self.base)
    }

    /// List: a session's messages, newest last.
    pub fn messages(&self, id: &SessionId) -> String {
        format!("{}:m:{id}", self.base)
    }

    /// Value: the session id that an incarnation belongs to.
    pub fn incarnation(&self, incarnation: &str) -> String {
        format!("{}:r:{incarnation}", self.base)
    }

    /// Index: turns whose events are still kept, by the time of their last step.
    pub fn recent(&self) -> String {
        format!("{}:recent", self.base)
    }

    /// Value: what is known of a turn.
    pub fn turn(&self, id: &MessageId) -> String {
        format!("{}:t:{id}", self.base)
    }

    /// List: a turn's events, in batches of lines.
    pub fn events(&self, id: &MessageId) -> String {
        format!("{}:e:{id}", self.base)
    }

    /// Value: the instance that runs a turn; gone when that instance has been silent for a lease.
    pub fn lease(&self, id: &MessageId) -> String {
        format!("{}:l:{id}", self.base)
    }

    /// Value: somebody watches the turn from another instance.
    pub fn watched(&self, id: &MessageId) -> String {
        format!("{}:w:{id}", self.base)
    }

    /// Value: what an idempotency key remembers; `digest` is the key's SHA-256.
    pub fn idempotency(&self, digest: &str) -> String {
        format!("{}:k:{digest}", self.base)
    }

    /// Hash: the tokens of a day (`YYYYMMDD`, UTC).
    pub fn usage(&self, day: &str) -> String {
        format!("{}:u:{day}", self.base)
    }

    /// Hash: completions that run, and what was set aside for each.
    pub fn completions(&self) -> String {
        format!("{}:v", self.base)
    }

    /// Value: the instance that runs a completion, gone when that has been silent for a lease; or that it must not begin
    /// (`withdrawn`).
    pub fn reservation(&self, id: &str) -> String {
        format!("{}:v:{id}", self.base)
    }
}

/// List: what other instances ask of this one.
pub fn inbox(instance: &str) -> String {
    format!("c:{{{instance}}}:inbox")
}
