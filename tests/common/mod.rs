//! Stories of what both services share.

mod harness;
mod health;
mod problems;
mod secrets;
mod starting;
