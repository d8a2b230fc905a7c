//! The client's IP address: the socket's, or what trusted proxies say in `X-Forwarded-For`.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, HeaderName, request::Parts},
};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request is taken to come from. IPv4 addresses mapped into IPv6 are plain IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl ClientIp {
    /// Starts at the socket's address and goes through `X-Forwarded-For` from the right for as long as the address that
    /// vouches for the entry is trusted. An entry that is no address ends the walk at whoever sent it.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let socket = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let mut believed = socket.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
        if !is_trusted(believed) {
            return Self(believed);
        }
        let lines: Vec<&[u8]> =
            headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.as_bytes()).collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b',')) {
            let Some(address) = parse(entry) else { break };
            believed = address;
            if !is_trusted(believed) {
                break;
            }
        }
        Self(believed)
    }
}

impl<S: Sync> FromRequestParts<S> for ClientIp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, since whoever has one address of it has them all.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let bits = v6.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        other => other,
    }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believed(socket: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(socket.parse().unwrap(), 1)));
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        ClientIp::of(&extensions, &headers, &trusted).0.to_string()
    }

    #[test]
    fn nobody_is_believed_unless_named() {
        assert_eq!(believed("127.0.0.1", &["1.2.3.4"], &[]), "127.0.0.1");
        assert_eq!(believed("203.0.113.9", &["1.2.3.4"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn the_rightmost_address_that_no_trusted_proxy_has_is_the_clients() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(believed("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &trusted), "1.2.3.4");
        assert_eq!(believed("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.9.9.9"], &trusted), "1.2.3.4");
        assert_eq!(believed("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.9.9.9"], &trusted), "1.2.3.4");
        assert_eq!(believed("::ffff:10.0.0.1", &["1.2.3.4:555"], &trusted), "1.2.3.4");
        assert_eq!(
            believed("10.0.0.1", &["[2606:4700::1]:443 , [2001:db8::7]"], &trusted),
            "2606:4700::1"
        );
        assert_eq!(believed("10.0.0.1", &["10.0.0.3,10.0.0.2"], &trusted), "10.0.0.3");
    }

    #[test]
    fn garbage_ends_the_walk_at_whoever_sent_it() {
        assert_eq!(believed("10.0.0.1", &["1.2.3.4, <script>"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(
            believed("10.0.0.1", &["1.2.3.4, nonsense, 10.0.0.7"], &["10.0.0.0/8"]),
            "10.0.0.7"
        );
        assert_eq!(believed("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        let many = vec!["9.9.9.9"; 1000].join(",");
        assert_eq!(believed("203.0.113.9", &[&many], &["10.0.0.0/8"]), "203.0.113.9");
    }
}
