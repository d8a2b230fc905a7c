//! Requests to one model server: addresses, the API key, and answers that are no streams.

use std::{error::Error as StdError, time::Duration};

use bytes::Bytes;
use common::{clients::http::PerThread, config, otel};
use reqwest::{
    Client, RequestBuilder, Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use crate::llm::{
    error::{ErrorKind, ProviderError},
    request::ChatRequest,
};

/// The room that a request's body is given at first, in bytes: more than a few turns take.
const USUAL_BODY: usize = 4 * 1024;
/// The most that is read of an answer that is not a stream, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// The most that is read of an error's body, in bytes: enough to tell its kind.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// How long an error's body may take: the status alone says most of it.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Says what a provider means by a status and a body.
pub(super) type Classify = fn(u16, &str) -> Classified;

/// The kind of an error, and what an operator can do about it.
pub(super) type Classified = (ErrorKind, Option<&'static str>);

/// Marks a response whose request was sent a second time, so that it is not sent a third time.
#[derive(Clone)]
pub(super) struct Resent;

/// The address of a model server, and the key that it wants.
pub(super) struct Endpoint {
    client: PerThread,
    base: Url,
    api_key: Option<SecretString>,
    classify: Classify,
}

impl Endpoint {
    pub(super) fn new(
        client: PerThread,
        base: Url,
        settings: &config::Provider,
        classify: Classify,
    ) -> Self {
        Self { client, base, api_key: settings.api_key.clone(), classify }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ProviderError> {
        let url = below(&self.base, path);
        document(self.send(|client| client.get(url.clone())).await?).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        request_id: &str,
    ) -> Result<T, ProviderError> {
        document(self.post(path, body, request_id).await?).await
    }

    /// The response to a chat request, once its status is good.
    pub(super) async fn chat(
        &self,
        path: &[&str],
        body: &impl Serialize,
        request: &ChatRequest,
    ) -> Result<Response, ProviderError> {
        const CHECK: &str = "The model server does not accept this request: check the messages, the tools and the format of the answer.";
        let sent = self.post(path, body, &request.request_id).await;
        // Where the caller made the prompt, and not we, a server that calls the request bad means the caller.
        sent.map_err(|error| if request.is_callers { error.advised(CHECK) } else { error })
    }

    /// `request_id` goes along, so that the server's log can be searched by it; empty: none is sent.
    async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
        request_id: &str,
    ) -> Result<Response, ProviderError> {
        let url = below(&self.base, path);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        otel::inject(&mut headers);
        let mut json = Vec::with_capacity(USUAL_BODY);
        serde_json::to_writer(&mut json, body)
            .map_err(|error| ProviderError::failed(format!("a request is no JSON: {error}")))?;
        let json = Bytes::from(json);
        let request = |client: &Client| {
            let request = client.post(url.clone()).headers(headers.clone()).body(json.clone());
            match request_id {
                "" => request,
                id => request.header(common::http::X_REQUEST_ID, id),
            }
        };
        self.send(request).await
    }

    /// The response to a request, if its status is good. A connection that breaks before an answer came may be one that the server, or
    /// something on the way, closed long ago: that says nothing about the server, so the request is sent once more on a new connection.
    async fn send(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, ProviderError> {
        let response = match self.authorized(request(self.client.here())).send().await {
            Err(error) if may_be_stale(&error) => {
                let sent = self.authorized(request(self.client.unpooled())).send().await;
                let sent = match sent {
                    Ok(mut response) => {
                        response.extensions_mut().insert(Resent);
                        accepted(response, self.classify).await
                    }
                    Err(error) => Err(unanswered(error)),
                };
                return sent.map_err(ProviderError::without_retry);
            }
            sent => sent.map_err(unanswered)?,
        };
        accepted(response, self.classify).await
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }
}

/// The address below `base`, whatever path that has already.
pub(super) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

fn unanswered(error: reqwest::Error) -> ProviderError {
    // A server that is reached and does not speak HTTP has failed.
    let (kind, context) = if error.is_builder() || is_garbage(&error) {
        (ErrorKind::Failed, "the request failed")
    } else {
        (ErrorKind::Unreachable, "no answer")
    };
    ProviderError::new(kind, context).with_upstream_text(&causes(error))
}

fn may_be_stale(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_builder() && !is_garbage(error)
}

/// Whether what came in the place of a response's head is none.
fn is_garbage(error: &reqwest::Error) -> bool {
    let mut client_errors = sources(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    client_errors.next().is_some_and(hyper::Error::is_parse)
}

/// An error with its causes and without the address, for the log.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = sources(&error).map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

async fn accepted(response: Response, classify: Classify) -> Result<Response, ProviderError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let path = response.url().path().to_owned();
    let retry_after = retry_after(&response);
    let body =
        tokio::time::timeout(ERROR_BODY_TIMEOUT, error_body(response)).await.unwrap_or_default();
    let nothing = if body.trim().is_empty() { " with an empty body" } else { "" };
    let context = format!("{path} answered {status}{nothing}");
    let (kind, hint) = classify(status.as_u16(), &body);
    let mut error = ProviderError::new(kind, context).with_upstream_text(&body);
    (error.hint, error.retry_after) = (hint, retry_after);
    Err(error)
}

/// As much of an error's body as tells its kind.
async fn error_body(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY
        && let Ok(Some(bytes)) = response.chunk().await
    {
        body.extend_from_slice(&bytes);
    }
    body.truncate(MAX_ERROR_BODY);
    String::from_utf8_lossy(&body).into_owned()
}

async fn document<T: DeserializeOwned>(mut response: Response) -> Result<T, ProviderError> {
    let path = response.url().path().to_owned();
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(unanswered)? {
        if body.len() + bytes.len() > MAX_BODY {
            return Err(ProviderError::failed(format!("{path} answered more than 8 MiB")));
        }
        body.extend_from_slice(&bytes);
    }
    serde_json::from_slice(&body)
        .map_err(|_| ProviderError::failed(format!("{path} answered 200 with no JSON")))
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
        let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_millisecond();
        Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0))
    };
    Some(wait.min(MAX_RETRY_AFTER))
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
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(at("Tue, 06 Nov 1984 08:49:37 GMT"), Some(Duration::ZERO));
        for garbage in ["-1", "soon", "", "1.5", "1e9"] {
            assert_eq!(at(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn an_endpoint_keeps_the_path_that_the_base_has() {
        let chat = |base: &str| below(&Url::parse(base).unwrap(), &["api", "chat"]).to_string();
        assert_eq!(chat("http://h:1"), "http://h:1/api/chat");
        assert_eq!(chat("http://h:1/"), "http://h:1/api/chat");
        assert_eq!(chat("http://h:1/proxy/?a=b"), "http://h:1/proxy/api/chat");
    }
}
