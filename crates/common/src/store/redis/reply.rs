//! What Redis' answers and errors mean for us.

use redis::{RedisError, Value};

use crate::{
    clients::redis::ConnectError,
    store::{Admission, Committed, Op, StoreError, quota},
};

/// Why a command had no proper answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection is gone; a write may have been applied.
    Lost(String),
    /// This server refuses us or writes, or is not ready; another connection may find one that does not.
    Refuses(String),
    NoScript,
    /// Another node of the cluster serves the slot, for good or for this one request; nothing was done.
    Moved(String),
    Ask(String),
    /// The cluster cannot serve the slot right now; nothing was done.
    Again(String),
    Said(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Said(error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Redis(error) => failure(&error),
            ConnectError::Unexpected(why) => Failure::Refuses(why.to_owned()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(why) | Failure::Refuses(why) | Failure::Again(why) => {
                StoreError::Unavailable(why)
            }
            Failure::Moved(_) | Failure::Ask(_) => {
                StoreError::Unavailable("the cluster's nodes do not agree on a slot".into())
            }
            Failure::NoScript => StoreError::Unavailable("NOSCRIPT".into()),
            Failure::Said(error) => error,
        }
    }
}

impl Failure {
    /// The cluster asks for a repetition, here or elsewhere.
    pub(super) fn was_not_done(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Ask(_) | Self::Again(_))
    }
}

pub(super) fn reason(failure: Failure) -> String {
    match StoreError::from(failure) {
        StoreError::Unavailable(why) | StoreError::Full(why) | StoreError::Corrupt(why) => why,
    }
}

/// What an answer says as text; nothing where it is none.
pub(super) fn text(value: Value) -> String {
    redis::from_redis_value(value).unwrap_or_default()
}

pub(super) fn unexpected() -> StoreError {
    StoreError::Corrupt("an answer of another shape than expected".into())
}

pub(super) fn failure(error: &RedisError) -> Failure {
    if let Some(errors) = error.clone().into_server_errors() {
        return errors.first().map_or(Failure::Said(unexpected()), |(_, error)| {
            server_failure(error.code(), error.details())
        });
    }
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Failure::Refuses("the login was refused".into()),
        // Only the cause: a whole text could hold what was sent.
        _ => Failure::Lost(format!(
            "{} ({})",
            error.category(),
            error.detail().map_or_else(|| error.to_string(), str::to_owned)
        )),
    }
}

/// The error of a command in a script. Redis before 7.0 wraps it once or twice: `ERR Error running script (call to f_…): @user_script:54:
/// WRONGTYPE …`, `…: @user_script:31: @user_script: 31: -OOM …`, or, of a protected call, `@user_script: 31: -OOM …`.
fn unwrapped(text: &str) -> Option<&str> {
    let in_script =
        text.starts_with("ERR Error running script") || text.starts_with("@user_script:");
    let (_, place) = text.rsplit_once("@user_script:").filter(|_| in_script)?;
    place.split_once(": ").map(|(_, error)| error.trim_start_matches('-'))
}

pub(super) fn server_failure(code: &str, details: Option<&str>) -> Failure {
    let text = format!("{code} {}", details.unwrap_or_default());
    let (code, details) = unwrapped(&text).unwrap_or(&text).split_once(' ').unwrap_or((code, ""));
    // 'unknown command … with args beginning with: …' would repeat what was sent, a password among it.
    let safe = details.split("with args").next().unwrap_or_default();
    let text = format!("{code} {safe}").trim_end().to_owned();
    match code {
        "NOSCRIPT" => Failure::NoScript,
        "MOVED" | "ASK" => {
            let to = details.rsplit(' ').next().unwrap_or_default().to_owned();
            if code == "ASK" { Failure::Ask(to) } else { Failure::Moved(to) }
        }
        "TRYAGAIN" | "CLUSTERDOWN" => Failure::Again(text),
        "OOM" | "MISCONF" => Failure::Said(StoreError::Full(text)),
        "WRONGTYPE" => Failure::Said(StoreError::Corrupt(
            "a key is of another type than expected, or not a number".into(),
        )),
        "ERR" if details.contains("not an integer") || details.contains("overflow") => {
            Failure::Said(StoreError::Corrupt("a field is not a whole number".into()))
        }
        "READONLY" | "NOAUTH" | "NOPERM" | "WRONGPASS" | "MASTERDOWN" | "LOADING"
        | "NOREPLICAS" => Failure::Refuses(text),
        _ => Failure::Said(StoreError::Unavailable(text)),
    }
}

pub(super) fn number(value: Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(number),
        _ => Err(unexpected()),
    }
}

/// How a transaction went, by what its script says.
pub(super) fn committed(said: i64) -> Result<Committed, StoreError> {
    match said {
        -1 => Ok(Committed::Applied),
        check => usize::try_from(check).map(Committed::Refused).map_err(|_| unexpected()),
    }
}

/// What `admit.lua` says, and a number that may stand behind it.
pub(super) fn admission(said: Value) -> Result<(Admission, Option<i64>), StoreError> {
    let numbers: Vec<i64> = redis::from_redis_value(said).map_err(|_| unexpected())?;
    let [allowed, remaining, reset, retry, rest @ ..] = numbers.as_slice() else {
        return Err(unexpected());
    };
    let admission = quota::admission(*allowed == 1, *remaining, *reset, *retry);
    Ok((admission, rest.first().copied()))
}

/// The failure that a value is, if it is one.
pub(super) fn failed(value: &Value) -> Option<Failure> {
    match value {
        Value::ServerError(error) => Some(server_failure(error.code(), error.details())),
        _ => None,
    }
}

pub(super) fn checked(value: Option<Value>) -> Result<Value, StoreError> {
    let value = value.ok_or_else(unexpected)?;
    match failed(&value) {
        Some(failure) => Err(failure.into()),
        None => Ok(value),
    }
}

/// Whether an independent operation was applied, by the answers to its commands, which come next. All of these are taken.
pub(super) fn applied(
    op: &Op,
    answers: &mut impl Iterator<Item = Result<Value, Failure>>,
) -> Result<bool, StoreError> {
    let first = answers.next();
    if let Op::Expire(_, None) = op {
        answers.next();
    }
    let value = first.transpose()?;
    if let (Op::ItemSet(..), Some(Value::ServerError(error))) = (op, &value) {
        let details = error.details().unwrap_or_default();
        if details.contains("no such key") || details.contains("index out of range") {
            return Ok(false);
        }
    }
    let value = checked(value)?;
    Ok(match op {
        Op::Expire(..) | Op::PushExisting(..) => !matches!(value, Value::Int(0)),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_commands_in_scripts_are_known_in_the_words_of_every_redis() {
        let wrapped = |error: &str| {
            format!("Error running script (call to f_6cb860561c): @user_script:54: {error}")
        };
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        for error in [wrapped(full), wrapped(&format!("@user_script: 54: -{full}"))] {
            let failure = server_failure("ERR", Some(&error));
            assert!(matches!(failure, Failure::Said(StoreError::Full(_))), "{error}");
        }
        let failure = server_failure("@user_script:", Some(&format!("81: -{full}")));
        assert!(matches!(failure, Failure::Said(StoreError::Full(_))));
        for error in ["WRONGTYPE Operation against a key", "ERR value is not an integer"] {
            let failure = server_failure("ERR", Some(&wrapped(error)));
            assert!(matches!(failure, Failure::Said(StoreError::Corrupt(_))), "{error}");
        }
        let failure = server_failure("ERR", Some("unknown command"));
        assert!(matches!(failure, Failure::Said(StoreError::Unavailable(_))));
    }
}
