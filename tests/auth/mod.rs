//! Tokens and accounts where both services are involved.

mod auth_outage;
mod clocks;
mod concurrency;
mod forged_tokens;
mod revocation;
mod rotation;
mod tokens;
