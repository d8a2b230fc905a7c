//! Ollama's lines: any bytes end in an end or an error, and the same ones wherever they are cut.
#![no_main]

use common::config::ProviderKind;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chat::fuzzing::answer(ProviderKind::Ollama, bytes));
