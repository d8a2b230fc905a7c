//! Rate limit: one bucket for each user, or for each address without identity, shared by all instances.
//!
//! Keys (`scope` is the service's key family; each service counts on its own):
//!
//! | key | counts |
//! | --- | --- |
//! | `{scope}:{user}:<generation>:rate` | one account's calls and socket messages |
//! | `{scope}:{addr:<address>}:rate` | calls without identity from one address (IPv6: one /64) |
//!
//! [`RateLimiter::of`] counts under another last part.

use std::{net::IpAddr, sync::Arc};

use axum::http::{HeaderName, HeaderValue};

use crate::{
    errors::{ApiError, Code},
    http::network,
    identity::Owner,
    store::{Admission, Bucket, Quota, Store},
};

mod layer;
mod ticket;

pub use layer::{limit, limit_by_handler};
pub use ticket::{RateLimitError, RateLimitTicket};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    User(Owner),
    Address(IpAddr),
}

impl Caller {
    fn key(&self, scope: &str, what: &str) -> String {
        match self {
            Caller::User(owner) => {
                format!("{scope}:{{{}}}:{}:{what}", owner.user, owner.generation)
            }
            Caller::Address(address) => format!("{scope}:{{addr:{}}}:{what}", network(*address)),
        }
    }
}

/// The rate limit of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    store: Store,
    quota: Quota,
    scope: &'static str,
    /// What is counted: the last part of the key.
    what: &'static str,
    user_policy: Arc<HeaderValue>,
    address_policy: Arc<HeaderValue>,
}

impl RateLimiter {
    /// `scope` is the key family of the service (`a`, `c`).
    pub fn new(store: Store, quota: Quota, scope: &'static str) -> Self {
        let policy = |name| Arc::new(policy(name, quota));
        Self {
            store,
            quota,
            scope,
            what: "rate",
            user_policy: policy("user"),
            address_policy: policy("address"),
        }
    }

    /// Counts in a bucket of its own, for calls that cost nothing of the usual one.
    #[must_use]
    pub fn of(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// A ticket for one request of `caller`, not counted yet.
    pub fn ticket(&self, caller: Caller) -> RateLimitTicket {
        RateLimitTicket::new(self.clone(), caller)
    }

    fn bucket(&self, who: &Caller) -> Bucket {
        Bucket { key: who.key(self.scope, self.what), quota: self.quota }
    }

    fn headers(&self, who: &Caller, admission: &Admission) -> [(HeaderName, HeaderValue); 2] {
        let (name, policy) = match who {
            Caller::User(_) => ("user", &self.user_policy),
            Caller::Address(_) => ("address", &self.address_policy),
        };
        let reset = admission.reset_after.as_millis().div_ceil(1000);
        let left = format!("\"{name}\";r={};t={reset}", admission.remaining);
        let left = HeaderValue::from_str(&left).unwrap_or(HeaderValue::from_static(""));
        [(RATELIMIT_POLICY, HeaderValue::clone(policy)), (RATELIMIT, left)]
    }
}

impl From<RateLimitError> for ApiError {
    fn from(error: RateLimitError) -> Self {
        match error {
            RateLimitError::Limited { by_address, retry_after } => {
                let detail = if by_address {
                    "Too many requests without a token came from this address; wait for Retry-After."
                } else {
                    "You have sent too many requests; wait for Retry-After."
                };
                ApiError::new(Code::RateLimited, detail).retry_after(retry_after)
            }
            RateLimitError::Store(error) => error.into(),
        }
    }
}

fn policy(name: &str, quota: Quota) -> HeaderValue {
    let window = quota.period.as_millis().div_ceil(1000).max(1);
    let text = format!("\"{name}\";q={};w={window}", quota.burst);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;

    #[test]
    fn each_caller_has_a_key_of_its_own() {
        let user = |generation| {
            Caller::User(Owner { user: UserId::parse("1.2.3.4").unwrap(), generation })
        };
        assert_eq!(user(0).key("c", "rate"), "c:{1.2.3.4}:0:rate");
        assert_eq!(user(1).key("a", "rate"), "a:{1.2.3.4}:1:rate");
        assert_eq!(
            Caller::Address("1.2.3.4".parse().unwrap()).key("c", "rate"),
            "c:{addr:1.2.3.4}:rate"
        );
        assert_eq!(
            Caller::Address("2001:db8::7".parse().unwrap()).key("c", "rate"),
            "c:{addr:2001:db8::}:rate"
        );
        assert_eq!(
            Caller::Address("::ffff:1.2.3.4".parse().unwrap()).key("c", "rate"),
            "c:{addr:1.2.3.4}:rate"
        );
    }

    #[test]
    fn a_window_is_at_least_a_second() {
        let quota = |millis| Quota { burst: 10, period: std::time::Duration::from_millis(millis) };
        assert_eq!(policy("user", quota(1000)), "\"user\";q=10;w=1");
        assert_eq!(policy("user", quota(100)), "\"user\";q=10;w=1");
        assert_eq!(policy("address", quota(1500)), "\"address\";q=10;w=2");
    }
}
