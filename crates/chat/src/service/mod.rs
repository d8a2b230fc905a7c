//! The rules of the chat service; nothing here knows of HTTP.

pub mod llm;
