//! Tests of the HTTP API of `auth`, on every store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod account;
mod api_keys;
mod cleanup;
mod endings;
mod instances;
mod kit;
mod limits;
mod login;
mod openapi;
mod refresh;
mod tokens;
