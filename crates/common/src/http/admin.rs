//! The admin listener: metrics, and the health calls again.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

use super::health::{self, Health};

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`, `/health`, `/livez` and `/readyz`. Still to be wrapped ([`super::wrap`], [`super::Layers::admin`]).
pub fn router(health: Health, metrics: PrometheusHandle) -> Router {
    let process = Collector::default();
    process.describe();
    ::metrics::describe_gauge!(
        "tokio_tasks_alive",
        "Tasks of the runtime that have not ended"
    );
    Router::new()
        .route("/metrics", get(render))
        .with_state((metrics, process))
        .merge(health::routes(health))
}

async fn render(
    State((metrics, process)): State<(PrometheusHandle, Collector)>,
) -> impl IntoResponse {
    process.collect();
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    ::metrics::gauge!("tokio_tasks_alive").set(tasks as f64);
    ([(header::CONTENT_TYPE, EXPOSITION)], metrics.render())
}
