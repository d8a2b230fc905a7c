//! Accounts, logins, refresh tokens and passwords as types and rules: no HTTP, nothing of the store, no I/O.

pub mod account;
pub mod attempts;
pub mod login;
pub mod password;
pub mod refresh_token;
