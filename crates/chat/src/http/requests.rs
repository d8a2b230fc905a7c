//! What clients send, checked into the values that the service takes.

use std::time::Duration;

use common::{
    errors::{ApiError, Code},
    identity::Identity,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    domain::{IdempotencyKey, OnDisconnect, Options},
    http::inference::checks::check,
};

/// Longest time that a turn goes on for nobody, in seconds.
const GRACE_MAX: u64 = 24 * 3600;

/// What happens to an answer that nobody watches any more: `"cancel"`, `"continue"`, or seconds to come back in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisconnectRule(OnDisconnect);

impl Serialize for DisconnectRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            OnDisconnect::Continue => to.serialize_str("continue"),
            OnDisconnect::CancelAfter(wait) => to.serialize_u64(wait.as_secs()),
        }
    }
}

impl<'de> Deserialize<'de> for DisconnectRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let asked = Value::deserialize(from)?;
        let seconds = asked
            .as_f64()
            .filter(|seconds| seconds.fract() == 0.0 && (0.0..=GRACE_MAX as f64).contains(seconds));
        match (asked.as_str(), seconds) {
            (Some("continue"), _) => Ok(Self(OnDisconnect::Continue)),
            (Some("cancel"), _) => Ok(Self(OnDisconnect::CancelAfter(Duration::ZERO))),
            (_, Some(seconds)) => {
                Ok(Self(OnDisconnect::CancelAfter(Duration::from_secs_f64(seconds))))
            }
            _ => Err(D::Error::custom(format!(
                "Expected \"cancel\", \"continue\" or a whole number of seconds up to {GRACE_MAX}."
            ))),
        }
    }
}

impl PartialSchema for DisconnectRule {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["cancel", "continue"]));
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(GRACE_MAX));
        OneOfBuilder::new().item(word).item(seconds).into()
    }
}

impl ToSchema for DisconnectRule {}

/// A message to a session.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"message": "Hello!"}))]
pub struct SendMessage {
    /// Up to `chat.max_message_chars` (131,072) characters, not only white space, no NUL.
    #[schema(min_length = 1)]
    pub message: String,
    /// Who speaks; optional, and never other than the token's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    pub user_id: Option<String>,
    /// The session; `default` where absent. It begins where the user has none of that id.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub session_id: Option<String>,
    /// The model, for this turn.
    #[schema(pattern = "^[A-Za-z0-9._:/@+-]{1,256}$")]
    pub model: Option<String>,
    /// The system prompt, for this turn.
    #[schema(min_length = 1, max_length = 131072)]
    pub system: Option<String>,
    /// The sampling options, for this turn.
    pub options: Option<Options>,
    /// What happens when nobody watches the answer any more.
    pub on_disconnect: Option<DisconnectRule>,
}

/// Another answer to the last message.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"options": {"temperature": 1}}))]
pub struct Regenerate {
    /// The model, for this turn.
    #[schema(pattern = "^[A-Za-z0-9._:/@+-]{1,256}$")]
    pub model: Option<String>,
    /// The system prompt, for this turn.
    #[schema(min_length = 1, max_length = 131072)]
    pub system: Option<String>,
    /// The sampling options, for this turn.
    pub options: Option<Options>,
    /// What happens when nobody watches the answer any more.
    pub on_disconnect: Option<DisconnectRule>,
}

/// A session to begin.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "A first session"}))]
pub struct CreateSession {
    /// Its id; made where absent.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub session_id: Option<String>,
    /// Its title, at most 200 characters; made from the first message where absent.
    #[schema(max_length = 200)]
    pub title: Option<String>,
    /// The model for its turns.
    #[schema(pattern = "^[A-Za-z0-9._:/@+-]{1,256}$")]
    pub model: Option<String>,
    #[schema(min_length = 1, max_length = 131072)]
    pub system: Option<String>,
}

/// What to change of a session. An empty text takes a model or a system prompt away.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Another title"}))]
pub struct ChangeSession {
    #[schema(max_length = 200)]
    pub title: Option<String>,
    #[schema(pattern = "^[A-Za-z0-9._:/@+-]{0,256}$")]
    pub model: Option<String>,
    /// The system prompt.
    #[schema(max_length = 131072)]
    pub system: Option<String>,
}

/// A body's `user_id`, where it stands, is the token's.
pub fn same_user(identity: &Identity, user_id: Option<&str>) -> Result<(), ApiError> {
    match user_id {
        Some(user_id) if user_id != identity.user().as_str() => Err(ApiError::new(
            Code::UserMismatch,
            "The body's user_id is not the user of the token; leave it out or log in as that user.",
        )),
        _ => Ok(()),
    }
}

/// The rule that holds: what was asked for, else the grace of a stream or of a keyed request, else none.
pub fn disconnect_rule(
    asked: Option<DisconnectRule>,
    grace: Duration,
    can_resume: bool,
) -> OnDisconnect {
    match asked {
        Some(DisconnectRule(rule)) => rule,
        None if can_resume => OnDisconnect::CancelAfter(grace),
        None => OnDisconnect::CancelAfter(Duration::ZERO),
    }
}

