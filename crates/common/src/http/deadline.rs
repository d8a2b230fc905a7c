//! The deadline of a request's store calls, up to the acceptance of its turn.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, request::Parts},
};

/// The limit for all store calls of a request together.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// When a request's store calls must have ended: 1 s after its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request that arrives now. Handlers start it anew after reading a body, which may take longer
    /// than the store ever does.
    pub fn from_now() -> Self {
        Self(Instant::now() + STORE_TIMEOUT)
    }

    /// The deadline of a request, by what the layers left with it.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or_else(Self::from_now)
    }
}

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
