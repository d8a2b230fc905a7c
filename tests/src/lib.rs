//! The harness: real processes of ours, a throw-away Redis, model servers that misbehave on request, and clients that
//! check what they read. A test in `auth/`, `chat/` or `common/` is written with these and knows nothing of the code inside.
//!
//! * [`TestApp`]: `auth` and any number of `chat`, or `chatbot`, as child processes; [`Process`] is one of them
//! * [`Redis`]: a redis-server of its own; [`Proxy`]: the wire to it, or to a model server, that can be cut
//! * [`FakeModel`]: a model server (Ollama's wire or OpenAI's) that plays an [`Answer`]
//! * [`Client`], [`EventStream`], [`Socket`], [`raw`]: REST, SSE and NDJSON, WebSocket, bare bytes; [`Completion`], [`MessageStream`]: `/v1`
//! * [`Collector`]: takes traces
//! * [`LoadBalancer`]: HAProxy or nginx in front of two instances, with the project's configurations
//! * [`Forge`]: tokens nobody should accept; [`Auditor`]: what was acknowledged against what is stored
//!
//! A test is a function in the file of its feature, named as a claim, and in the list at that file's head:
//!
//! ```text
//! on_both_stores!(a_message_is_answered);
//!
//! async fn a_message_is_answered(on: Backend) {
//!     let app = TestApp::builder(on).chats(2).set("chat.lease", "2s").start().await;
//!     app.model.answer_to("hello", Answer::partial(["half"]).reset());
//!     let alice = app.login("alice").await;
//!     alice.at(app.chat(app.instances() - 1)).send("work", "hello").await.problem(502, "llm_failed");
//! }
//! ```
//!
//! It shares nothing with any other test: store, processes, ports and model server are its own. It waits with
//! [`eventually`] or [`within`], never by sleeping for luck.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a harness tells of its failures by panicking, and it is a client, not a service: it has clients and tasks of its own"
)]

mod app;
mod auditor;
mod client;
mod collector;
mod completions;
mod events;
mod forge;
mod load_balancer;
mod message_stream;
pub mod models;
mod process;
mod proxy;
pub mod raw;
mod redis;
mod reply;
mod socket;
mod wait;

pub use self::{
    app::{Backend, Builder, TestApp, measured_at},
    auditor::Auditor,
    client::Client,
    collector::{Collector, Span},
    completions::{Completion, Line, completion_of, text_of_chunks},
    events::{Event, EventStream, read_frames, text_of, thinking_of},
    forge::{Forge, signing_key},
    load_balancer::LoadBalancer,
    message_stream::{MessageStream, anthropic_error, message_of, text_of_events},
    models::{Answer, ChatRequest, FakeModel, Gate, fixture},
    process::{Process, free_port, with_wrong_clock},
    proxy::{Mode, Proxy},
    redis::{Redis, RedisOptions},
    reply::Reply,
    socket::{Closed, Socket},
    wait::{PATIENCE, eventually, within},
};
