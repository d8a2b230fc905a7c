//! The rate limit as a middleware: inside the identity layer, round the routes that cost something.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Caller, RateLimiter};
use crate::{
    http::{Deadline, Peer},
    identity::{Identity, UserId},
};

/// Counts the request by its user, or by its address where it has none, before its handler may refuse it; every answer
/// says what is left. Use it with `axum::middleware::from_fn_with_state(limiter, limit)`, inside `identify`.
///
/// A router without the common layers is counted by the unspecified address.
pub async fn limit(State(limiter): State<RateLimiter>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let who = match extensions.get::<Identity>() {
        Some(identity) => Caller::User(identity.owner.clone()),
        None => Caller::Address(
            extensions
                .get()
                .map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer: &Peer| peer.0),
        ),
    };
    let deadline = extensions.get().copied().unwrap_or_else(Deadline::from_now);
    let mut response = match limiter.admit_by(&who, deadline.0).await {
        Ok(admission) => {
            let mut response = next.run(request).await;
            limiter.mark(response.headers_mut(), &who, &admission);
            response
        }
        Err(refusal) => refusal.into_response(),
    };
    if let Caller::User(owner) = who {
        response.extensions_mut().insert::<UserId>(owner.user);
    }
    response
}
