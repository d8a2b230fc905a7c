//! The `auth` service: accounts, logins, tokens and API keys.

pub mod api;
pub mod models;
pub mod repository;
pub mod service;
