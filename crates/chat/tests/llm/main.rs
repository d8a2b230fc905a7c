//! The model servers as the chat service sees them, told against real servers that misbehave on purpose.

mod cancelling;
mod chain;
mod fairness;
mod fixtures;
mod kit;
mod looking;
