//! Stories of what both services share.

mod bodies;
mod described;
mod harness;
mod harness_forge;
mod health;
mod logging;
mod measured;
mod origins;
mod problems;
mod rude;
mod secrets;
mod starting;

use tests::{Client, TestApp};

/// The two services, each with a path that takes a body.
async fn doors(app: &TestApp) -> [(Client, &'static str); 2] {
    let alice = app.login("alice").await;
    [
        (alice.clone(), "/chat/message"),
        (alice.at_auth(), "/auth/register"),
    ]
}
