//! Both services in one process on the embedded store: for a first run with nothing installed.

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
    shutdown::Shutdown,
    store::Store,
};
use tokio::net::TcpListener;

/// The listeners of both services: public, admin.
struct Listeners {
    auth: (TcpListener, TcpListener),
    chat: (TcpListener, TcpListener),
}

impl Listeners {
    async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let auth = (
            cli::listen("auth.listen", settings.auth.listen).await?,
            cli::listen("auth.admin_listen", settings.auth.admin_listen).await?,
        );
        let chat = (
            cli::listen("chat.listen", settings.chat.listen).await?,
            cli::listen("chat.admin_listen", settings.chat.admin_listen).await?,
        );
        Ok(Self { auth, chat })
    }
}

/// Serves both until running work is told to end. Keys, revocations and the login mode are handed over in memory.
///
/// # Errors
/// Where an address is taken, the store cannot be opened, or no signing key can be had.
pub async fn serve(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&settings).await?;
    let metrics = metrics::install(&shutdown);
    let store = Store::open(&settings.store.url, &shutdown).context("store.url")?;
    let auth = auth::build(&settings, store.clone(), metrics.clone(), &shutdown).await?;
    let identities = Identities {
        authenticator: auth.authenticator,
        passed_on: passed_on(auth.public.clone()),
    };
    let llm =
        LlmService::new(&settings.llm, &shutdown).context("the HTTP client for model servers")?;
    let chat = chat::build(
        &settings,
        store,
        llm.clone(),
        identities,
        metrics,
        &shutdown,
    );
    welcome::print(
        listeners.auth.0.local_addr()?,
        listeners.chat.0.local_addr()?,
        &settings,
    );
    welcome::say_if_only_the_demo_answers(llm, &settings, &shutdown);
    let Listeners {
        auth: auth_at,
        chat: chat_at,
    } = listeners;
    tokio::try_join!(
        serve_public_and_admin(
            "auth",
            (auth_at.0, auth.public),
            (auth_at.1, auth.admin),
            &settings.server,
            &shutdown
        ),
        serve_public_and_admin(
            "chat",
            (chat_at.0, chat.public),
            (chat_at.1, chat.admin),
            &settings.server,
            &shutdown
        ),
    )?;
    Ok(())
}

/// What `chat` answers for `auth`: its own router, without a network between them.
fn passed_on(auth: Router) -> Router {
    let auth = auth.into_service::<Body>();
    Router::new()
        .route_service("/auth/{*rest}", auth.clone())
        .route_service("/.well-known/jwks.json", auth)
        .layer(map_request(as_sent_on))
}

/// The request as it would come over a network: it brings its id and its address along, and its route is found anew.
async fn as_sent_on(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let mut known = std::mem::take(&mut parts.extensions);
    if let Some(address) = known.remove::<ConnectInfo<SocketAddr>>() {
        parts.extensions.insert(address);
    }
    let id = known.remove::<RequestId>();
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        parts.headers.insert(X_REQUEST_ID, id);
    }
    Request::from_parts(parts, body)
}

/// The description of both services as one document: what the subcommand `openapi` prints.
pub fn openapi() -> String {
    let mut both = chat::openapi();
    both.merge(auth::openapi());
    both.to_pretty_json().unwrap_or_default()
}
