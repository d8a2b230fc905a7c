//! What all adapters do alike over HTTP: addresses, failures, and bodies that are no streams.

use std::{error::Error as StdError, time::Duration};

use reqwest::{RequestBuilder, Response, header::RETRY_AFTER};
use url::Url;

use crate::llm::{
    error::{Cause, ModelError, RequestError},
    request::ChatRequest,
};

/// The most that is read of an answer that is not a stream, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// The most that is read of an error's body, in bytes: enough to tell its kind.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// How long an error's body may take: the status alone says most of it.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(2);
/// The longest time to come back later that is passed on.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The address below `base`, whatever path that has already.
pub(super) fn endpoint(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// The request with the id of the caller's.
pub(super) fn traced(request: RequestBuilder, id: &str) -> RequestBuilder {
    if id.is_empty() {
        return request;
    }
    request.header(common::http::X_REQUEST_ID, id)
}

/// What a request that got no status means.
pub(super) fn unreachable(error: reqwest::Error) -> RequestError {
    if error.is_builder() {
        return RequestError::content(ModelError::Failed(causes(error)));
    }
    RequestError {
        error: ModelError::Unavailable(causes(error)),
        cause: Cause::Unreachable,
        retry_after: None,
    }
}

/// The same for a request of an answer: a server that is reached and does not speak HTTP has failed.
pub(super) fn unanswered(error: reqwest::Error) -> RequestError {
    if is_garbage(&error) {
        return RequestError::content(ModelError::Failed(causes(error)));
    }
    unreachable(error)
}

/// Whether what came in the place of an answer's head is none.
fn is_garbage(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error.is_parse();
        }
        source = cause.source();
    }
    false
}

/// An error with its causes and without the address, for the log.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The response, if its status is good; else what `read` makes of the status and the body's text.
pub(super) async fn accepted(
    response: Response,
    read: impl FnOnce(u16, &str) -> ModelError,
) -> Result<Response, RequestError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(&response);
    let body = tokio::time::timeout(ERROR_BODY_PATIENCE, error_body(response))
        .await
        .unwrap_or_default();
    let error = match (status.as_u16(), retry_after) {
        (429, _) => ModelError::Busy { retry_after },
        (503, Some(_)) => ModelError::Busy { retry_after },
        (code @ 502..=504, _) => {
            ModelError::Unavailable(format!("status {code}: {}", truncate(&body)))
        }
        (code, _) => read(code, &body),
    };
    Err(RequestError {
        error,
        cause: Cause::Status(status.as_u16()),
        retry_after,
    })
}

/// As much of an error's body as tells its kind.
async fn error_body(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        let room = MAX_ERROR_BODY.saturating_sub(body.len());
        body.extend(bytes.iter().take(room));
        if body.len() >= MAX_ERROR_BODY {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// The JSON document of a short answer.
pub(super) async fn document<T: serde::de::DeserializeOwned>(
    mut response: Response,
) -> Result<T, RequestError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(unreachable)? {
        if body.len() + bytes.len() > MAX_BODY {
            return Err(RequestError::content(ModelError::Failed(
                "an answer of more than 8 MiB".to_owned(),
            )));
        }
        body.extend_from_slice(&bytes);
    }
    serde_json::from_slice(&body).map_err(|error| {
        RequestError::content(ModelError::Failed(format!(
            "an answer that is not understood: {error}"
        )))
    })
}

/// What a good answer means that holds no list of models.
pub(super) fn no_list() -> RequestError {
    RequestError::content(ModelError::Failed("a model list without models".to_owned()))
}

/// When the server wants to be asked again: seconds or an HTTP date; whatever else it says is not believed.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, common::clock::now_ms())
}

fn parse_retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::parse(value)
            .ok()?
            .timestamp()
            .as_millisecond();
        Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0))
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The beginning of a text, for the log.
pub(super) fn truncate(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What a model server's own words mean, whatever status they came with.
pub(super) fn classify_error(text: &str) -> Option<ModelError> {
    const TOO_LONG: [&str; 12] = [
        "exceed_context_size",
        "exceeds the available context",
        "context_length_exceeded",
        "maximum context length",
        "max context length",
        "context length exceeded",
        "exceeds the context",
        "exceed context window",
        "longer than the context",
        "context the overflows",
        "`max_new_tokens` must be <=",
        "prompt is too long",
    ];
    let lower = text.to_lowercase();
    if TOO_LONG.iter().any(|phrase| lower.contains(phrase)) {
        return Some(ModelError::ContextTooLong(truncate(text)));
    }
    let unsupported = |what: &str| {
        ModelError::Unsupported(format!(
            "This model does not support {what}; ask another one, or leave it out."
        ))
    };
    ["tools", "thinking", "images", "chat"]
        .into_iter()
        .find_map(|what| {
            (lower.contains(&format!("does not support {what}"))).then(|| unsupported(what))
        })
}

/// What a refusal of a chat request means. Where the caller made the request, and not we, a server that calls it bad
/// means the caller.
pub(super) fn refused(
    ask: &ChatRequest,
    status: u16,
    read: impl FnOnce() -> ModelError,
) -> ModelError {
    match read() {
        ModelError::Failed(_) if ask.untrimmed && matches!(status, 400 | 422) => {
            ModelError::Unsupported(
                "The model server does not accept this request: check the messages, `tools` and `response_format`."
                    .to_owned(),
            )
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_clamped() {
        let at = |value| parse_retry_after(value, 784_111_777_000 - 3000);
        assert_eq!(at("2"), Some(Duration::from_secs(2)));
        assert_eq!(at("1000000000"), Some(MAX_RETRY_AFTER));
        assert_eq!(at("99999999999999999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(
            at("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(3))
        );
        assert_eq!(at("Tue, 06 Nov 1984 08:49:37 GMT"), Some(Duration::ZERO));
        for garbage in ["-1", "soon", "", "1.5", "1e9"] {
            assert_eq!(at(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn an_endpoint_keeps_the_path_that_the_base_has() {
        let below = |base: &str| endpoint(&Url::parse(base).unwrap(), &["api", "chat"]).to_string();
        assert_eq!(below("http://h:1"), "http://h:1/api/chat");
        assert_eq!(below("http://h:1/"), "http://h:1/api/chat");
        assert_eq!(below("http://h:1/proxy/?a=b"), "http://h:1/proxy/api/chat");
    }
}
