//! The cursors of lists: one that is taken is written as it was read.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| chat::fuzzing::cursor(text));
