//! The admin listener: metrics, and the health calls again.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

use super::health::{self, Health};
use crate::shutdown::Shutdown;

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`, `/health`, `/livez` and `/readyz`. To be wrapped ([`super::wrap`], [`super::Layers::admin`]).
pub fn router(health: Health, metrics: PrometheusHandle, shutdown: &Shutdown) -> Router {
    let process = Collector::default();
    process.describe();
    ::metrics::describe_gauge!("tokio_tasks_alive", "Tasks of the runtime that have not ended");
    Router::new()
        .route("/metrics", get(render))
        .with_state((metrics, process, shutdown.clone()))
        .merge(health::routes(health))
}

async fn render(
    State((metrics, process, shutdown)): State<(PrometheusHandle, Collector, Shutdown)>,
) -> impl IntoResponse {
    process.collect();
    ::metrics::gauge!("tokio_tasks_alive").set(shutdown.tasks_alive() as f64);
    ([(header::CONTENT_TYPE, EXPOSITION)], metrics.render())
}
