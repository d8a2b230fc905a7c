//! What `store.url` says of a Redis: one server, a Cluster, or a master that Sentinels name.

use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use url::Url;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    Single,
    Cluster,
    Sentinel { service: String },
}

#[derive(Clone, Debug)]
pub struct RedisAddress {
    pub deployment: Deployment,
    /// The servers that the address names: Redis servers, or Sentinels (without the login, which is Redis').
    pub seeds: Vec<ConnectionInfo>,
    /// What holds for every Redis server: login, database, TLS.
    template: ConnectionInfo,
}

impl RedisAddress {
    pub fn is_redis(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| split_scheme(scheme).is_some())
    }

    /// # Errors
    /// What is wrong with it, in words that hold nothing of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let (base, kind) = split_scheme(scheme).ok_or("its scheme is unknown")?;
        let address = match kind {
            None => Self::single(text),
            Some(kind) => Self::several(base, kind, rest),
        }?;
        // What Redis cannot even read it refuses in other words than a number that is too high for its configuration.
        match i32::try_from(address.template.redis_settings().db()) {
            Ok(0..) => Ok(address),
            _ => Err("its database is a number that no Redis has"),
        }
    }

    fn single(text: &str) -> Result<Self, &'static str> {
        if authority(text).contains(',') {
            return Err(
                "it names several hosts: use redis+cluster:// or redis+sentinel:// for these",
            );
        }
        let url = Url::from_str(text).map_err(|_| "it is no URL")?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err("it names no host");
        }
        let info = text.into_connection_info();
        let info = info.map_err(|_| "its database is no number, or it cannot be decoded")?;
        Ok(Self { deployment: Deployment::Single, seeds: vec![info.clone()], template: info })
    }

    fn several(base: &str, kind: &str, rest: &str) -> Result<Self, &'static str> {
        if rest.contains(['?', '#']) {
            return Err("it has a query or a fragment, which this scheme does not take");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), authority),
        };
        let (deployment, database, port) = match kind {
            "cluster" => (Deployment::Cluster, cluster_database(path)?, REDIS_PORT),
            _ => {
                let (service, database) = sentinel_path(path)?;
                (Deployment::Sentinel { service }, database, SENTINEL_PORT)
            }
        };
        let at = |login: &str, host: &str, database: &str| {
            let url = format!("{base}://{login}{host}/{database}");
            let parsed = Url::from_str(&url).map_err(|_| "a host or port cannot be read");
            let has_port = parsed?.port().is_some();
            let with_port = || format!("{base}://{login}{host}:{port}/{database}");
            let url = if has_port { url } else { with_port() };
            let info = url.as_str().into_connection_info();
            info.map_err(|_| "a host, a port or the login cannot be read")
        };
        // The login is that of the servers that the Sentinels watch.
        let seed_login = if deployment == Deployment::Cluster { &*login } else { "" };
        let seeds = hosts.split(',').map(|host| {
            if host.is_empty() {
                return Err("it names no host between two commas, or none at all");
            }
            at(seed_login, host, "0")
        });
        Ok(Self {
            seeds: seeds.collect::<Result<_, _>>()?,
            template: at(&login, "template.invalid", database)?,
            deployment,
        })
    }

    /// Where the Redis server of that host and port is.
    pub fn node(&self, host: &str, port: u16) -> ConnectionInfo {
        self.template.clone().set_addr(relocated(self.template.addr(), host, port))
    }

    pub fn password(&self) -> Option<&str> {
        self.template.redis_settings().password()
    }

    /// That Sentinel with the login of Redis, for Sentinels that want one.
    pub fn seed_with_login(&self, seed: &ConnectionInfo) -> Option<ConnectionInfo> {
        let login = self.template.redis_settings();
        let password = login.password()?;
        let mut settings = RedisConnectionInfo::default().set_password(password);
        if let Some(user) = login.username() {
            settings = settings.set_username(user);
        }
        Some(seed.clone().set_redis_settings(settings))
    }
}

