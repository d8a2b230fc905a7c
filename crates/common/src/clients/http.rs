//! The HTTP clients, with their timeouts.
