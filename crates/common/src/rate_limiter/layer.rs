//! The rate limit as a middleware: inside the identity layer, round the routes that cost something.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Call, Caller, RateLimiter};
use crate::{
    http::{ClientIp, Deadline},
    identity::{Identity, UserId},
};

/// Counts the request by its user, or by its address where it has none, before its handler may refuse it; every answer
/// says what is left. Use it with `axum::middleware::from_fn_with_state(limiter, limit)`, inside `identify`.
///
/// A router without the common layers is counted by the unspecified address.
pub async fn limit(State(limiter): State<RateLimiter>, request: Request, next: Next) -> Response {
    let call = call_of(&limiter, &request);
    let deadline = request.extensions().get().copied();
    let Deadline(deadline) = deadline.unwrap_or_else(Deadline::from_now);
    let response = match call.count(deadline).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    limiter.mark(response, &call)
}

/// As [`limit`], for handlers that count the request themselves, in one step with what they first write; they find it
/// as an extension. What they refuse without counting it is counted after them: the limit's refusal comes
/// first, whatever else is wrong.
pub async fn limit_by_handler(
    State(limiter): State<RateLimiter>,
    mut request: Request,
    next: Next,
) -> Response {
    let call = call_of(&limiter, &request);
    request.extensions_mut().insert(call.clone());
    let mut response = next.run(request).await;
    // From here on: the body may have taken its time.
    let Deadline(deadline) = Deadline::from_now();
    if let Err(refusal) = call.count(deadline).await
        && !response.status().is_success()
    {
        response = refusal.into_response();
    }
    limiter.mark(response, &call)
}

fn call_of(limiter: &RateLimiter, request: &Request) -> Call {
    let extensions = request.extensions();
    let who = match extensions.get::<Identity>() {
        Some(identity) => Caller::User(identity.owner.clone()),
        None => Caller::Address(
            extensions
                .get()
                .map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer: &ClientIp| {
                    peer.0
                }),
        ),
    };
    limiter.call(who)
}

impl RateLimiter {
    /// Adds what the answer says of the limit and of the user, unless the answer has its own headers (a socket's, another
    /// limit's).
    fn mark(&self, mut response: Response, call: &Call) -> Response {
        if let Some(admission) = call.admission() {
            for (name, value) in self.headers(call.who(), admission) {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        if let Caller::User(owner) = call.who() {
            let user: UserId = owner.user.clone();
            response.extensions_mut().insert(user);
        }
        response
    }
}
