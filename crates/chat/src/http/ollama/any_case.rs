//! Objects whose members may be named in any case, as Go's decoder takes them.

use std::{fmt, marker::PhantomData, sync::Arc};

use axum::extract::{FromRequest, FromRequestParts, Request};
use common::errors::{ApiError, extract::expect_no_coding};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
};

use crate::{
    http::{
        inference::{InferenceBody, InferenceCaller},
        ollama::Caller,
    },
    state::AppState,
};

/// A struct read from such an object; its own fields are in lower case.
#[derive(Clone, Debug, Default)]
pub struct AnyCase<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AnyCase<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(LowerCase(members)))
    }
}

struct LowerCase<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for LowerCase<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.0.next_key::<String>()? else { return Ok(None) };
        let name: StringDeserializer<A::Error> = name.to_ascii_lowercase().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

/// A JSON body, whatever its `Content-Type` says, its members named in any case; and who sent it.
pub struct AnyCaseBody<T>(pub T, pub InferenceCaller);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for AnyCaseBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Caller(identity) = Caller::from_request_parts(&mut parts, app).await?;
        expect_no_coding(&parts.headers)?;
        let read = InferenceBody::read(app, identity, parts, body).await?;
        let InferenceBody(AnyCase(value), caller) = read;
        Ok(Self(value, caller))
    }
}

#[cfg(test)]
mod tests {
    use common::errors::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Body {
        model: Option<String>,
        keep_alive: Option<i64>,
    }

    #[test]
    fn members_are_found_in_any_case_and_wrong_values_are_pointed_at() {
        let read = |text: &str| json::parse::<AnyCase<Body>>(text.as_bytes());
        let AnyCase(body) = read(r#"{"MODEL":"m","Keep_Alive":5,"odd":{"A":1}}"#).unwrap();
        assert_eq!(body.model.as_deref(), Some("m"));
        assert_eq!(body.keep_alive, Some(5));
        assert_eq!(read(r#"{"Model":null}"#).unwrap().0, Body::default());
        let error = read(r#"{"Keep_Alive":"x"}"#).unwrap_err();
        assert_eq!(error.errors[0].pointer, "/Keep_Alive");
        assert!(read("[]").is_err());
    }
}
