//! A collector of traces: takes OTLP over HTTP and keeps every span.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::Span as WireSpan,
};
use prost::Message as _;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpListener, net::TcpStream, task::AbortHandle};

use crate::{PATIENCE, eventually, models::read_request};

/// A span as the collector got it; ids are hexadecimal.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// As in the protocol: 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// As in the protocol: 2 is an error.
    pub status: i32,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
}

/// The head and the body of each request.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A running collector; gone when dropped.
pub struct Collector {
    address: SocketAddr,
    requests: Requests,
    task: AbortHandle,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
        let kept = Arc::clone(&requests);
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&kept)));
            }
        };
        Self { address, requests, task: tokio::spawn(accept).abort_handle() }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests.
    pub fn heads(&self) -> String {
        self.requests.lock().unwrap().iter().map(|(head, _)| head.as_str()).collect()
    }

    /// Whether that text is in anything that came.
    pub fn holds(&self, text: &str) -> bool {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .any(|(_, body)| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    /// Every span so far.
    pub fn all(&self) -> Vec<Span> {
        self.requests.lock().unwrap().iter().flat_map(|(_, body)| spans(body)).collect()
    }

    /// Every span of a trace so far.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.trace == id).collect()
    }

    /// The spans of a trace once these are among them.
    pub async fn trace_with(&self, id: &str, names: &[&str]) -> Vec<Span> {
        let what = format!("{names:?} in the trace {id}");
        eventually(PATIENCE, &what, || async {
            let spans = self.trace(id);
            let is_there = |name: &&str| spans.iter().any(|span| span.name == **name);
            names.iter().all(is_there).then_some(spans)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(mut stream: TcpStream, requests: Requests) {
    let mut buffer = Vec::new();
    loop {
        let (mut reader, mut writer) = stream.split();
        let Some(request) = read_request(&mut reader, &mut buffer).await else {
            return;
        };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
        requests.lock().unwrap().push((request.head, request.body));
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if writer.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(&of_resource.resource.unwrap().attributes);
        let service = resource["service.name"].as_str().unwrap();
        let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| read(span, service)));
    }
    spans
}

fn read(span: WireSpan, service: &str) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        service: service.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        status: span.status.map_or(0, |status| status.code),
        end: span.end_time_unix_nano,
        attributes: attributes(&span.attributes),
        name: span.name,
    }
}

/// # Panics
/// Where a name is there twice.
fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for KeyValue { key, value, .. } in pairs {
        let earlier = all.insert(key.clone(), value.as_ref().map_or(Value::Null, json));
        assert!(earlier.is_none(), "{key} is there twice");
    }
    all
}

fn json(value: &AnyValue) -> Value {
    match value.value.as_ref().unwrap() {
        any_value::Value::StringValue(text) => text.as_str().into(),
        any_value::Value::IntValue(number) => (*number).into(),
        any_value::Value::DoubleValue(number) => (*number).into(),
        any_value::Value::BoolValue(flag) => (*flag).into(),
        any_value::Value::ArrayValue(array) => array.values.iter().map(json).collect(),
        other => panic!("no attribute of ours: {other:?}"),
    }
}
