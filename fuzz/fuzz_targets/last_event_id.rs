//! Where a stream is to go on, in the header and in the query.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chat::fuzzing::last_event_id(bytes));
