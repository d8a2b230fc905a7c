//! How many connections are open, in all and from one address, and who may still come in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ConnectionLimits;

/// Counts open connections against the caps of [`ConnectionLimits`].
#[derive(Debug)]
pub(super) struct Door {
    limits: ConnectionLimits,
    // std: held for a few instructions, never across an await.
    census: Mutex<Census>,
}

#[derive(Debug, Default)]
struct Census {
    open: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Door {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            census: Mutex::default(),
        })
    }

    /// A place for one more connection; `None` where a cap is reached.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let trusted = self
            .limits
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&address));
        let counted = (!trusted).then(|| network(address));
        let mut census = self.census();
        if census.open >= self.limits.max_connections {
            return None;
        }
        if let Some(network) = counted {
            let open = census.by_network.entry(network).or_insert(0);
            if *open >= self.limits.max_connections_per_address {
                return None;
            }
            *open += 1;
        }
        census.open += 1;
        metrics::gauge!("http_connections_open").increment(1.0);
        Some(Place {
            door: self.clone(),
            counted,
        })
    }

    fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    counted: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut census = self.door.census();
        census.open -= 1;
        metrics::gauge!("http_connections_open").decrement(1.0);
        let Some(network) = self.counted else { return };
        if let Some(open) = census.by_network.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                census.by_network.remove(&network);
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, since whoever has one address of it has them all.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let bits = v6.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(total: usize, each: usize, trusted: &[&str]) -> Arc<Door> {
        Door::new(ConnectionLimits {
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
        let door = door(10, 2, &[]);
        let first = door.admit(ip("192.0.2.1")).unwrap();
        let _second = door.admit(ip("192.0.2.1")).unwrap();
        assert!(door.admit(ip("192.0.2.1")).is_none());
        assert!(door.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(door.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn a_trusted_proxy_is_held_by_the_cap_of_all_alone() {
        let door = door(3, 1, &["10.0.0.0/8"]);
        let places: Vec<_> = (0..3)
            .map(|_| door.admit(ip("10.1.2.3")).unwrap())
            .collect();
        assert!(door.admit(ip("10.1.2.3")).is_none());
        drop(places);
        assert!(door.census().by_network.is_empty());
        assert_eq!(door.census().open, 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let door = door(10, 1, &[]);
        let _place = door.admit(ip("2001:db8::1")).unwrap();
        assert!(door.admit(ip("2001:db8::2")).is_none());
        assert!(door.admit(ip("2001:db8:0:1::2")).is_some());
    }
}
