//! Caps on open connections, in all and by client address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::{ConnectionLimits, network};

#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    limits: ConnectionLimits,
    // std: held for a few instructions, never across an await.
    open_connections: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    open: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open_connections: Mutex::default() })
    }

    /// A permit for one more connection; `None` where a cap is reached.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let trusted = self.limits.trusted_proxies.iter().any(|net| net.contains(&address));
        let counted = (!trusted).then(|| network(address));
        let mut open_connections = self.open_connections.lock();
        if open_connections.open >= self.limits.max_connections {
            return None;
        }
        if let Some(network) = counted {
            let open = open_connections.by_network.entry(network).or_insert(0);
            if *open >= self.limits.max_connections_per_address {
                return None;
            }
            *open += 1;
        }
        open_connections.open += 1;
        metrics::gauge!("http_connections_open").increment(1.0);
        Some(ConnectionPermit { limiter: self.clone(), counted })
    }
}

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    counted: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open_connections = self.limiter.open_connections.lock();
        open_connections.open -= 1;
        metrics::gauge!("http_connections_open").decrement(1.0);
        let Some(network) = self.counted else { return };
        if let Some(open) = open_connections.by_network.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                open_connections.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(total: usize, each: usize, trusted: &[&str]) -> Arc<ConnectionLimiter> {
        ConnectionLimiter::new(ConnectionLimits {
            max_connections: total,
            max_connections_per_address: each,
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            ..ConnectionLimits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_at_its_cap_is_refused_until_one_of_its_connections_ends() {
        let limiter = limiter(10, 2, &[]);
        let first = limiter.admit(ip("192.0.2.1")).unwrap();
        let _second = limiter.admit(ip("192.0.2.1")).unwrap();
        assert!(limiter.admit(ip("192.0.2.1")).is_none());
        assert!(limiter.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(limiter.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn a_trusted_proxy_is_held_by_the_cap_of_all_alone() {
        let limiter = limiter(3, 1, &["10.0.0.0/8"]);
        let permits: Vec<_> = (0..3).map(|_| limiter.admit(ip("10.1.2.3")).unwrap()).collect();
        assert!(limiter.admit(ip("10.1.2.3")).is_none());
        drop(permits);
        assert!(limiter.open_connections.lock().by_network.is_empty());
        assert_eq!(limiter.open_connections.lock().open, 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let limiter = limiter(10, 1, &[]);
        let _permit = limiter.admit(ip("2001:db8::1")).unwrap();
        assert!(limiter.admit(ip("2001:db8::2")).is_none());
        assert!(limiter.admit(ip("2001:db8:0:1::2")).is_some());
    }
}
