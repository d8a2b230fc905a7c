//! Every key of the `c:` family. All keys of a user share the hash tag `{user}`, so that one transaction can span them, and
//! contain the account's generation, so that a new account with an old id sees nothing of the old one.

use common::identity::Owner;

use crate::domain::{MessageId, SessionId};

/// The keys of one account.
#[derive(Clone)]
pub(super) struct Keys {
    base: String,
}

impl Keys {
    /// The keys of that account.
    pub(super) fn of(owner: &Owner) -> Self {
        Self {
            base: format!("c:{{{}}}:{}", owner.user, owner.generation),
        }
    }

    /// Index: session ids by the time of their last use.
    pub(super) fn sessions(&self) -> String {
        format!("{}:sessions", self.base)
    }

    /// Value: a session.
    pub(super) fn session(&self, id: &SessionId) -> String {
        format!("{}:s:{id}", self.base)
    }

    /// Value: a session's system prompt.
    pub(super) fn system_prompt(&self, id: &SessionId) -> String {
        format!("{}:p:{id}", self.base)
    }

    /// List: a session's messages, newest last.
    pub(super) fn messages(&self, id: &SessionId) -> String {
        format!("{}:m:{id}", self.base)
    }

    /// Value: the session id that an incarnation belongs to.
    pub(super) fn incarnation(&self, incarnation: &str) -> String {
        format!("{}:r:{incarnation}", self.base)
    }

    /// Index: turns whose events are still kept, by the time of their last step.
    pub(super) fn recent(&self) -> String {
        format!("{}:recent", self.base)
    }

    /// Value: what is known of a turn.
    pub(super) fn turn(&self, id: &MessageId) -> String {
        format!("{}:t:{id}", self.base)
    }

    /// List: a turn's events, in batches of lines.
    pub(super) fn events(&self, id: &MessageId) -> String {
        format!("{}:e:{id}", self.base)
    }

    /// Value: the instance that runs a turn or a stateless completion, by the id of its reservation; expires when the
    /// instance does not renew it. `withdrawn`: it must not begin.
    pub(super) fn lease(&self, id: &str) -> String {
        format!("{}:l:{id}", self.base)
    }

    /// Value: somebody watches the turn from another instance.
    pub(super) fn watched(&self, id: &MessageId) -> String {
        format!("{}:w:{id}", self.base)
    }

    /// Value: what an idempotency key remembers; `digest` is the key's SHA-256.
    pub(super) fn idempotency(&self, digest: &str) -> String {
        format!("{}:k:{digest}", self.base)
    }

    /// Hash: the tokens of a day (`YYYYMMDD`, UTC).
    pub(super) fn usage(&self, day: &str) -> String {
        format!("{}:u:{day}", self.base)
    }

    /// Hash: what running turns and completions hold of the quota, by id.
    pub(super) fn reservations(&self) -> String {
        format!("{}:reservations", self.base)
    }
}

/// List: requests of other instances to this one.
pub(super) fn inbox(instance: &str) -> String {
    format!("c:{{{instance}}}:inbox")
}
