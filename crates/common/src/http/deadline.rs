//! The moment by which all store calls of a request, up to the acceptance of its turn, must have ended.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{extract::FromRequestParts, http::request::Parts};

/// What a request's store calls get, all together.
const STORE_TIME: Duration = Duration::from_secs(1);

/// When a request's store calls must have ended: 1 s after its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request that arrives now; also the one of the calls after a body, whose arrival may have taken
    /// longer than the store ever does.
    pub fn from_now() -> Self {
        Self(Instant::now() + STORE_TIME)
    }
}

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get()
            .copied()
            .unwrap_or_else(Self::from_now))
    }
}
