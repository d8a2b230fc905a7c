//! The public and the admin listener of a service.

use std::io;

use axum::Router;
use tokio::net::TcpListener;

use super::{ConnectionLimits, serve};
use crate::{config, shutdown::Shutdown};

/// Serves both listeners until [`Shutdown::stopping`], and logs their addresses.
///
/// # Errors
/// Where a listener has no address.
pub async fn serve_public_and_admin(
    service: &'static str,
    public: (TcpListener, Router),
    admin: (TcpListener, Router),
    server: &config::Server,
    shutdown: &Shutdown,
) -> io::Result<()> {
    for (listener, is_admin) in [(&public.0, false), (&admin.0, true)] {
        let address = listener.local_addr()?;
        tracing::info!(service, %address, admin = is_admin, "listening");
    }
    tokio::join!(
        serve(public.0, public.1, server.into(), shutdown.clone()),
        serve(admin.0, admin.1, ConnectionLimits::default(), shutdown.clone()),
    );
    Ok(())
}
