//! The Redis connection, with its timeouts and its reconnection.
