//! The `chatbot` binary.

use std::process::ExitCode;

use common::{cli, config::Binary};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run_with(
        Binary::Chatbot,
        chatbot::openapi,
        chatbot::serve,
        auth::cli::run,
    )
}
