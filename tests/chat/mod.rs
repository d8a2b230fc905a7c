//! Stories of messages, sessions, streams, sockets, and of what happens when something breaks.

mod accounts;
mod cancelling;
mod compatible;
mod deaths;
mod fairness;
mod frames;
mod leaving;
mod limits;
mod model_choice;
mod model_faults;
mod openai_requests;
mod openai_streams;
mod order;
mod prompts;
mod rates;
mod readers;
mod regenerating;
mod repeating;
mod resuming;
mod routes;
mod sdks;
mod sessions;
mod sockets;
mod store_faults;
mod store_states;
mod walk;
