//! The `Host` check: a foreign page must not reach an open login by resolving a name of its own to our address (DNS rebinding).

use std::{net::IpAddr, sync::Arc};

use axum::http::{Request, Version, header, uri::Authority};

use crate::errors::{ApiError, Code};

#[derive(Clone)]
pub struct HostPolicy {
    allowed: Vec<String>,
    guarded: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl HostPolicy {
    pub fn any() -> Self {
        Self { allowed: Vec::new(), guarded: Arc::new(|| false) }
    }

    /// While `guarded` says so (asked at each request: bound to loopback, or login open), only IP addresses, names
    /// without a dot and `allowed` are answered to, with any port.
    pub fn guarded(
        allowed: Vec<String>,
        guarded: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { allowed, guarded: Arc::new(guarded) }
    }

    /// Checks `Host`, and the authority of an absolute address.
    ///
    /// # Errors
    /// `invalid_request` where HTTP/1.1 has none, several or a malformed one; `origin_refused` for a foreign name.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let named = authority(request)?;
        let elsewhere = request.uri().authority();
        if named.is_none() && elsewhere.is_none() || !(self.guarded)() {
            return Ok(());
        }
        let ours = |authority: &Authority| self.is_ours(authority.host());
        if named.as_ref().is_none_or(ours) && elsewhere.is_none_or(ours) {
            return Ok(());
        }
        let detail = "This service answers to IP addresses, names without a dot and the names in server.allowed_hosts; \
             use one of these, or add this one there.";
        Err(ApiError::new(Code::OriginRefused, detail))
    }

    fn is_ours(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        !host.contains('.') && !host.contains(':')
            || bare.parse::<IpAddr>().is_ok()
            || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, ApiError> {
    let malformed = |detail| ApiError::new(Code::InvalidRequest, detail);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        if request.version() < Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            return Ok(None);
        }
        return Err(malformed("Send exactly one Host header."));
    };
    match Authority::try_from(host.as_bytes()) {
        Ok(authority) if is_host_and_port(&authority) => Ok(Some(authority)),
        _ => Err(malformed("The Host header is not a host with an optional port.")),
    }
}

/// Whether it is a host with an optional port, as `Host` must be.
fn is_host_and_port(authority: &Authority) -> bool {
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.strip_prefix(host).unwrap_or("@");
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    !host.is_empty() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &HostPolicy, uri: &str, names: &[&str], version: Version) -> Result<(), Code> {
        let mut request = Request::builder().uri(uri).version(version);
        for name in names {
            request = request.header(header::HOST, *name);
        }
        hosts.check(&request.body(()).unwrap()).map_err(|error| error.code)
    }

    #[test]
    fn only_addresses_dotless_names_and_named_ones_pass_while_guarded() {
        let hosts = HostPolicy::guarded(vec!["chat.example.org".into()], || true);
        for ours in [
            "localhost",
            "chat:9002",
            "127.0.0.1:9001",
            "[::1]:9002",
            "[::1]",
            "192.168.1.7",
            "Chat.Example.ORG:80",
            "localhost:",
        ] {
            assert_eq!(check(&hosts, "/", &[ours], Version::HTTP_11), Ok(()), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9002",
            "127.0.0.1.evil.example",
            "localhost.",
            "x.localhost",
        ] {
            assert_eq!(
                check(&hosts, "/", &[foreign], Version::HTTP_11),
                Err(Code::OriginRefused),
                "{foreign}"
            );
        }
    }

    #[test]
    fn an_absolute_address_is_held_to_the_rule_as_well() {
        let hosts = HostPolicy::guarded(vec![], || true);
        let foreign = check(&hosts, "http://evil.example/", &["localhost"], Version::HTTP_11);
        assert_eq!(foreign, Err(Code::OriginRefused));
        assert_eq!(
            check(&hosts, "http://localhost:9001/", &["localhost"], Version::HTTP_11),
            Ok(())
        );
    }

    #[test]
    fn http_1_1_needs_exactly_one_well_formed_host() {
        let hosts = HostPolicy::any();
        for names in [
            &[][..],
            &["a", "a"],
            &[""],
            &["user@a"],
            &["a b"],
            &["a/b"],
            &[":80"],
            &["host:port"],
            &["host:65536"],
            &["[::1]:-1"],
        ] {
            assert_eq!(
                check(&hosts, "/", names, Version::HTTP_11),
                Err(Code::InvalidRequest),
                "{names:?}"
            );
        }
        for name in ["host:", "host:80", "[::1]", "[::1]:80"] {
            assert_eq!(check(&hosts, "/", &[name], Version::HTTP_11), Ok(()));
        }
        assert_eq!(check(&hosts, "/", &[], Version::HTTP_10), Ok(()));
        assert_eq!(check(&hosts, "/", &["evil.example"], Version::HTTP_11), Ok(()));
    }
}
