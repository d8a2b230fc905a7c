//! One log line and two metrics for each request, also for one whose client disconnected before the answer.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{Method, Uri},
    response::Response,
};

use super::RequestId;
use crate::{errors::ApiError, identity::UserId};

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
            written: false,
        }
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// Writes the line of an answered request.
    pub(super) fn answered(mut self, response: &Response, error: Option<&ApiError>) {
        self.write(
            response.status().as_u16(),
            response.extensions().get(),
            error,
        );
    }

    fn write(&mut self, status: u16, user: Option<&UserId>, error: Option<&ApiError>) {
        self.written = true;
        let elapsed = self.started.elapsed();
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        self.count(route, status, elapsed.as_secs_f64());
        if let Some(error) = error {
            ::metrics::counter!("http_problems_total", "service" => self.service, "code" => error.code.as_str())
                .increment(1);
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    service = self.service,
                    method = method_label(&self.method),
                    route,
                    path = %self.uri.path().escape_default(),
                    status,
                    code = error.map(|error| error.code.as_str()),
                    pointer = error.and_then(|error| error.errors.first()).map(|wrong| wrong.pointer.as_str()),
                    duration_ms = elapsed.as_secs_f64() * 1000.0,
                    request_id = self.id.as_str(),
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
        let method = method_label(&self.method);
        let route = route.to_owned();
        let labels = [
            ::metrics::Label::from_static_parts("service", self.service),
            ::metrics::Label::from_static_parts("method", method),
            ::metrics::Label::new("route", route),
        ];
        ::metrics::histogram!("http_request_duration_seconds", labels.iter()).record(seconds);
        let [service, method, route] = labels;
        let labels = vec![
            service,
            method,
            route,
            ::metrics::Label::new("status", status.to_string()),
        ];
        ::metrics::counter!("http_requests_total", labels).increment(1);
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
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// An error with its whole chain of causes, in one line.
fn error_chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        text.push_str(": ");
        text.push_str(&this.to_string());
        cause = this.source();
    }
    text
}
