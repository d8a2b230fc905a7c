//! What the mock model server and the load generator share: the clock, the plan of an answer, HTTP in its plainest form.

pub mod http;
pub mod plan;
pub mod process;
pub mod stamp;
