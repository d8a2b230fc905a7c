//! What a client sends on a socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| chat::fuzzing::frame(text));
