//! What operators ask: health, readiness, metrics, and the API's own description.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    http::{ConnectionLimits, HostPolicy, Layers, admin, docs, health::Health, metrics, wrap},
    shutdown::Shutdown,
};
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};

use crate::site::{Site, server_settings};

async fn admin_site(health: Health, shutdown: Shutdown) -> Site {
    let router =
        wrap(admin::router(health, metrics::install(&shutdown), &shutdown), Layers::admin("test"));
    Site::serving(router, ConnectionLimits::default(), shutdown).await
}

#[tokio::test]
async fn health_and_liveness_ask_nobody() {
    let shutdown = Shutdown::new();
    let health = Health::builder("Chat", shutdown.clone())
        .gate("store", async || Err("down".into()))
        .build();
    let site = admin_site(health, shutdown).await;
    let answer = site.ask("GET /health", &[]).await;
    assert_eq!(answer.body, r#"{"status":"ok","message":"Chat service is running!"}"#);
    assert_eq!(site.ask("GET /livez", &[]).await.status, 200);
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_only_reports_the_rest() {
    let shutdown = Shutdown::new();
    let health = Health::builder("Chat", shutdown.clone())
        .gate("store", async || Ok(()))
        .report("llm", async || Err("no provider is up".into()))
        .build();
    let site = admin_site(health, shutdown.clone()).await;
    let ready = site.ask("GET /readyz", &[]).await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["checks"]["llm"], "no provider is up");

    let health = Health::builder("Chat", shutdown.clone())
        .gate("store", async || Err("it does not answer".into()))
        .gate("keys", std::future::pending)
        .build();
    let site = admin_site(health, shutdown).await;
    let begun = Instant::now();
    let missing = site.ask("GET /readyz", &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "a check that hangs costs half a second");
    assert_eq!((missing.status, missing.header("retry-after")), (503, Some("1")));
    assert_eq!(missing.json()["missing"], serde_json::json!(["store", "keys"]));
}

#[tokio::test]
async fn many_probes_at_once_are_one_look() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let check = move || {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        }
    };
    let health = Health::builder("Chat", Shutdown::new()).gate("store", check).build();
    let probes = (0..50).map(|_| health.ready());
    assert!(
        futures_util::future::join_all(probes).await.iter().all(|ready| ready.status == "ready")
    );
    assert_eq!(looks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn metrics_name_routes_and_never_paths() {
    let shutdown = Shutdown::new();
    let site = admin_site(Health::builder("Chat", shutdown.clone()).build(), shutdown).await;
    let public = Site::open().await;
    public.ask("GET /number/7", &[]).await;
    public.ask("GET /secret-path-1", &[]).await;
    public.ask("MADEUP /secret-path-2", &[]).await;
    let answer = site.ask("GET /metrics", &[]).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("secret-path") && !answer.body.contains("MADEUP"));
}

#[tokio::test]
async fn the_description_and_its_page_load_nothing_from_elsewhere() {
    let openapi = || {
        OpenApiBuilder::new().info(InfoBuilder::new().title("Chat").version("1").build()).build()
    };
    let router =
        wrap(docs::routes(openapi), Layers::new("test", HostPolicy::any(), &server_settings()));
    let site = Site::serving(router, ConnectionLimits::default(), Shutdown::new()).await;
    assert_eq!(site.ask("GET /openapi.json", &[]).await.json()["info"]["title"], "Chat");
    assert_eq!(site.ask("GET /docs", &[]).await.header("location"), Some("docs/"));
    let page = site.ask("GET /docs/", &[]).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{}", page.body);
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'self'"));
    let script = site.ask("GET /docs/swagger-initializer.js", &[]).await;
    assert!(
        script.body.contains("/openapi.json") && !script.body.contains("petstore"),
        "{}",
        script.body
    );
}

/// What was logged, for a test to read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_is_one_line_that_holds_no_query_and_breaks_nothing() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    // While there is one subscriber alone, tracing lets the thread that first comes to a line decide for all whether it is
    // logged, and the other tests' threads have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let site = Site::open().await;
    site.ask("GET /number/7?token=s3cret", &[("x-request-id", "first")]).await;
    site.ask(
        "GET /no%0a\"where\x1b[31m\u{e4}",
        &[("x-request-id", "second"), ("authorization", "Bearer s3cret")],
    )
    .await;
    site.ask("GET /fail", &[("x-request-id", "third")]).await;
    site.ask("GET /panic", &[("x-request-id", "fourth")]).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let logged: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |id: &str| {
        let mut found =
            logged.iter().map(|line| &line["fields"]).filter(|fields| fields["request_id"] == id);
        let fields = found.next().unwrap_or_else(|| panic!("no line of {id}: {text}")).clone();
        assert!(found.next().is_none(), "one line only: {text}");
        fields
    };
    let first = line("first");
    assert_eq!(
        (&first["route"], &first["status"], &first["method"]),
        (&"/number/{n}".into(), &200.into(), &"GET".into())
    );
    assert!(first["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let third = line("third");
    assert_eq!(
        (&third["code"], &third["error"]),
        (&"llm_unavailable".into(), &"10.0.0.1:11434".into())
    );
    let fourth = line("fourth");
    assert_eq!(fourth["code"], "internal");
    assert!(fourth["error"].as_str().unwrap().contains("the secret address"));
}
