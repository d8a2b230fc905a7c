//! One line and two measurements for each request, also for one whose client left before the answer.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{Method, Uri},
    response::Response,
};

use super::RequestId;
use crate::{errors::ApiError, identity::UserId};

/// What is logged where the client went away before there was an answer.
const CLIENT_LEFT: u16 = 499;

/// Who calls a listener: people, whose requests are logged at `info`, or probes, at `debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Public,
    Admin,
}

/// One request, from its arrival to its answer's head.
pub(super) struct Record {
    service: &'static str,
    audience: Audience,
    begun: Instant,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
    id: RequestId,
    written: bool,
}

impl Record {
    pub(super) fn begin(
        service: &'static str,
        audience: Audience,
        request: &Request,
        id: &RequestId,
    ) -> Self {
        Self {
            service,
            audience,
            begun: Instant::now(),
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
        let elapsed = self.begun.elapsed();
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
                    method = bounded(&self.method),
                    route,
                    path = %self.uri.path().escape_default(),
                    status,
                    code = error.map(|error| error.code.as_str()),
                    pointer = error.and_then(|error| error.errors.first()).map(|wrong| wrong.pointer.as_str()),
                    duration_ms = elapsed.as_secs_f64() * 1000.0,
                    request_id = self.id.as_str(),
                    user = user.map(UserId::as_str),
                    error = error.and_then(|error| error.source.as_deref()).map(causes),
                    "request"
                )
            };
        }
        match (self.audience, status) {
            (_, 500) => line!(error),
            (Audience::Public, 501..) => line!(warn),
            (Audience::Public, _) => line!(info),
            (Audience::Admin, _) => line!(debug),
        }
    }

    fn count(&self, route: &str, status: u16, seconds: f64) {
        let method = bounded(&self.method);
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

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            self.write(CLIENT_LEFT, None, None);
        }
    }
}

/// A label must not be the caller's to invent.
fn bounded(method: &Method) -> &'static str {
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

/// An error with everything that caused it, in one line.
fn causes(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        text.push_str(": ");
        text.push_str(&this.to_string());
        cause = this.source();
    }
    text
}
