//! The layers that every request and response passes, outermost first.

use std::{io, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use ipnet::IpNet;
use tracing::Instrument;

use super::{
    ClientIp, Deadline, ErrorShape, HostPolicy, LoadShedder, RequestId, RequestLimits,
    RequestPermit, X_REQUEST_ID,
    access_log::{ListenerKind, RequestLog},
    cors::Cors,
    metrics, problem,
};
use crate::{config, errors::ApiError, otel::Span};

const NOTHING_LOADED: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

#[derive(Clone)]
pub struct Layers {
    pub service: &'static str,
    pub hosts: HostPolicy,
    /// Browser origins that may read answers, beside its own.
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub limits: RequestLimits,
    pub error_shape: Option<ErrorShape>,
    /// Refuses what this instance cannot take; an admin listener has none.
    pub load_shedder: Option<LoadShedder>,
    listener: ListenerKind,
}

impl Layers {
    /// The layers of a public listener; no cross-origin calls and no other error shape unless set.
    pub fn new(service: &'static str, hosts: HostPolicy, server: &config::Server) -> Self {
        Self {
            hosts,
            trusted_proxies: server.trusted_proxies.clone(),
            load_shedder: Some(LoadShedder::default()),
            listener: ListenerKind::Public,
            ..Self::admin(service)
        }
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
            load_shedder: None,
            listener: ListenerKind::Admin,
        }
    }

    /// Counts a request as in flight, unless it is a health call, which is always answered.
    fn enter(
        &self,
        request: &Request,
        client_ip: ClientIp,
    ) -> Result<Option<RequestPermit>, ApiError> {
        let is_free = matches!(request.uri().path(), "/health" | "/livez" | "/readyz");
        match &self.load_shedder {
            Some(load_shedder) if !is_free => {
                let caller = load_shedder.caller(request.headers(), client_ip.0);
                load_shedder.enter(caller).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Puts the common layers round every route of the router, its 404 and its 405. Outermost first: request id, [`ClientIp`]
/// and [`Deadline`]; load shedding; access log and metrics; security headers and CORS; the body of every error; panic guard; limits;
/// Host rule.
pub fn wrap(router: Router, layers: Layers) -> Router {
    let cors = Cors::new(&layers.allowed_origins);
    if layers.listener == ListenerKind::Public {
        metrics::init_problem_counters(layers.service);
    }
    router.layer(from_fn_with_state(Arc::new(Outermost { layers, cors }), outermost))
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
    let client_ip = ClientIp::of(request.extensions(), request.headers(), &layers.trusted_proxies);
    let permit = match layers.enter(&request, client_ip) {
        Ok(permit) => permit,
        Err(error) => {
            if let Some(load_shedder) = &layers.load_shedder {
                load_shedder.pause().await;
            }
            return common.refuse(&request, error, &id);
        }
    };
    let extensions = request.extensions_mut();
    extensions.insert(id.clone());
    extensions.insert(client_ip);
    extensions.insert(Deadline::from_now());
    let mut record = RequestLog::begin(layers.service, layers.listener, &request, &id);
    // Neither the admin listener nor health calls.
    if permit.is_some() {
        record.trace(request.headers());
    }
    let trace = record.span.clone();
    let origin = cors.origin(request.headers());

    let mut response = match common.admit(request, origin.as_ref()) {
        Ok(request) => {
            let span = tracing::info_span!("request", request_id = id.as_str());
            trace.run(catch_panic(next.run(request)).instrument(span)).await
        }
        Err(answer) => *answer,
    };

    let error = common.complete(&mut response, &id, record.path(), origin);
    record.answered(&response, error.as_ref());
    held(response, permit, trace)
}

/// The response, in flight until its body has been read to the end.
fn held(response: Response, permit: Option<RequestPermit>, trace: Span) -> Response {
    if permit.is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _in_flight = (&permit, &trace);
            frame
        }))
    })
}

impl Outermost {
    /// The answer to a request that is not let in. It must cost little, so no log line is written for each.
    fn refuse(&self, request: &Request, error: ApiError, id: &RequestId) -> Response {
        metrics::count_problem(self.layers.service, error.code);
        let mut response = error.into_response();
        let origin = self.cors.origin(request.headers());
        self.complete(&mut response, id, request.uri().path(), origin);
        response
    }

    /// Writes the body of an error, and the headers of every response. Returns the error that it was.
    fn complete(
        &self,
        response: &mut Response,
        id: &RequestId,
        path: &str,
        origin: Option<HeaderValue>,
    ) -> Option<ApiError> {
        let error = problem::take(response);
        if let Some(error) = &error {
            problem::write(response, error, id, path, self.layers.error_shape.as_ref());
        }
        self.cors.mark(response.headers_mut(), origin);
        set_headers(response, id);
        error
    }

    /// The request with its bounded body, or the answer of whichever rule ends it here.
    fn admit(
        &self,
        request: Request,
        origin: Option<&HeaderValue>,
    ) -> Result<Request, Box<Response>> {
        let Layers { limits, hosts, .. } = &self.layers;
        let allowed = limits.check(&request).and_then(|()| hosts.check(&request));
        allowed.map_err(|refusal| Box::new(refusal.into_response()))?;
        if let Some(answer) = self.cors.preflight(&request, origin) {
            return Err(Box::new(answer));
        }
        Ok(limits.bound(request))
    }
}

/// Answers a panic with a 500. (Not `tower_http::catch_panic`, which boxes the body of every response.)
async fn catch_panic(handler: impl Future<Output = Response>) -> Response {
    let payload = match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(response) => return response,
        Err(payload) => payload,
    };
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let cause = format!("a handler panicked: {}", message.unwrap_or("without a message"));
    ApiError::internal(io::Error::other(cause)).into_response()
}

/// Sets the headers of every response; a handler's own `Cache-Control` and `Content-Security-Policy` stay.
fn set_headers(response: &mut Response, id: &RequestId) {
    let headers = response.headers_mut();
    if let Some(id) = id.header_value() {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NOTHING_LOADED);
}
