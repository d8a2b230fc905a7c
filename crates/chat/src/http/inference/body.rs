//! Request bodies that may be large, and their memory: agents send whole histories, images come inside the JSON. All of them
//! together hold a bounded part of it, until their completion ends.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderValue, header},
};
use bytes::BytesMut;
use common::{
    errors::{ApiError, Code, json},
    http::BodyError,
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit stands for so many bytes.
const UNIT: usize = 1024;

/// A larger body is parsed off the threads that serve, since that takes longer than a stream may wait.
const PARSED_IN_PLACE: usize = 128 * 1024;

/// Bytes that are set aside before anything of a body has come.
const FIRST_BUFFER: usize = 256 * 1024;

/// The memory that all bodies may hold together.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Semaphore>);

/// The part of the budget that one body holds until this is dropped.
pub type BodyMemory = Option<OwnedSemaphorePermit>;

impl BodyBudget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).max(1))))
    }

    /// Holds so many bytes in addition.
    ///
    /// # Errors
    /// `overloaded` where the memory is used up.
    pub fn hold_more(&self, memory: &mut BodyMemory, bytes: usize) -> Result<(), ApiError> {
        self.hold(memory, units(memory) * UNIT + bytes)
    }

    fn hold(&self, memory: &mut BodyMemory, bytes: usize) -> Result<(), ApiError> {
        let held = units(memory);
        let missing = bytes.div_ceil(UNIT).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let permit = self.0.clone().try_acquire_many_owned(missing);
        let permit = permit.map_err(|_| {
            let detail = "Too many large requests are being read; try again in a moment.";
            let close = HeaderValue::from_static("close");
            ApiError::new(Code::Overloaded, detail).header(header::CONNECTION, close)
        })?;
        match memory {
            Some(held) => held.merge(permit),
            None => *memory = Some(permit),
        }
        Ok(())
    }

    async fn read(&self, mut body: Body, memory: &mut BodyMemory) -> Result<Bytes, ApiError> {
        // Only what has come counts: a length that is announced and never sent must not keep others out.
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut read = BytesMut::with_capacity(announced.min(FIRST_BUFFER));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BodyError::answer(&error))?;
            if let Ok(data) = frame.into_data() {
                self.hold(memory, read.len() + data.len())?;
                read.extend_from_slice(&data);
            }
        }
        Ok(read.freeze())
    }

    /// Reads and parses a body, whatever its `Content-Type` says. The memory that it is counted with must live as long as what
    /// was parsed.
    ///
    /// # Errors
    /// `overloaded` where the memory is used up, and what reading and parsing refuse.
    pub async fn parse<T: DeserializeOwned + Send + 'static>(
        &self,
        body: Body,
    ) -> Result<(T, BodyMemory), ApiError> {
        let mut memory = None;
        let bytes = self.read(body, &mut memory).await?;
        let value = if bytes.len() <= PARSED_IN_PLACE {
            json::parse(&bytes)?
        } else {
            let parsed = tokio::task::spawn_blocking(move || json::parse(&bytes)).await;
            parsed.map_err(ApiError::internal)??
        };
        Ok((value, memory))
    }
}

fn units(memory: &BodyMemory) -> usize {
    memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn bodies_hold_memory_until_their_request_is_over() {
        let budget = BodyBudget::new(4 * UNIT);
        let body = || Body::from(json!({ "text": "x".repeat(3 * UNIT) }).to_string());
        let first = budget.parse::<Value>(body()).await.expect("room for one");
        let refused = budget.parse::<Value>(body()).await.expect_err("no room for two");
        assert_eq!(refused.code, Code::Overloaded);
        drop(first);
        budget.parse::<Value>(body()).await.expect("room again");
    }

    #[tokio::test]
    async fn a_large_body_is_read_as_well() {
        let budget = BodyBudget::new(1024 * UNIT);
        let text = "y".repeat(2 * PARSED_IN_PLACE);
        let body = Body::from(json!([text]).to_string());
        let (parsed, _memory) = budget.parse::<Vec<String>>(body).await.expect("a body");
        assert_eq!(parsed, [text]);
    }
}
