//! What every store call has in common.

use std::{future::Future, pin::Pin, time::Instant};

use super::StoreError;
use crate::otel::{Span, SpanKind};

pub(super) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The frame round every call: one deadline over everything that it does, and the metrics. The call is boxed:
/// every future that waits for the store would otherwise have room for it, twice over for each one that it is passed
/// through, and most of them wait for something else most of the time.
pub(super) async fn call<T>(
    op: &'static str,
    end: Instant,
    call: Call<'_, T>,
) -> Result<T, StoreError> {
    let (begun, span) = (Instant::now(), Span::child(op, SpanKind::Client));
    span.set("db.operation.name", op);
    let result = if end <= begun {
        // Nothing may go out for a caller who has no time left to hear of it.
        Err(StoreError::Unavailable("no time was left".into()))
    } else {
        // A node's own time-out comes first.
        tokio::time::timeout_at(end.into(), call)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())))
    };
    metrics::counter!("store_calls_total", "op" => op, "result" => outcome(&result)).increment(1);
    metrics::histogram!("store_call_duration_seconds", "op" => op)
        .record(begun.elapsed().as_secs_f64());
    if result.is_err() {
        span.fail(outcome(&result));
    }
    result
}

/// Refuses what would span two slots of a cluster, on every backend.
pub(super) fn one_slot<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), StoreError> {
    let mut tags = keys.map(super::redis::tag);
    let first = tags.next();
    match tags.all(|tag| Some(tag) == first) {
        true => Ok(()),
        false => Err(StoreError::Corrupt("keys of two slots in one step".into())),
    }
}

/// Each result, unless all are errors.
pub(super) fn any_of<T>(
    each: Vec<Result<T, StoreError>>,
) -> Result<Vec<Result<T, StoreError>>, StoreError> {
    match each.iter().all(Result::is_err) {
        true => each.into_iter().map(|result| result.map(Ok)).collect(),
        false => Ok(each),
    }
}

fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Full(_)) => "full",
        Err(StoreError::Corrupt(_)) => "corrupt",
    }
}
