//! The `auth` binary: settings in, listeners bound, served until a signal.

use std::process::ExitCode;

use common::{cli, config::Binary, http, store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let serve = async |settings: common::config::Settings, shutdown| {
        let public = cli::listen("auth.listen", settings.auth.listen).await?;
        let admin = cli::listen("auth.admin_listen", settings.auth.admin_listen).await?;
        let metrics = http::metrics::install(&shutdown);
        let store = store::start(&settings.store, store::NewStore::Number, &shutdown).await?;
        let service = auth::build(&settings, store, metrics, &shutdown).await?;
        let (public, admin) = ((public, service.public), (admin, service.admin));
        Ok(http::serve_public_and_admin("auth", public, admin, &settings.server, &shutdown).await?)
    };
    let program = cli::Program {
        binary: Binary::Auth,
        openapi: || auth::openapi().to_pretty_json().unwrap_or_default(),
        serve,
        connect: async |_: &_, _: &_| Vec::new(),
    };
    cli::run_with(program, auth::cli::run)
}
