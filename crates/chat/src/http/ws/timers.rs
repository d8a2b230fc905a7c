//! The deadlines of one socket in one timer: pings, a missing pong, a missing token, an expiring one.

use std::{pin::Pin, time::Duration};

use common::clock;
use tokio::time::{Instant, Sleep, sleep_until};

const PING_PERIOD: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
const EXPIRY_WARNING: Duration = Duration::from_secs(60);
const EXPIRY_GRACE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Ping,
    PongMissing,
    TokenMissing,
    ExpiresSoon,
    /// The token has expired, and no new one came.
    Expired,
}

#[derive(Debug)]
pub struct Timers {
    ping: Instant,
    pong: Option<Instant>,
    auth: Option<Instant>,
    warning: Option<Instant>,
    expiry: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Timers {
    /// For a socket that opens now; `must_authenticate` where it has no token and needs one.
    pub fn new(must_authenticate: bool) -> Self {
        let now = Instant::now();
        Self {
            ping: now + PING_PERIOD,
            pong: None,
            auth: must_authenticate.then(|| now + AUTH_TIMEOUT),
            warning: None,
            expiry: None,
            sleep: Box::pin(sleep_until(now + PING_PERIOD)),
        }
    }

    /// A token is there that expires at that time (Unix seconds).
    pub fn authenticated(&mut self, expires_at: Option<i64>) {
        self.auth = None;
        let now = Instant::now();
        let left = expires_at.map(|at| {
            let left = u64::try_from(at.saturating_mul(1000) - clock::now_ms());
            Duration::from_millis(left.unwrap_or_default())
        });
        self.warning = left.map(|left| now + left.saturating_sub(EXPIRY_WARNING));
        self.expiry = left.map(|left| now + left + EXPIRY_GRACE);
    }

    pub fn received(&mut self) {
        self.pong = None;
    }

    /// Resolves when something is due, and says what. Safe to drop.
    pub async fn due(&mut self) -> Due {
        let deadlines = [
            (Some(self.ping), Due::Ping),
            (self.pong, Due::PongMissing),
            (self.auth, Due::TokenMissing),
            (self.warning, Due::ExpiresSoon),
            (self.expiry, Due::Expired),
        ];
        let running = deadlines.into_iter().filter_map(|(at, due)| Some((at?, due)));
        let Some((at, due)) = running.min_by_key(|(at, _)| *at) else {
            return std::future::pending().await;
        };
        if self.sleep.deadline() != at {
            self.sleep.as_mut().reset(at);
        }
        self.sleep.as_mut().await;
        match due {
            Due::Ping => {
                self.ping = at + PING_PERIOD;
                self.pong = self.pong.or(Some(at + PONG_TIMEOUT));
            }
            Due::ExpiresSoon => self.warning = None,
            Due::PongMissing | Due::TokenMissing | Due::Expired => {}
        }
        due
    }
}
