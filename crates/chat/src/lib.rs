//! The chat service: messages, sessions, streams, and the model servers behind them.
//!
//! `api` parses and answers, `service` decides, `repository` keeps, `adapters` talk to model servers, `models` are the
//! words they share.

pub mod adapters;
pub mod models;
pub mod repository;
pub mod service;
