//! Refusals and failures: a closed list of codes, problem documents (RFC 9457), and extractors that refuse with them.

mod code;
mod decode_error;
pub mod extract;
pub mod json;
mod query;
mod response;
mod typed;

pub use self::{
    code::Code,
    response::{ApiError, FieldError, Problem, retry_after_seconds, status_of},
};
