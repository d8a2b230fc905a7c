//! The `chatbot` binary.

use std::process::ExitCode;

use common::{cli, config::Binary};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program = cli::Program {
        binary: Binary::Chatbot,
        openapi: chatbot::openapi,
        serve: chatbot::serve,
        connect: chat::connect::model_servers,
    };
    cli::run(program, auth::cli::run)
}
