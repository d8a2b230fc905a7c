//! Both services in one process, on the embedded store.

pub mod welcome;

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::HeaderValue,
    middleware::map_request,
};
use chat::{Identities, llm::LlmService};
use common::{
    cli,
    config::Settings,
    http::{RequestId, X_REQUEST_ID, metrics, serve_public_and_admin},
    otel,
    shutdown::Shutdown,
    store,
};

/// Serves both services until the stop. Keys, revocations and the login mode are handed over in memory.
///
/// # Errors
/// An address is taken, the store cannot be opened, or no signing key can be loaded or made.
pub async fn serve(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let Settings { auth, chat, server, .. } = &settings;
    let auth_at = cli::listen("auth", auth.listen, auth.admin_listen).await?;
    let chat_at = cli::listen("chat", chat.listen, chat.admin_listen).await?;
    let metrics = metrics::install(&shutdown);
    let store = store::start(&settings.store, store::NewStore::Number, &shutdown)
        .await
        .context("store.url")?;
    let auth = auth::build(&settings, store.clone(), metrics.clone(), &shutdown).await?;
    let identities = Identities {
        authenticator: auth.authenticator,
        auth_proxy: auth_routes(auth.public.clone()),
    };
    let llm =
        LlmService::new(&settings.llm, &shutdown).context("the HTTP client for model servers")?;
    let chat = chat::build(&settings, store, llm.clone(), identities, metrics, &shutdown);
    welcome::print(auth_at.0.local_addr()?, chat_at.0.local_addr()?, &settings);
    welcome::announce_demo(llm, &settings, &shutdown);
    let auth_routes = (auth.public, auth.admin);
    let chat_routes = (chat.public, chat.admin);
    tokio::try_join!(
        serve_public_and_admin("auth", auth_at, auth_routes, server, &shutdown),
        serve_public_and_admin("chat", chat_at, chat_routes, server, &shutdown),
    )?;
    Ok(())
}

/// The routes that `chat` forwards to `auth`: its router, without a network in between.
fn auth_routes(auth: Router) -> Router {
    let auth = auth.into_service::<Body>();
    Router::new()
        .route_service("/auth/{*rest}", auth.clone())
        .route_service("/.well-known/jwks.json", auth)
        .layer(map_request(as_forwarded))
}

/// Strips a request of its extensions, as a network would, but for the request id and the client address.
async fn as_forwarded(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let mut extensions = std::mem::take(&mut parts.extensions);
    if let Some(address) = extensions.remove::<ConnectInfo<SocketAddr>>() {
        parts.extensions.insert(address);
    }
    let id = extensions.remove::<RequestId>();
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        parts.headers.insert(X_REQUEST_ID, id);
    }
    otel::inject(&mut parts.headers);
    Request::from_parts(parts, body)
}

/// The OpenAPI document of both services, for the subcommand `openapi`.
pub fn openapi() -> String {
    let mut both = chat::openapi();
    both.merge(auth::openapi());
    both.to_pretty_json().unwrap_or_default()
}