/// `host:port`, with brackets round an IPv6 address.
pub fn host_and_port(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            join(host, *port)
        }
        other => other.to_string(),
    }
}

pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What `host_and_port` joined; also `::1:6379`, as Redis writes an IPv6 address.
pub fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}

fn relocated(addr: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let host = host.to_owned();
    match addr {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// `redis` or `rediss`, and what stands behind a `+`.
fn split_scheme(scheme: &str) -> Option<(&str, Option<&str>)> {
    let (base, kind) = match scheme.split_once('+') {
        Some((base, kind)) => (base, Some(kind)),
        None => (scheme, None),
    };
    let is_known =
        matches!(base, "redis" | "rediss") && matches!(kind, None | Some("cluster" | "sentinel"));
    is_known.then_some((base, kind))
}

/// What stands between the scheme and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts)
}

fn cluster_database(path: &str) -> Result<&str, &'static str> {
    match path {
        "" | "0" => Ok("0"),
        _ => Err("a Redis Cluster has database 0 alone: leave the path away"),
    }
}

fn sentinel_path(path: &str) -> Result<(String, &str), &'static str> {
    let (service, database) = path.split_once('/').unwrap_or((path, "0"));
    if service.is_empty() {
        return Err(
            "it lacks the name of the service that the Sentinels watch: redis+sentinel://host:26379/mymaster/0",
        );
    }
    let database = if database.is_empty() { "0" } else { database };
    if database.parse::<u32>().is_err() {
        return Err("its database is no number");
    }
    Ok((service.to_owned(), database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_seeds_a_login_and_default_ports() {
        let address =
            RedisAddress::parse("rediss+cluster://app:p%40ss@a:7000,[::1]:7001,c").unwrap();
        assert_eq!(address.deployment, Deployment::Cluster);
        let seeds: Vec<_> = address.seeds.iter().map(host_and_port).collect();
        assert_eq!(seeds, ["a:7000", "[::1]:7001", "c:6379"]);
        let node = address.node("10.0.0.7", 7005);
        assert_eq!(host_and_port(&node), "10.0.0.7:7005");
        assert_eq!(node.redis_settings().password(), Some("p@ss"));
        assert_eq!(node.redis_settings().username(), Some("app"));
        assert!(matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
    }

    #[test]
    fn sentinels_are_asked_without_the_login_of_redis() {
        let address =
            RedisAddress::parse("redis+sentinel://:secret@s1,s2:26380/mymaster/3").unwrap();
        let service = "mymaster".to_owned();
        assert_eq!(address.deployment, Deployment::Sentinel { service });
        let seeds: Vec<_> = address.seeds.iter().map(host_and_port).collect();
        assert_eq!(seeds, ["s1:26379", "s2:26380"]);
        assert_eq!(address.seeds[0].redis_settings().password(), None);
        let with_login = address.seed_with_login(&address.seeds[0]).unwrap();
        assert_eq!(with_login.redis_settings().password(), Some("secret"));
        assert_eq!(address.node("h", 1).redis_settings().db(), 3);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (text, reason) in [
            ("redis://a:1,b:2/0", "redis+cluster://"),
            ("redis+cluster://a/1", "database 0 alone"),
            ("redis+cluster://", "no host"),
            ("redis+cluster://a,,b", "no host"),
            ("redis+cluster://a:x", "host or port"),
            ("redis+sentinel://a", "name of the service"),
            ("redis+sentinel://a/m/x", "no number"),
            ("redis://a/99999999999", "no Redis has"),
            ("redis://a/-1", "no Redis has"),
            ("redis+sentinel://a/m/4000000000", "no Redis has"),
            ("redis+cluster://a?x=1", "query"),
            ("redis+other://a", "unknown"),
            ("http://a", "unknown"),
        ] {
            let error = RedisAddress::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
