//! Tokens and accounts where both services are involved.

mod auth_outage;
mod clocks;
mod concurrency;
mod forged_tokens;
mod idle_accounts;
mod revocation;
mod rotation;
mod tokens;
