//! The layers that every request and response passes, outermost first.

use std::{any::Any, io, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use ipnet::IpNet;
use tracing::Instrument;

use super::{
    ClientIp, Deadline, ErrorShape, HostPolicy, RequestId, RequestLimits, X_REQUEST_ID,
    access_log::{ListenerKind, RequestLog},
    cors::Cors,
    metrics, problem,
};
use crate::{config, errors::ApiError};

const NOTHING_LOADED: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// How the common layers of one listener behave.
#[derive(Clone)]
pub struct Layers {
    /// The name in logs and metrics.
    pub service: &'static str,
    pub hosts: HostPolicy,
    /// Browser origins that may read answers, beside its own.
    pub allowed_origins: Vec<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: RequestLimits,
    pub error_shape: Option<ErrorShape>,
    listener: ListenerKind,
}

impl Layers {
    /// The layers of a public listener; no cross-origin calls and no other error shape unless set.
    pub fn new(service: &'static str, hosts: HostPolicy, server: &config::Server) -> Self {
        Self {
            hosts,
            trusted_proxies: server.trusted_proxies.clone(),
            ..Self::admin(service)
        }
        .public()
    }

    /// The layers of an admin listener: every name is answered to, and its lines are logged at `debug`.
    pub fn admin(service: &'static str) -> Self {
        Self {
            service,
            hosts: HostPolicy::any(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            limits: RequestLimits::default(),
            error_shape: None,
            listener: ListenerKind::Admin,
        }
    }

    fn public(mut self) -> Self {
        self.listener = ListenerKind::Public;
        self
    }
}

/// Puts the common layers round every route of the router, its 404 and its 405. Outermost first: request id, [`ClientIp`]
/// and [`Deadline`]; access log and metrics; security headers and CORS; the body of every error; panic guard; limits;
/// Host rule.
pub fn wrap(router: Router, layers: Layers) -> Router {
    let cors = Cors::new(&layers.allowed_origins);
    if layers.listener == ListenerKind::Public {
        metrics::init_problem_counters(layers.service);
    }
    router.layer(from_fn_with_state(
        Arc::new(Outermost { layers, cors }),
        outermost,
    ))
}

struct Outermost {
    layers: Layers,
    cors: Cors,
}

async fn outermost(
    State(common): State<Arc<Outermost>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Outermost { layers, cors } = &*common;
    let id = RequestId::of(request.headers());
    let client_ip = ClientIp::of(
        request.extensions(),
        request.headers(),
        &layers.trusted_proxies,
    );
    let extensions = request.extensions_mut();
    extensions.insert(id.clone());
    extensions.insert(client_ip);
    extensions.insert(Deadline::from_now());
    let record = RequestLog::begin(layers.service, layers.listener, &request, &id);
    let origin = cors.origin(request.headers());

    let mut response = match common.admit(request, origin.as_ref()) {
        Ok(request) => {
            let span = tracing::info_span!("request", request_id = id.as_str());
            catch_panic(next.run(request)).instrument(span).await
        }
        Err(answer) => *answer,
    };

    let error = problem::take(&mut response);
    if let Some(error) = &error {
        problem::write(
            &mut response,
            error,
            &id,
            record.path(),
            layers.error_shape.as_ref(),
        );
    }
    cors.mark(response.headers_mut(), origin);
    set_headers(&mut response, &id);
    record.answered(&response, error.as_ref());
    response
}

impl Outermost {
    /// The request with its bounded body, or the answer of whichever rule ends it here.
    fn admit(
        &self,
        request: Request,
        origin: Option<&HeaderValue>,
    ) -> Result<Request, Box<Response>> {
        let Layers { limits, hosts, .. } = &self.layers;
        limits
            .check(&request)
            .and_then(|()| hosts.check(&request))
            .map_err(|refusal: ApiError| Box::new(refusal.into_response()))?;
        if let Some(answer) = self.cors.preflight(&request, origin) {
            return Err(Box::new(answer));
        }
        Ok(request.map(|body| limits.bound(body)))
    }
}

/// Answers a panic with a 500. (Not `tower_http::catch_panic`, which boxes the body of every response.)
async fn catch_panic(handler: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(response) => response,
        Err(payload) => panicked(&*payload).into_response(),
    }
}

/// The error that stands for a panic; the message is for the log.
fn panicked(payload: &(dyn Any + Send)) -> ApiError {
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    ApiError::internal(io::Error::other(format!(
        "a handler panicked: {}",
        message.unwrap_or("without a message")
    )))
}

/// Sets the headers of every response; a handler's own `Cache-Control` and `Content-Security-Policy` stay.
fn set_headers(response: &mut Response, id: &RequestId) {
    let headers = response.headers_mut();
    if let Some(id) = id.header_value() {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    let defaults: [(HeaderName, HeaderValue); 2] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_SECURITY_POLICY, NOTHING_LOADED),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(value);
    }
}
