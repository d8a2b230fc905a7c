//! Stories of messages, sessions, streams, sockets, and of what happens when something breaks.
