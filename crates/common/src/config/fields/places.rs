//! Parsers for settings that say where something is: addresses, URLs, origins, names and networks.

use std::net::{IpAddr, SocketAddr};

use url::Url;

use super::{FieldParser, MASK, ParseError, from_str};
use crate::{clients::redis::address::RedisAddress, config::StoreUrl};

pub(in crate::config) fn address() -> FieldParser<SocketAddr> {
    FieldParser::of_text("an IP address and a port, such as 127.0.0.1:9001 or [::1]:9001", from_str)
}

/// Where a server is, without a query. A trailing slash is dropped.
pub(in crate::config) fn http_url() -> FieldParser<Url> {
    let allowed = "a URL such as http://127.0.0.1:11434 or https://api.example.com/v1";
    FieldParser::of_text(allowed, |text| {
        let lower = text.trim().to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err(ParseError::Because("it does not begin with http:// or https://"));
        }
        check_credentials(text)?;
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

/// Refuses a password that ends the host's part of the URL early.
fn check_credentials(text: &str) -> Result<(), ParseError> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (_, after) = rest.split_at(rest.find(['#', '/', '?']).unwrap_or(rest.len()));
    let wrong = "a #, / or ? in its user name or password must be percent-encoded: %23, %2F, %3F";
    if after.contains('@') { Err(ParseError::Because(wrong)) } else { Ok(()) }
}

/// Where one of our own services is: no user name or password in it.
pub(in crate::config) fn own_service() -> FieldParser<Url> {
    http_url().and("it holds a user name or a password, which it must not", |url| {
        url.username().is_empty() && url.password().is_none()
    })
}

pub(in crate::config) fn mask_url(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    let rest = url.as_str().split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    format!("{}://{MASK}@{}", url.scheme(), rest.map_or("", |(_, rest)| rest))
}

fn mask_url_text(text: &str) -> String {
    Url::parse(text.trim()).map_or_else(|_| MASK.to_owned(), |url| mask_url(&url))
}

pub(in crate::config) fn store_url() -> FieldParser<StoreUrl> {
    let allowed = "redis://host:port/database, redis+cluster://host:port,host:port, \
        redis+sentinel://host:port,host:port/service/database, each also as rediss…; \
        for chatbot alone also embedded:DIR and memory:";
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
        check_credentials(text)?;
        if !RedisAddress::is_redis(text) {
            return Err(ParseError::NotAllowed);
        }
        RedisAddress::parse(text).map_err(ParseError::Because)?;
        Ok(StoreUrl::Redis(text.into()))
    })
    .masked(mask_store_url)
}

/// As [`mask_url_text`]; several hosts are no URL for a parser.
fn mask_store_url(text: &str) -> String {
    let text = text.trim();
    if !RedisAddress::is_redis(text) {
        return mask_url_text(text);
    }
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{MASK}@{rest}"),
        _ => text.to_owned(),
    }
}

/// Exact origins, in the form that browsers and app frameworks send.
pub(in crate::config) fn origins() -> FieldParser<Vec<String>> {
    let allowed = "an origin such as https://app.example.com, http://localhost:5173 or app://obsidian.md, without a path";
    FieldParser::of_text(allowed, |text| {
        if text.contains('*') {
            return Err(ParseError::Because("an origin must be exact, without a wildcard"));
        }
        let url: Url = from_str(text)?;
        let is_bare = matches!(url.path(), "" | "/") && !text.ends_with('/');
        let is_plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|host| !host.is_empty() && is_bare && is_plain);
        match (url.scheme(), host) {
            ("http" | "https", Some(_)) => Ok(url.origin().ascii_serialization()),
            // Pages of these have the origin "null", which anybody can send.
            ("file" | "data" | "blob" | "javascript" | "ws" | "wss" | "ftp", _) | (_, None) => {
                Err(ParseError::NotAllowed)
            }
            // A scheme that an app registered: `app:`, `capacitor:`, `tauri:`, `chrome-extension:`.
            (scheme, Some(host)) => {
                let port = url.port().map(|port| format!(":{port}"));
                Ok(format!("{scheme}://{host}{}", port.unwrap_or_default()))
            }
        }
    })
    .list()
}

pub(in crate::config) fn hosts() -> FieldParser<Vec<String>> {
    let allowed = "a host name without a port, such as chat.example.com";
    FieldParser::of_text(allowed, |text| match url::Host::parse(text) {
        Ok(host) if !text.contains('*') => Ok(host.to_string()),
        _ => Err(ParseError::NotAllowed),
    })
    .list()
}

pub(in crate::config) fn networks() -> FieldParser<Vec<ipnet::IpNet>> {
    let allowed = "an IP address or a network such as 10.0.0.0/8";
    FieldParser::of_text(allowed, |text| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => from_str(text),
    })
    .list()
}
