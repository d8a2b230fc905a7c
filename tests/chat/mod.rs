//! Stories of messages, sessions, streams, sockets, and of what happens when something breaks.

mod cancelling;
mod compatible;
mod crashes;
mod deaths;
mod enduring;
mod frames;
mod leaving;
mod limits;
mod model_choice;
mod model_faults;
mod order;
mod prompts;
mod protocol;
mod random_talk;
mod rates;
mod readers;
mod regenerating;
mod repeating;
mod resuming;
mod routes;
mod sessions;
mod sockets;
mod store_faults;
mod store_states;
mod walk;
