//! The rate limit as axum middleware, used inside the identity layer.

use std::net::Ipv4Addr;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Caller, RateLimitTicket, RateLimiter};
use crate::{
    errors::ApiError,
    http::{ClientIp, Deadline},
    identity::Identity,
};

/// Counts the request by its user, or by its address without identity, before its handler runs; every response carries
/// the `RateLimit` headers. Use it with `axum::middleware::from_fn_with_state(limiter, limit)`, inside `identify`.
///
/// A router without the common layers is counted by the unspecified address.
pub async fn limit(State(limiter): State<RateLimiter>, request: Request, next: Next) -> Response {
    let ticket = ticket_of(&limiter, &request);
    let Deadline(deadline) = Deadline::of(request.extensions());
    let response = match ticket.check(deadline).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::from(refusal).into_response(),
    };
    limiter.mark(response, &ticket)
}

/// As [`limit`], for handlers that count the request together with their first write; they find a [`RateLimitTicket`]
/// among the request's extensions. A request that the handler refused without counting is counted afterwards:
/// `rate_limited` comes before every other refusal.
pub async fn limit_by_handler(
    State(limiter): State<RateLimiter>,
    mut request: Request,
    next: Next,
) -> Response {
    let ticket = ticket_of(&limiter, &request);
    request.extensions_mut().insert(ticket.clone());
    let mut response = next.run(request).await;
    // From here on: the body may have taken its time.
    let Deadline(deadline) = Deadline::from_now();
    if let Err(refusal) = ticket.check(deadline).await
        && !response.status().is_success()
    {
        response = ApiError::from(refusal).into_response();
    }
    limiter.mark(response, &ticket)
}

fn ticket_of(limiter: &RateLimiter, request: &Request) -> RateLimitTicket {
    let extensions = request.extensions();
    let peer = extensions.get().map_or(Ipv4Addr::UNSPECIFIED.into(), |ClientIp(peer)| *peer);
    let user = extensions.get().map(|identity: &Identity| identity.owner.clone());
    limiter.ticket(user.map_or(Caller::Address(peer), Caller::User))
}

impl RateLimiter {
    /// Adds the headers and the user to the response, except headers that it has already (a socket's, another limit's).
    fn mark(&self, mut response: Response, ticket: &RateLimitTicket) -> Response {
        if let Some(admission) = ticket.0.admission.get() {
            for (name, value) in self.headers(&ticket.0.caller, admission) {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        if let Caller::User(owner) = &ticket.0.caller {
            response.extensions_mut().insert(owner.user.clone());
        }
        response
    }
}
