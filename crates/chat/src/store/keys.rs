//! Every key of the `c:` family. All keys of a user share the hash tag `{user}`, so that one transaction can span them, and
//! contain the account's generation, so that a new account with an old id sees nothing of the old one.

use common::{
    identity::{Owner, UserId},
    store::{SHARDS, shard},
};

use crate::domain::{MessageId, SessionId};

#[derive(Clone)]
pub(super) struct Keys {
    base: String,
}

impl Keys {
    pub(super) fn of(owner: &Owner) -> Self {
        Self { base: format!("c:{{{}}}:{}", owner.user, owner.generation) }
    }

    fn key(&self, kind: &str, id: &str) -> String {
        [&self.base, kind, id].concat()
    }

    /// Index: session ids by the time of their last use.
    pub(super) fn sessions(&self) -> String {
        format!("{}:sessions", self.base)
    }

    pub(super) fn session(&self, id: &SessionId) -> String {
        self.key(":s:", id.as_str())
    }

    pub(super) fn system_prompt(&self, id: &SessionId) -> String {
        self.key(":p:", id.as_str())
    }

    /// List: a session's messages, newest last.
    pub(super) fn messages(&self, id: &SessionId) -> String {
        self.key(":m:", id.as_str())
    }

    /// List: what each of a session's messages takes, in bytes, in the same order.
    pub(super) fn message_sizes(&self, id: &SessionId) -> String {
        self.key(":z:", id.as_str())
    }

    /// Value: the session id that an incarnation belongs to.
    pub(super) fn incarnation(&self, incarnation: &str) -> String {
        self.key(":r:", incarnation)
    }

    /// Index: turns of that incarnation of a session that have ended without an answer in its history and whose events are still
    /// kept, by their end.
    pub(super) fn unanswered(&self, incarnation: &str) -> String {
        self.key(":d:", incarnation)
    }

    pub(super) fn turn(&self, id: &MessageId) -> String {
        self.key(":t:", id.as_str())
    }

    /// List: a turn's events, in batches of lines.
    pub(super) fn events(&self, id: &MessageId) -> String {
        self.key(":e:", id.as_str())
    }

    /// Value: the instance that runs a turn or a stateless completion, by the id of its reservation; expires when the
    /// instance does not renew it. `withdrawn` (completions only): it must not begin.
    pub(super) fn lease(&self, id: &str) -> String {
        self.key(":l:", id)
    }

    /// Value: what an idempotency key remembers; `digest` is the key's SHA-256.
    pub(super) fn idempotency(&self, digest: &str) -> String {
        self.key(":k:", digest)
    }

    /// Hash: the tokens of a day (`YYYYMMDD`, UTC), and what running turns and completions hold of its quota, by their ids.
    pub(super) fn usage(&self, day: &str) -> String {
        self.key(":u:", day)
    }
}

/// List: requests of other instances to this one.
pub(super) fn inbox(instance: &str) -> String {
    format!("c:{{{instance}}}:inbox")
}

/// Hash: what each instance runs and has waiting at a provider, where they share its `max_concurrency`. No user id holds a colon.
pub(super) fn concurrency(provider: &str) -> String {
    format!("c:{{llm:{provider}}}:concurrency")
}

/// Index: accounts that are erased and will be once more, by when that is due; the one that has that user.
pub(super) fn erased_index(user: &UserId) -> String {
    erased_index_of(shard(user.as_str()))
}

pub(super) fn erased_indexes() -> impl Iterator<Item = String> {
    (0..SHARDS).map(erased_index_of)
}

fn erased_index_of(shard: u8) -> String {
    format!("c:erased:{{{shard:02}}}")
}

/// Value: the instance that erases an account.
pub(super) fn erasure_claim(owner: &Owner) -> String {
    let shard = shard(owner.user.as_str());
    format!("c:erasing:{{{shard:02}}}:{}:{}", owner.user, owner.generation)
}
