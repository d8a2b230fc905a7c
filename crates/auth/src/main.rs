//! The `auth` binary: reads the settings, binds, serves.

use std::process::ExitCode;

use common::{
    cli,
    config::{Binary, Settings},
    http::{ConnectionLimits, serve},
    shutdown::Shutdown,
    store::Store,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run_with(Binary::Auth, auth::openapi_json, run, auth::cli::run)
}

async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let store = Store::open(&settings.store.url, &shutdown)?;
    let service = auth::build(&settings, store, &shutdown).await?;
    let public = cli::listen("auth.listen", settings.auth.listen).await?;
    let admin = cli::listen("auth.admin_listen", settings.auth.admin_listen).await?;
    tracing::info!(service = "auth", address = %public.local_addr()?, admin = false, "listening");
    tracing::info!(service = "auth", address = %admin.local_addr()?, admin = true, "listening");
    let limits = ConnectionLimits::from(&settings.server);
    tokio::try_join!(
        serve(public, service.public, limits.clone(), shutdown.clone()),
        serve(admin, service.admin, limits, shutdown.clone()),
    )?;
    Ok(())
}
