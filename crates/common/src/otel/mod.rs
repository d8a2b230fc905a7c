//! Traces by OpenTelemetry, for a process whose settings name a collector. In any other, nothing here does anything.
//!
//! Spans are opened by hand where a request changes hands, and not made of `tracing`'s: those end with their last child, which here may
//! be a turn that outlives its request, and the log's filter would have to know them.

mod export;
mod span;

use std::{env, sync::OnceLock, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{SdkTracer, SdkTracerProvider, SpanExporter as _},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::span::{Span, SpanKind, inject};
use crate::{
    clients,
    config::{Binary, Settings},
};

/// The metrics that count spans that the collector took, and spans that it never gets.
pub(crate) const SENT_SPANS: &str = "otlp_spans_sent_total";
pub(crate) const DROPPED_SPANS: &str = "otlp_spans_dropped_total";

/// How long the last spans may take at the stop.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes of what was said that a span holds, of a prompt and of an answer each.
pub const MAX_CONTENT: usize = 16 * 1024;

static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    tracer: SdkTracer,
    captures_content: bool,
    sender: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

/// Starts sending spans from this runtime, if the environment names a collector, which need not be there. The SDK reads what else
/// its variables say; they were checked with the settings.
///
/// # Errors
/// Where no HTTP client can be built.
pub fn start(binary: Binary, settings: &Settings, runtime: &Handle) -> anyhow::Result<()> {
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|text| text == "true")
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|text| text == "none");
    if endpoint.is_none() || is_off {
        return Ok(());
    }
    let timeout = number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| number("OTEL_EXPORTER_OTLP_TIMEOUT"))
        .unwrap_or(10_000);
    let client = clients::http::collector(Duration::from_millis(timeout))?;
    let mut exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
    let resource = resource(binary);
    exporter.set_resource(&resource);
    let size = number("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|size| size.try_into().ok());
    let delay = Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5000));
    let (queue, sender) = export::queue(size.unwrap_or(2048), exporter, delay);
    let provider =
        SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource).build();
    let stop = CancellationToken::new();
    let task = runtime.spawn(sender.run(stop.clone()));
    let captures_content = settings.telemetry.capture_content;
    // Fails only where traces were started before.
    let _ = TRACES.set(Traces {
        tracer: provider.tracer("chatbot"),
        captures_content,
        sender: Mutex::new(Some((stop, task))),
    });
    tracing::info!(captures_content, "traces are sent to a collector");
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.trim().parse().ok()
}

/// What describes this process, beside OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
fn resource(binary: Binary) -> Resource {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", binary.as_str()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
        ])
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// Sends what is left, for at most two seconds. Spans that end later are lost.
pub async fn finish() {
    let sender = TRACES.get().and_then(|traces| traces.sender.lock().take());
    if let Some((stop, task)) = sender {
        stop.cancel();
        let _ = tokio::time::timeout(FINISH_TIMEOUT, task).await;
    }
}

/// Whether spans may hold what was said.
pub fn captures_content() -> bool {
    TRACES.get().is_some_and(|traces| traces.captures_content)
}

/// A message as a span holds it, by the semantic conventions for generative AI.
pub fn message(role: &str, text: &str) -> serde_json::Value {
    json!({"role": role, "parts": [{"type": "text", "content": text}]})
}

/// Adds a text to what a span is to hold of what was said, if it may, and as far as there is room.
pub fn capture(captured: &mut String, text: &str) {
    if captures_content() {
        let room = MAX_CONTENT.saturating_sub(captured.len());
        captured.push_str(text.split_at(text.floor_char_boundary(room)).0);
    }
}
