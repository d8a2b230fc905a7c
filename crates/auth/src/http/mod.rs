//! The HTTP API: handlers with their requests and responses, and the routes.

mod account;
mod api_keys;
mod error;
mod login;
mod public;
pub mod router;
mod validate;
