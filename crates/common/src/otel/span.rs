//! Spans, and the trace that the running code is in.

use std::{borrow::Cow, future::Future};

use futures_util::future::Either;
use http::HeaderMap;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{
    Array, Context, KeyValue, Value,
    context::{FutureExt as _, WithContext},
    propagation::TextMapPropagator as _,
    trace::{Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::TRACES;

/// A span, which ends when its last copy is dropped, those in futures that run in it included; or none, where nothing is traced.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// The span of a request that came with these headers: it goes on with the caller's trace (W3C `traceparent`), or begins one.
    pub fn server(name: impl FnOnce() -> String, headers: &HeaderMap) -> Self {
        let caller = |_| {
            TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &HeaderExtractor(headers))
        };
        let parent = TRACES.get().map(caller);
        Self::begin(name, SpanKind::Server, parent)
    }

    /// A part of what the running code does; none outside a trace that is kept.
    pub fn child(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self::named_child(|| name, kind)
    }

    /// As [`Self::child`], with a name that is only made where there is a trace.
    pub fn named_child<N: Into<Cow<'static, str>>>(
        name: impl FnOnce() -> N,
        kind: SpanKind,
    ) -> Self {
        let is_kept = |context: &Context| context.span().span_context().is_sampled();
        Self::begin(name, kind, Self::current().0.filter(is_kept))
    }

    fn begin<N: Into<Cow<'static, str>>>(
        name: impl FnOnce() -> N,
        kind: SpanKind,
        parent: Option<Context>,
    ) -> Self {
        Self(TRACES.get().zip(parent).map(|(traces, parent)| {
            let builder = traces.tracer.span_builder(name()).with_kind(kind);
            parent.with_span(traces.tracer.build_with_context(builder, &parent))
        }))
    }

    pub fn current() -> Self {
        let is_there = |context: &Context| context.span().span_context().is_valid();
        Self(TRACES.get().map(|_| Context::current()).filter(is_there))
    }

    /// Runs a future in this span; without one, in whatever span the code is in now.
    pub fn run<F: Future>(&self, future: F) -> Either<WithContext<F>, F> {
        match TRACES.get() {
            Some(_) => {
                let context = self.0.clone().unwrap_or_else(Context::current);
                Either::Left(future.with_context(context))
            }
            None => Either::Right(future),
        }
    }

    pub fn trace_id(&self) -> Option<String> {
        self.0.as_ref().map(|context| context.span().span_context().trace_id().to_string())
    }

    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.set_all(|| [(name, value.into())]);
    }

    /// Sets attributes, which are not made where there is no span.
    pub fn set_all<const N: usize>(&self, attributes: impl FnOnce() -> [(&'static str, Value); N]) {
        if let Some(context) = &self.0 {
            let attributes = attributes().map(|(name, value)| KeyValue::new(name, value));
            context.span().set_attributes(attributes);
        }
    }

    /// Sets an attribute that is a list, to its only item.
    pub fn set_list(&self, name: &'static str, item: &'static str) {
        self.set_all(|| [(name, Value::Array(Array::String(vec![item.into()])))]);
    }

    /// Marks it as failed, by a name of what went wrong: one of a closed list.
    pub fn fail(&self, error: impl Into<Value>) {
        self.set("error.type", error);
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(""));
        }
    }
}

/// Adds the place in the trace that the running code is in to the headers of a request.
pub fn inject(headers: &mut HeaderMap) {
    if let Span(Some(context)) = Span::current() {
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }
}
