//! The OpenTelemetry Collector takes the traces of a turn.

use std::process::Stdio;

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::{Backend, PATIENCE, TestApp, eventually, free_port};
use tokio::net::TcpStream;

use crate::{installed, program};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn the_collector_takes_a_turn_as_one_trace() {
    let (folder, home, port) = (installed().await, TempDir::new().unwrap(), free_port());
    let config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"debug": {"verbosity": "detailed"}},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    });
    std::fs::write(home.path().join("config.yaml"), config.to_string()).unwrap();
    let printed = std::fs::File::create(home.path().join("printed")).unwrap();
    let _collector = program(&folder.join("otelcol/otelcol"), home.path())
        .args(["--config", "file:config.yaml"])
        .stdout(Stdio::null())
        .stderr(printed)
        .spawn()
        .unwrap();
    eventually(PATIENCE, "the collector listens", || async {
        TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
    })
    .await;
    let app = TestApp::builder(Backend::Redis)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    let alice = app.login("alice").await;
    let request = alice.request(Method::POST, "/chat/message");
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    alice.fetch(request.json(&json!({"message": "hello"}))).await.expect(200);
    let spans = eventually(PATIENCE, "the collector has the turn", || async {
        let printed = std::fs::read_to_string(home.path().join("printed")).unwrap();
        let spans: Vec<_> = printed.split("Span #").map(str::to_owned).collect();
        let of_turn: Vec<_> = spans.into_iter().filter(|span| span.contains(TRACE)).collect();
        let has = |name: &str| of_turn.iter().any(|span| span.contains(name));
        (has(": chat gemma3:1b") && has(": POST /chat/message")).then_some(of_turn)
    })
    .await;
    let chat = spans.iter().find(|span| span.contains(": chat gemma3:1b")).unwrap();
    for line in [
        "Kind           : Client",
        "gen_ai.operation.name: Str(chat)",
        "gen_ai.provider.name: Str(ollama)",
        "gen_ai.response.model: Str(gemma3:1b)",
        "gen_ai.usage.output_tokens: Int(3)",
        "gen_ai.response.finish_reasons: Slice([\"stop\"])",
        "server.address: Str(127.0.0.1)",
    ] {
        assert!(chat.contains(line), "no {line} in {chat}");
    }
    assert!(spans.iter().any(|span| span.contains("db.operation.name")), "{spans:#?}");
}
