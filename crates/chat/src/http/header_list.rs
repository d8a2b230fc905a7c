//! Headers whose value is a list.

use axum::http::{HeaderMap, HeaderName};

/// The members of a header's list, over all of its lines; what is not visible ASCII is left out.
pub fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
