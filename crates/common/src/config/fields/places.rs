//! Parsers for settings that say where something is: addresses, URLs, origins, names and networks.

use std::net::{IpAddr, SocketAddr};

use url::Url;

use super::{FieldParser, MASK, ParseError, from_str};
use crate::config::StoreUrl;

pub(in crate::config) fn address() -> FieldParser<SocketAddr> {
    FieldParser::of_text(
        "an IP address and a port, such as 127.0.0.1:9001 or [::1]:9001",
        from_str,
    )
}

/// Where a server is, without a query. A trailing slash is dropped.
pub(in crate::config) fn http_url() -> FieldParser<Url> {
    let allowed = "a URL such as http://127.0.0.1:11434 or https://api.example.com/v1";
    FieldParser::of_text(allowed, |text| {
        let lower = text.trim().to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err(ParseError::Because(
                "it does not begin with http:// or https://",
            ));
        }
        let mut url: Url = from_str(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ParseError::Because("it has a query or a fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    })
    .masked(mask_url_text)
}

/// Where one of our own services is: no user name or password in it.
pub(in crate::config) fn own_service() -> FieldParser<Url> {
    http_url().and(
        "it holds a user name or a password, which it must not",
        |url| url.username().is_empty() && url.password().is_none(),
    )
}

/// A URL as it may be printed: user name and password are hidden.
pub(in crate::config) fn mask_url(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    let rest = url
        .as_str()
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    format!(
        "{}://{MASK}@{}",
        url.scheme(),
        rest.map_or("", |(_, rest)| rest)
    )
}

fn mask_url_text(text: &str) -> String {
    Url::parse(text.trim()).map_or_else(|_| MASK.to_owned(), |url| mask_url(&url))
}

pub(in crate::config) fn store_url() -> FieldParser<StoreUrl> {
    let allowed =
        "redis://host:port/database, rediss://…; for chatbot alone also embedded:DIR and memory:";
    FieldParser::of_text(allowed, |text| {
        let text = text.trim();
        if text == "memory:" {
            return Ok(StoreUrl::Memory);
        }
        match text.strip_prefix("embedded:") {
            Some("") => return Err(ParseError::Because("embedded: names no folder")),
            Some(folder) => return Ok(StoreUrl::Embedded(folder.into())),
            None => {}
        }
        let url: Url = from_str(text)?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(ParseError::NotAllowed);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(ParseError::Because("it names no host"));
        }
        let connection = redis::IntoConnectionInfo::into_connection_info(text);
        connection
            .map(|_| StoreUrl::Redis(text.into()))
            .map_err(|_| ParseError::NotAllowed)
    })
    .masked(mask_url_text)
}

/// Exact browser origins, in the form that browsers send.
pub(in crate::config) fn origins() -> FieldParser<Vec<String>> {
    let allowed =
        "an origin such as https://app.example.com or http://localhost:5173, without a path";
    FieldParser::of_text(allowed, |text| {
        if text.contains('*') {
            return Err(ParseError::Because(
                "an origin must be exact, without a wildcard",
            ));
        }
        let url: Url = from_str(text)?;
        let is_web = matches!(url.scheme(), "http" | "https");
        let is_bare = url.path() == "/" && !text.ends_with('/');
        let is_plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_web && is_bare && is_plain {
            Ok(url.origin().ascii_serialization())
        } else {
            Err(ParseError::NotAllowed)
        }
    })
    .list()
}

/// Names for `Host`, without a port.
pub(in crate::config) fn hosts() -> FieldParser<Vec<String>> {
    let allowed = "a host name without a port, such as chat.example.com";
    FieldParser::of_text(allowed, |text| match url::Host::parse(text) {
        Ok(host) if !text.contains('*') => Ok(host.to_string()),
        _ => Err(ParseError::NotAllowed),
    })
    .list()
}

/// IP addresses or networks.
pub(in crate::config) fn networks() -> FieldParser<Vec<ipnet::IpNet>> {
    let allowed = "an IP address or a network such as 10.0.0.0/8";
    FieldParser::of_text(allowed, |text| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => from_str(text),
    })
    .list()
}
