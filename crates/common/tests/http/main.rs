//! The HTTP house through its door: a router on port 0, raw TCP clients and a real HTTP client.

mod connections;
mod extractors;
mod layers;
mod operations;
mod rate_limit;
mod site;
