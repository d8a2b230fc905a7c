//! One log line and two metrics for each request, also for one whose client disconnected before the answer.

use std::{borrow::Cow, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, Method, Uri},
    response::Response,
};

use super::{RequestId, metrics};
use crate::{
    errors::ApiError,
    identity::{API_KEY_PREFIX, REFRESH_TOKEN_PREFIX, UserId},
    otel::Span,
};

/// The status in the log where the client disconnected before there was an answer.
const CLIENT_DISCONNECTED: u16 = 499;

/// Which listener a request came to: requests to the admin one are probes, and logged at `debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenerKind {
    Public,
    Admin,
}

/// One request, from its arrival to its answer's head.
pub(super) struct RequestLog {
    service: &'static str,
    listener: ListenerKind,
    started: Instant,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
    id: RequestId,
    pub(super) span: Span,
    written: bool,
}

impl RequestLog {
    pub(super) fn begin(
        service: &'static str,
        listener: ListenerKind,
        request: &Request,
        id: &RequestId,
    ) -> Self {
        Self {
            service,
            listener,
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get().cloned(),
            id: id.clone(),
            span: Span::default(),
            written: false,
        }
    }

    /// Opens the span of the request. A query is no part of it: callers may put anything there.
    pub(super) fn trace(&mut self, headers: &HeaderMap) {
        let (method, route) = (method_label(&self.method), self.route());
        let span = Span::server(|| format!("{method} {route}"), headers);
        span.set_all(|| {
            [
                ("http.request.method", method.into()),
                ("http.route", route.to_owned().into()),
                ("url.scheme", "http".into()),
                ("url.path", masked(self.path()).into_owned().into()),
                ("request_id", self.id.as_str().to_owned().into()),
            ]
        });
        self.span = span;
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", MatchedPath::as_str)
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    pub(super) fn answered(mut self, response: &Response, error: Option<&ApiError>) {
        self.write(response.status().as_u16(), response.extensions().get(), error);
    }

    fn write(&mut self, status: u16, user: Option<&UserId>, error: Option<&ApiError>) {
        self.written = true;
        let elapsed = self.started.elapsed();
        let route = self.route();
        self.span.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.span.fail(status.to_string());
        }
        self.count(route, status, elapsed.as_secs_f64());
        if let Some(error) = error {
            metrics::count_problem(self.service, error.code);
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    service = self.service,
                    method = method_label(&self.method),
                    route,
                    path = %masked(self.path()).escape_default(),
                    status,
                    code = error.map(|error| error.code.as_str()),
                    pointer = error.and_then(|error| error.errors.first()).map(|wrong| wrong.pointer.as_str()),
                    duration_ms = elapsed.as_secs_f64() * 1000.0,
                    request_id = self.id.as_str(),
                    trace_id = self.span.trace_id(),
                    user = user.map(UserId::as_str),
                    error = error.and_then(|error| error.source.as_deref()).map(error_chain),
                    "request"
                )
            };
        }
        match (self.listener, status) {
            (_, 500) => line!(error),
            (ListenerKind::Public, 501..) => line!(warn),
            (ListenerKind::Public, _) => line!(info),
            (ListenerKind::Admin, _) => line!(debug),
        }
    }

    fn count(&self, route: &str, status: u16, seconds: f64) {
        let (service, method) = (self.service, method_label(&self.method));
        ::metrics::histogram!(
            "http_request_duration_seconds",
            "service" => service, "method" => method, "route" => route.to_owned()
        )
        .record(seconds);
        ::metrics::counter!(
            "http_requests_total",
            "service" => service, "method" => method, "route" => route.to_owned(), "status" => status.to_string()
        )
        .increment(1);
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if !self.written {
            self.write(CLIENT_DISCONNECTED, None, None);
        }
    }
}

/// The method as a label: callers cannot add labels by inventing methods.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// A path without credentials: whoever puts one there by mistake would find it in the log, usable.
fn masked(path: &str) -> Cow<'_, str> {
    let is_credential = |part: &str| {
        let is_token = part.contains("eyJ") && part.matches('.').count() >= 2;
        is_token || part.contains(API_KEY_PREFIX) || part.contains(REFRESH_TOKEN_PREFIX)
    };
    if !is_credential(path) {
        return Cow::Borrowed(path);
    }
    let parts = path.split('/').map(|part| if is_credential(part) { "***" } else { part });
    Cow::Owned(parts.collect::<Vec<_>>().join("/"))
}

/// An error with its whole chain of causes, in one line.
fn error_chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn a_credential_in_a_path_is_masked() {
        for (path, shown) in [
            ("/chat/sessions/cbk_abc", "/chat/sessions/***"),
            ("/cbr_abc/messages", "/***/messages"),
            ("/auth/keys/Bearer%20eyJhbGci.eyJzdWIi.c2ln", "/auth/keys/***"),
            ("/chat/sessions/keyJohn.1", "/chat/sessions/keyJohn.1"),
            ("/", "/"),
        ] {
            assert_eq!(masked(path), shown);
        }
    }
}
