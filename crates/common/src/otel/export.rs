//! From finished spans to the collector: a bounded queue, which nobody waits for, and the task that empties it.

use std::{iter, mem, sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{DROPPED_SPANS, SENT_SPANS};

const BATCH: usize = 512;

/// Takes finished spans. One that does not fit is dropped and counted.
///
/// Not the SDK's `BatchSpanProcessor`: that tells nobody how many it dropped, and sends from a thread without Tokio's reactor, where our HTTP
/// client panics.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    batch_ready: Arc<Notify>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _parent: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            metrics::counter!(DROPPED_SPANS, "reason" => "queue_full").increment(1);
        }
        if self.spans.max_capacity() - self.spans.capacity() >= BATCH {
            self.batch_ready.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

pub(super) struct Sender {
    pub(super) exporter: SpanExporter,
    /// How long a span waits for others that go with it.
    pub(super) delay: Duration,
    spans: mpsc::Receiver<SpanData>,
    batch_ready: Arc<Notify>,
    is_failing: bool,
}

pub(super) fn queue(spans: usize, exporter: SpanExporter, delay: Duration) -> (SpanQueue, Sender) {
    let (sender, receiver) = mpsc::channel(spans);
    let batch_ready = Arc::new(Notify::new());
    let queue = SpanQueue { spans: sender, batch_ready: batch_ready.clone() };
    (queue, Sender { exporter, delay, spans: receiver, batch_ready, is_failing: false })
}

impl Sender {
    /// Ends after the stop, when everything that was in the queue then is sent or dropped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let is_stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = self.batch_ready.notified() => false,
                () = sleep(self.delay) => false,
            };
            loop {
                let waiting = iter::from_fn(|| self.spans.try_recv().ok());
                let batch: Vec<_> = waiting.take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                self.send(batch).await;
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Sends a batch or drops it. The log has a line when that begins to fail, and when it works again.
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                metrics::counter!(SENT_SPANS).increment(count);
                if mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                metrics::counter!(DROPPED_SPANS, "reason" => "not_sent").increment(count);
                if !mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "spans cannot be sent to the collector, and are dropped");
                }
            }
        }
    }
}
