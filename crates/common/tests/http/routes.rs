//! A router that has something of everything.

use axum::{
    Json, Router,
    body::Body as HttpBody,
    routing::{get, post},
};
use bytes::Bytes;
use common::{
    errors::{
        ApiError, Code,
        extract::{Body, OptionalBody, Path, Query},
    },
    http::{ClientIp, Deadline, RequestId},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    message: String,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    temperature: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    #[serde(default)]
    stream: bool,
    limit: Option<u16>,
}

pub fn routes() -> Router {
    Router::new()
        .route("/echo", post(echo))
        .route("/maybe", post(maybe))
        .route("/page", get(page))
        .route("/number/{n}", get(number))
        .route("/who", get(who))
        .route("/panic", get(panic))
        .route("/fail", get(fail))
        .route("/flood", get(flood))
        .route("/cached", get(async || ([("cache-control", "max-age=60")], "kept")))
}

async fn echo(Body(echo): Body<Echo>) -> Json<Echo> {
    Json(echo)
}

async fn maybe(OptionalBody(echo): OptionalBody<Echo>) -> Json<Echo> {
    Json(echo)
}

async fn page(Query(page): Query<Paging>) -> Json<Value> {
    Json(json!({"stream": page.stream, "limit": page.limit}))
}

async fn number(Path(n): Path<u8>) -> Json<u8> {
    Json(n)
}

async fn who(
    ClientIp(address): ClientIp,
    id: RequestId,
    Deadline(deadline): Deadline,
) -> Json<Value> {
    let left = deadline.saturating_duration_since(std::time::Instant::now());
    Json(json!({"address": address, "request_id": id.as_str(), "store_ms": left.as_millis()}))
}

async fn panic() -> Json<Value> {
    panic!("the secret address is 10.0.0.1")
}

async fn fail() -> ApiError {
    ApiError::new(Code::LlmUnavailable, "The model server is away.")
        .caused_by(std::io::Error::other("10.0.0.1:11434"))
}

/// More than any buffer on the way holds.
async fn flood() -> HttpBody {
    let block = Bytes::from(vec![b'x'; 64 * 1024]);
    HttpBody::from_stream(stream::iter(
        (0..4096).map(move |_| Ok::<_, std::io::Error>(block.clone())),
    ))
}
