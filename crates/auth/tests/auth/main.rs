//! Stories of `auth`, told through its HTTP door on every store there is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story tells of its failures by panicking"
)]

mod account;
mod api_keys;
mod endings;
mod instances;
mod kit;
mod limits;
mod login;
mod refresh;
mod tokens;
