//! Turns the chunks of a model server into an answer.

pub(crate) mod answer_builder;
pub mod stateless;
