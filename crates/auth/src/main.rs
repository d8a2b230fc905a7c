//! The `auth` binary: settings in, listeners bound, served until a signal.

use std::process::ExitCode;

use common::{cli, config::Binary, http, store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let serve = async |settings: common::config::Settings, shutdown| {
        let listeners =
            cli::listen("auth", settings.auth.listen, settings.auth.admin_listen).await?;
        let metrics = http::metrics::install(&shutdown);
        let store = store::start(&settings.store, store::NewStore::Number, &shutdown).await?;
        let service = auth::build(&settings, store, metrics, &shutdown).await?;
        let routes = (service.public, service.admin);
        let server = &settings.server;
        Ok(http::serve_public_and_admin("auth", listeners, routes, server, &shutdown).await?)
    };
    let program = cli::Program {
        binary: Binary::Auth,
        openapi: || auth::openapi().to_pretty_json().unwrap_or_default(),
        serve,
        connect: async |_: &_, _: &_| Vec::new(),
    };
    cli::run(program, auth::cli::run)
}
