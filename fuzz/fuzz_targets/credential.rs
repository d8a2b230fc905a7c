//! The `Authorization` header, the token in it, and the claims of a token as if its signature were good.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| common::identity::fuzzing::credential(bytes));
