//! The recorder of metrics, in the text format of Prometheus.

use std::time::Duration;

pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::{
    errors::Code,
    otel::{DROPPED_SPANS, SENT_SPANS},
    shutdown::Shutdown,
    telemetry::DROPPED_LINES,
};

/// How often the recorder drops old samples of its histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds of the duration buckets, in seconds: from a cached answer to a long generation.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];

/// Says what metrics mean, one a line: its kind, its name and a text.
#[macro_export]
macro_rules! describe_metrics {
    ($($kind:ident $name:expr => $text:literal,)*) => {{
        #[allow(unused_imports, reason = "not every list has every kind")]
        use ::metrics::{
            describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram,
        };
        $($kind!($name, $text);)*
    }};
}

/// Installs this process's recorder and starts its upkeep; the handle renders what was recorded.
///
/// A process has one recorder. Where there is one already (several services in one test), the handle that comes back
/// renders nothing, and everything is recorded in the first.
pub fn install(shutdown: &Shutdown) -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let recorder = builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
        .build_recorder();
    let handle = recorder.handle();
    if ::metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics are recorded by an earlier recorder");
    }
    describe();
    let upkeep = handle.clone();
    shutdown.spawn_until_stop(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    handle
}

/// Starts each problem counter of a service at 0: an alert sees a counter's growth, not its first appearance.
pub(super) fn init_problem_counters(service: &'static str) {
    for code in Code::ALL {
        ::metrics::counter!("http_problems_total", "service" => service, "code" => code.as_str())
            .absolute(0);
    }
}

pub(super) fn count_problem(service: &'static str, code: Code) {
    ::metrics::counter!("http_problems_total", "service" => service, "code" => code.as_str())
        .increment(1);
}

fn describe() {
    describe_metrics! {
        counter "http_requests_total" => "Requests by service, method, route and status; 499: the client left before the answer",
        histogram "http_request_duration_seconds" => "From a request's head to its answer's head, in seconds",
        counter "http_problems_total" => "Refusals and failures by their code",
        gauge "http_connections_open" => "Open connections, sockets among them",
        counter "http_connections_refused_total" => "Connections closed at once because a cap was reached",
        counter DROPPED_LINES => "Log lines that were not written, since stderr took no more",
        counter SENT_SPANS => "Spans that the collector of traces took",
        counter DROPPED_SPANS => "Spans that it never gets, by reason: queue_full, not_sent (it was not there, or refused)",
        counter "store_calls_total" => "Calls to the store by operation and result",
        histogram "store_call_duration_seconds" => "How long a call to the store took, in seconds",
    }
    ::metrics::counter!("http_connections_refused_total").absolute(0);
    ::metrics::counter!(DROPPED_LINES).absolute(0);
}
