//! Sessions: conversations of a user.

use serde::{Deserialize, Deserializer, Serialize};

use super::{OpenTurn, new_incarnation};

/// A session without its messages, and without its system prompt, which is stored separately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Distinguishes this session from earlier, deleted ones with the same id.
    pub incarnation: String,
    pub title: String,
    /// The model for its turns, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_model: Option<String>,
    /// Its system prompt, if it has one; stored under a key of its own, since it can be long and seldom changes.
    #[serde(skip)]
    pub system: Option<String>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When a turn was last accepted: Unix milliseconds.
    pub updated_at: i64,
    /// The fencing number of its last turn: how many turns were ever accepted.
    pub fence: u64,
    /// The turn that is being answered. A value that is no turn of ours could never be closed, and counts as none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "turn_or_none")]
    pub open: Option<OpenTurn>,
    /// Whether its keys were given a time to live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires: bool,
    /// How many messages it has; counted in the list of messages and not stored here.
    #[serde(skip)]
    pub message_count: u64,
}

impl Session {
    /// A session that begins now and is not stored yet. `now` is Unix milliseconds.
    pub fn begin(new: NewSession, now: i64) -> Self {
        Self {
            incarnation: new_incarnation(),
            title: new.title,
            model: new.model,
            last_model: None,
            system: new.system,
            created_at: now,
            updated_at: now,
            fence: 0,
            open: None,
            expires: false,
            message_count: 0,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// Empty until the first message provides one.
    pub title: String,
    pub model: Option<String>,
    pub system: Option<String>,
}

/// A change of a session's values: `Some(None)` removes one.
#[derive(Clone, Debug, Default)]
pub struct SessionChange {
    pub title: Option<String>,
    pub model: Option<Option<String>>,
    pub system: Option<Option<String>>,
}

fn turn_or_none<'de, D: Deserializer<'de>>(stored: D) -> Result<Option<OpenTurn>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TurnOrOther {
        Turn(Box<OpenTurn>),
        Other(serde::de::IgnoredAny),
    }
    Ok(match TurnOrOther::deserialize(stored)? {
        TurnOrOther::Turn(turn) => Some(*turn),
        TurnOrOther::Other(_) => None,
    })
}
