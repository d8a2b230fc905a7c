//! Reads JSON values and parameters of a query as what a type asks for.

use serde::de::{
    Deserializer, IntoDeserializer, Visitor,
    value::{MapDeserializer, SeqDeserializer},
};
use serde_json::Value;

use super::decode_error::DecodeError;

/// A value to be read as a type. A struct is an object and nothing else: serde's derived structs also take arrays,
/// member by member, so that `["hello"]` would pass for `{"message": "hello"}`.
pub(super) enum Typed {
    Json(Value),
    /// Its text is a number or a flag where one is asked for.
    Parameter(String),
}

impl Typed {
    /// Where a whole number is asked for, `16.0` is one: JavaScript and Python write them so. Up to 2^53 every such value is
    /// exact. Elsewhere a number stays as it came.
    fn whole_number(&self) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Parameter(text) => text.parse().ok(),
            Self::Json(value) => {
                let number = value.as_number().filter(|number| number.is_f64())?.as_f64()?;
                (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
            }
        }
    }
}

impl IntoDeserializer<'_, DecodeError> for Typed {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.whole_number() {
                Some(number) => visitor.visit_i64(number),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Typed {
    type Error = DecodeError;

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Self::Parameter(text) | Self::Json(Value::String(text)) => visitor.visit_string(text),
            Self::Json(Value::Null) => visitor.visit_unit(),
            Self::Json(Value::Bool(yes)) => visitor.visit_bool(yes),
            Self::Json(Value::Number(number)) => {
                match (number.as_u64(), number.as_i64(), number.as_f64()) {
                    (Some(number), _, _) => visitor.visit_u64(number),
                    (_, Some(number), _) => visitor.visit_i64(number),
                    (_, _, number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
                }
            }
            Self::Json(Value::Array(items)) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Self::Json)))
            }
            Self::Json(Value::Object(members)) => {
                let members = members.into_iter().map(|(name, value)| (name, Self::Json(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Self::Parameter(text) => {
                visitor.visit_bool(text.parse().map_err(|_| DecodeError::Flag)?)
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Self::Json(Value::Null) => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self {
            Self::Json(Value::Object(_)) => self.deserialize_any(visitor),
            _ => Err(DecodeError::Expected("an object".to_owned())),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self {
            Self::Parameter(name) | Self::Json(Value::String(name)) => {
                visitor.visit_enum(name.into_deserializer())
            }
            _ => Err(DecodeError::Expected(known.join(" or "))),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}
