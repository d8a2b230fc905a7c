//! The `chat` binary: settings in, listeners bound, served until a signal.

use std::process::ExitCode;

use chat::llm::LlmService;
use common::{cli, config::Binary, http, store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let serve = async |settings: common::config::Settings, shutdown| {
        let listeners =
            cli::listen("chat", settings.chat.listen, settings.chat.admin_listen).await?;
        let metrics = http::metrics::install(&shutdown);
        let store = store::start(&settings.store, store::NewStore::LeaveAlone, &shutdown).await?;
        let identities = chat::Identities::remote(&settings, &store, &shutdown)?;
        let llm = LlmService::new(&settings.llm, &shutdown)?;
        let service = chat::build(&settings, store, llm, identities, metrics, &shutdown);
        let routes = (service.public, service.admin);
        let server = &settings.server;
        Ok(http::serve_public_and_admin("chat", listeners, routes, server, &shutdown).await?)
    };
    let program = cli::Program {
        binary: Binary::Chat,
        openapi: || chat::openapi().to_pretty_json().unwrap_or_default(),
        serve,
        connect: chat::connect::model_servers_and_auth,
    };
    cli::run(program, async |command: cli::NoExtra, _| match command {})
}
