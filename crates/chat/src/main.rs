//! The `chat` binary: settings in, listeners bound, served until a signal.

use std::process::ExitCode;

use chat::llm::LlmService;
use common::{cli, config::Binary, http, store::Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let openapi = || chat::openapi().to_pretty_json().unwrap_or_default();
    cli::run(Binary::Chat, openapi, async |settings, shutdown| {
        let public = cli::listen("chat.listen", settings.chat.listen).await?;
        let admin = cli::listen("chat.admin_listen", settings.chat.admin_listen).await?;
        let metrics = http::metrics::install(&shutdown);
        let store = Store::open(&settings.store.url, &shutdown)?;
        let identities = chat::Identities::remote(&settings, &store, &shutdown)?;
        let llm = LlmService::new(&settings.llm, &shutdown)?;
        let service = chat::build(&settings, store, llm, identities, metrics, &shutdown);
        let (public, admin) = ((public, service.public), (admin, service.admin));
        Ok(
            http::serve_public_and_admin("chat", public, admin, &settings.server, &shutdown)
                .await?,
        )
    })
}