/// An idempotency key with the request that it stands for; `what` tells apart requests whose bodies look alike.
pub fn idempotency_key<T: Serialize>(
    key: &str,
    pointer: &str,
    what: &str,
    body: &T,
) -> Result<IdempotencyKey, ApiError> {
    let visible = (1..=255).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_graphic());
    check(visible, pointer, "An idempotency key has 1 to 255 visible ASCII characters.")?;
    let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
    let digest = |parts: &[&[u8]]| {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        hex::encode(hash.finalize())
    };
    Ok(IdempotencyKey {
        digest: digest(&[key.as_bytes()]),
        body: digest(&[what.as_bytes(), b"\n", &body]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_for_an_optional_member_is_the_same_as_leaving_it_out() {
        let nulls = r#"{"message": "a", "user_id": null, "session_id": null, "model": null, "system": null,
            "options": {"temperature": null, "stop": null, "think": null}, "on_disconnect": null}"#;
        let read = |text| common::errors::json::parse::<SendMessage>(text).unwrap();
        let (nulls, without) =
            (read(nulls.as_bytes()), read(br#"{"message": "a", "options": {}}"#));
        assert_eq!(serde_json::to_value(nulls).unwrap(), serde_json::to_value(without).unwrap());
    }

    #[test]
    fn a_disconnect_rule_is_a_word_or_seconds() {
        let parse = |text: &str| serde_json::from_str::<DisconnectRule>(text).ok();
        let cancel_after =
            |seconds| DisconnectRule(OnDisconnect::CancelAfter(Duration::from_secs(seconds)));
        assert_eq!(parse("\"cancel\""), Some(cancel_after(0)));
        assert_eq!(parse("\"continue\""), Some(DisconnectRule(OnDisconnect::Continue)));
        assert_eq!(parse("5"), Some(cancel_after(5)));
        assert_eq!(parse("5.0"), Some(cancel_after(5)));
        for wrong in ["\"\"", "-1", "1.5", "86401", "null", "[]", "true"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    fn read_options(text: &str) -> Result<Options, (String, String)> {
        common::errors::json::parse(text.as_bytes()).map_err(|error: ApiError| {
            let field = &error.errors[0];
            (field.pointer.clone(), field.detail.clone())
        })
    }

    #[test]
    fn values_by_which_others_say_off_are_the_same_as_none() {
        for text in [
            r#"{"max_tokens":-1}"#,
            r#"{"max_tokens":-1.0}"#,
            r#"{"top_k":-1}"#,
            r#"{"top_k":0}"#,
            r#"{"top_k":0.0}"#,
            r#"{"stop":""}"#,
            r#"{"stop":[]}"#,
            r#"{"stop":[""]}"#,
            r#"{"stop":null,"top_k":null,"max_tokens":null}"#,
        ] {
            assert_eq!(read_options(text).unwrap(), Options::default(), "{text}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let options =
            read_options(r#"{"max_tokens":16.0,"top_k":4e1,"seed":-7.0,"stop":"x"}"#).unwrap();
        assert_eq!(
            (options.max_tokens, options.top_k, options.seed),
            (Some(16), Some(40), Some(-7))
        );
        assert_eq!(options.stop, Some(vec!["x".to_owned()]));
        let stop = read_options(r#"{"stop":["","x",""]}"#).unwrap().stop;
        assert_eq!(stop, Some(vec!["x".to_owned()]));
    }

    #[test]
    fn other_values_are_still_wrong() {
        for (text, pointer, detail) in [
            (r#"{"max_tokens":16.5}"#, "/max_tokens", "Expected a whole number."),
            (r#"{"stop":5}"#, "/stop", "Expected a text or a list of texts."),
            (r#"{"stop":["x",1]}"#, "/stop/1", "Expected a string."),
        ] {
            assert_eq!(read_options(text).unwrap_err(), (pointer.into(), detail.into()), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_its_range_is_told_the_range() {
        let tokens = "This must be from 1 to 1000000; -1 sets no limit.";
        let top_k = "This must be from 1 to 1000; 0 and -1 turn it off.";
        for (text, fault) in [
            (r#"{"max_tokens":-2}"#, ("max_tokens", tokens)),
            (r#"{"max_tokens":0}"#, ("max_tokens", tokens)),
            (r#"{"max_tokens":1000000000000}"#, ("max_tokens", tokens)),
            (r#"{"max_tokens":1e300}"#, ("max_tokens", tokens)),
            (r#"{"top_k":-3}"#, ("top_k", top_k)),
            (r#"{"top_k":1001}"#, ("top_k", top_k)),
        ] {
            assert_eq!(read_options(text).unwrap().faults(), [fault], "{text}");
        }
    }
}
