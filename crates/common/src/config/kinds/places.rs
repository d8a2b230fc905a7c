//! The kinds of setting that say where something is: addresses, URLs, origins, names and networks.

use std::net::{IpAddr, SocketAddr};

use secrecy::ExposeSecret;
use url::Url;

use super::{Kind, MASK, Wrong, from_text};
use crate::config::StoreUrl;

/// An IP address and a port to listen on.
pub(in crate::config) fn address() -> Kind<SocketAddr> {
    Kind::of_text(
        "an IP address and a port, such as 127.0.0.1:9001 or [::1]:9001",
        from_text,
        SocketAddr::to_string,
    )
}

/// Where a server is: `http://` or `https://`, no query. A trailing slash is dropped.
pub(in crate::config) fn http_url() -> Kind<Url> {
    let read = |text: &str| {
        let text = text.trim();
        if !["http://", "https://"].iter().any(|scheme| {
            text.get(..scheme.len())
                .is_some_and(|t| t.eq_ignore_ascii_case(scheme))
        }) {
            return Err(Wrong::Because("it does not begin with http:// or https://"));
        }
        let mut url = Url::parse(text).map_err(|_| Wrong::NotAllowed)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Wrong::Because("it has a query or a fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    };
    Kind::of_text(
        "a URL such as http://127.0.0.1:11434 or https://api.example.com/v1",
        read,
        masked,
    )
    .never_quoted()
}

/// Where one of our own services is: nobody is named in it.
pub(in crate::config) fn own_service() -> Kind<Url> {
    http_url().and(
        "it holds a user name or a password, which it must not",
        |url| url.username().is_empty() && url.password().is_none(),
    )
}

/// A URL as it may be printed: whoever is named in it and their password are hidden.
pub(in crate::config) fn masked(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    let text = url.as_str();
    let rest = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .map_or("", |(_, rest)| rest);
    format!("{}://{MASK}@{rest}", url.scheme())
}

/// Where everything is kept.
pub(in crate::config) fn store_url() -> Kind<StoreUrl> {
    let allowed =
        "redis://host:port/database, rediss://…; for chatbot alone also embedded:DIR and memory:";
    Kind::of_text(
        allowed,
        |text| store(text.trim()),
        |url| match url {
            StoreUrl::Redis(url) => {
                Url::parse(url.expose_secret()).map_or_else(|_| MASK.to_owned(), |url| masked(&url))
            }
            StoreUrl::Embedded(folder) => format!("embedded:{}", folder.display()),
            StoreUrl::Memory => "memory:".to_owned(),
        },
    )
    .never_quoted()
}

fn store(text: &str) -> Result<StoreUrl, Wrong> {
    if text == "memory:" {
        return Ok(StoreUrl::Memory);
    }
    if let Some(folder) = text.strip_prefix("embedded:") {
        return if folder.is_empty() {
            Err(Wrong::Because("embedded: names no folder"))
        } else {
            Ok(StoreUrl::Embedded(folder.into()))
        };
    }
    let url = Url::parse(text).map_err(|_| Wrong::NotAllowed)?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(Wrong::NotAllowed);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Wrong::Because("it names no host"));
    }
    match redis::IntoConnectionInfo::into_connection_info(text) {
        Ok(_) => Ok(StoreUrl::Redis(text.into())),
        Err(_) => Err(Wrong::NotAllowed),
    }
}

/// Exact browser origins, in the form that browsers send.
pub(in crate::config) fn origins() -> Kind<Vec<String>> {
    let read = |text: &str| {
        if text.contains('*') {
            return Err(Wrong::Because(
                "an origin must be exact, without a wildcard",
            ));
        }
        let url = Url::parse(text).map_err(|_| Wrong::NotAllowed)?;
        let bare =
            matches!(url.scheme(), "http" | "https") && url.path() == "/" && !text.ends_with('/');
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if bare && plain {
            Ok(url.origin().ascii_serialization())
        } else {
            Err(Wrong::NotAllowed)
        }
    };
    Kind::of_text(
        "an origin such as https://app.example.com or http://localhost:5173, without a path",
        read,
        String::clone,
    )
    .listed()
}

/// Names for `Host`, without a port.
pub(in crate::config) fn hosts() -> Kind<Vec<String>> {
    let read = |text: &str| match url::Host::parse(text) {
        Ok(host) if !text.contains('*') => Ok(host.to_string()),
        _ => Err(Wrong::NotAllowed),
    };
    Kind::of_text(
        "a host name without a port, such as chat.example.com",
        read,
        String::clone,
    )
    .listed()
}

/// Addresses or networks.
pub(in crate::config) fn networks() -> Kind<Vec<ipnet::IpNet>> {
    let read = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => from_text(text),
    };
    Kind::of_text(
        "an IP address or a network such as 10.0.0.0/8",
        read,
        ipnet::IpNet::to_string,
    )
    .listed()
}
