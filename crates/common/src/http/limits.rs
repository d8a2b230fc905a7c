//! Limits of a request: its size, and how long its body may take to arrive.

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::errors::{ApiError, Code};

#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// The URI, in bytes.
    pub uri: usize,
    /// All header lines together, in bytes.
    pub header_bytes: usize,
    pub header_count: usize,
    pub body: BodyLimit,
    /// Of bodies on paths for which [`Self::has_large_body`] holds.
    pub large_body: BodyLimit,
    pub has_large_body: fn(path: &str) -> bool,
}

#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    pub bytes: usize,
    /// From the request's head to the last byte of its body.
    pub time: Duration,
}

const BODY: BodyLimit = BodyLimit { bytes: 1024 * 1024, time: Duration::from_secs(15) };

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            uri: 8 * 1024,
            header_bytes: 32 * 1024,
            header_count: 64,
            body: BODY,
            large_body: BODY,
            has_large_body: |_| false,
        }
    }
}

impl RequestLimits {
    /// Refuses what is too large by its head alone, and a body in a transfer coding that nobody here decodes.
    ///
    /// # Errors
    /// `uri_too_long`, `headers_too_large`, `invalid_request`, `payload_too_large`; all but the first end the connection.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        if uri_length(request) > self.uri {
            let allowed = format!("The address may have {} bytes.", self.uri);
            return Err(ApiError::new(Code::UriTooLong, allowed));
        }
        let headers = request.headers();
        if headers.len() > self.header_count || header_bytes(headers) > self.header_bytes {
            let Self { header_count, header_bytes, .. } = self;
            let allowed =
                format!("{header_count} header lines with {header_bytes} bytes are allowed.");
            return Err(closing(ApiError::new(Code::HeadersTooLarge, allowed)));
        }
        if !framing_is_known(headers) {
            let detail = "Say the body's length with Content-Length, or send it with Transfer-Encoding: chunked and no other.";
            return Err(closing(ApiError::new(Code::InvalidRequest, detail)));
        }
        let limit = self.body_limit(request.uri().path()).bytes;
        if request.body().size_hint().lower() > limit as u64 {
            return Err(closing(too_large(limit)));
        }
        Ok(())
    }

    fn body_limit(&self, path: &str) -> BodyLimit {
        if (self.has_large_body)(path) { self.large_body } else { self.body }
    }

    /// Limits the body: past the limit of size or time it fails with a [`BodyError`].
    pub(super) fn bound(&self, request: Request) -> Request {
        if request.body().is_end_stream() {
            return request;
        }
        let limit = self.body_limit(request.uri().path());
        request.map(|body| {
            Body::new(Bounded {
                body,
                left: limit.bytes,
                limit: limit.bytes,
                deadline: Instant::now() + limit.time,
                timer: None,
            })
        })
    }
}

fn uri_length(request: &Request) -> usize {
    let uri = request.uri();
    let authority =
        uri.authority().map_or(0, |authority| authority.as_str().len() + "https://".len());
    authority + uri.path_and_query().map_or(0, |rest| rest.as_str().len())
}

/// The size of the header block as it was sent: each line with its colon, blank and line end.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Whether hyper decodes all of the transfer coding. Another one below `chunked` would reach handlers, and a proxy might
/// see the body end elsewhere.
fn framing_is_known(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::PayloadTooLarge, format!("The body may have {limit} bytes."))
}

/// Closes the connection with this answer: the rest of the request is not read.
fn closing(error: ApiError) -> ApiError {
    error.header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body took too long to arrive")]
    TooSlow,
}

impl BodyError {
    /// The answer where reading a body fails: with the limit that was hit, or `invalid_request` where it broke off.
    pub fn answer(error: &(dyn StdError + 'static)) -> ApiError {
        let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
        let (code, detail) = match causes.find_map(|cause| cause.downcast_ref()) {
            Some(BodyError::TooLarge(limit)) => return closing(too_large(*limit)),
            Some(BodyError::TooSlow) => (Code::RequestTimeout, "The body took too long to arrive."),
            None => (Code::InvalidRequest, "The body was cut off, or is not framed as valid HTTP."),
        };
        closing(ApiError::new(code, detail))
    }
}

struct Bounded {
    body: Body,
    left: usize,
    limit: usize,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match this.left.checked_sub(length) {
                    Some(left) => this.left = left,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge(this.limit).into()))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|result| result.map_err(Into::into))),
            Poll::Pending => {
                let deadline = this.deadline;
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err(BodyError::TooSlow.into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
