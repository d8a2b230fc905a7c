//! What Redis' answers and errors mean for us.

use redis::{RedisError, Value};

use crate::store::{Admission, Committed, Op, StoreError, quota};

/// Why a command had no proper answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is gone; a write may have been applied.
    Lost(String),
    /// This server refuses us or writes, or is not ready; another connection may find one that does not.
    Refuses(String),
    /// The script must be sent whole.
    NoScript,
    /// What the caller is told.
    Said(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(why) | Failure::Refuses(why) => StoreError::Unavailable(why),
            Failure::NoScript => StoreError::Unavailable("NOSCRIPT".into()),
            Failure::Said(error) => error,
        }
    }
}

pub(super) fn unexpected() -> StoreError {
    StoreError::Corrupt("an answer of another shape than expected".into())
}

/// Sorts an error of the client.
pub(super) fn failure(error: &RedisError) -> Failure {
    if let Some(errors) = error.clone().into_server_errors() {
        return errors
            .first()
            .map_or(Failure::Said(unexpected()), |(_, error)| {
                server_failure(error.code(), error.details())
            });
    }
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Failure::Refuses("the login was refused".into()),
        // Only the cause: a whole text could hold what was sent.
        _ => Failure::Lost(format!(
            "{} ({})",
            error.category(),
            error
                .detail()
                .map_or_else(|| error.to_string(), str::to_owned)
        )),
    }
}

/// Sorts an error of the server.
pub(super) fn server_failure(code: &str, details: Option<&str>) -> Failure {
    let details = details.unwrap_or_default();
    // 'unknown command … with args beginning with: …' would repeat what was sent, a password among it.
    let safe = details.split("with args").next().unwrap_or_default();
    let text = format!("{code} {safe}").trim_end().to_owned();
    match code {
        "NOSCRIPT" => Failure::NoScript,
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

/// A whole number.
pub(super) fn number(value: Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(number),
        _ => Err(unexpected()),
    }
}

/// How a transaction went, by what `commit.lua` says.
pub(super) fn committed(said: i64) -> Result<Committed, StoreError> {
    match said {
        -1 => Ok(Committed::Applied),
        check => usize::try_from(check)
            .map(Committed::Refused)
            .map_err(|_| unexpected()),
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

/// A value that is no error.
pub(super) fn checked(value: Option<Value>) -> Result<Value, StoreError> {
    match value {
        Some(Value::ServerError(error)) => {
            Err(server_failure(error.code(), error.details()).into())
        }
        Some(value) => Ok(value),
        None => Err(unexpected()),
    }
}

/// What an independent operation says of itself.
pub(super) fn applied(op: &Op, value: Option<Value>) -> Result<bool, StoreError> {
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
