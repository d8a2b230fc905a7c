//! What both services share.

mod bodies;
mod deployment;
mod harness;
mod harness_forge;
mod health;
mod logging;
mod metrics;
mod openapi;
mod origins;
mod problems;
mod readme;
mod secrets;
mod slowloris;
mod startup;
mod traces;

use tests::{Client, TestApp};
/// The two services, each with a path that takes a body.
async fn doors(app: &TestApp) -> [(Client, &'static str); 2] {
    let alice = app.login("alice").await;
    [(alice.clone(), "/chat/message"), (alice.at_auth(), "/auth/register")]
}
