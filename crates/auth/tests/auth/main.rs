//! Stories of `auth`, told through its HTTP door on every store there is.

mod account;
mod api_keys;
mod kit;
mod limits;
mod login;
mod refresh;
mod tokens;
