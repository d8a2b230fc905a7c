//! Turns `OLLAMA_HOST`, in every form that Ollama accepts, into a base URL.

use std::net::IpAddr;

/// The base URL of an `OLLAMA_HOST`: as Ollama reads it, but a bind-all or missing host is loopback, since here it is
/// the address of a client. `None` for a scheme that is not HTTP.
pub(super) fn base_url(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    let (scheme, rest, default_port) = match text.split_once("://") {
        None => ("http", text, 11434),
        Some(("http", rest)) => ("http", rest, 80),
        Some(("https", rest)) => ("https", rest, 443),
        Some(_) => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host_port) = match authority.rsplit_once('@') {
        Some((user, host_port)) => (format!("{user}@"), host_port),
        None => (String::new(), authority),
    };
    let (host, port) = split(host_port);
    // As Ollama does, a port that is none falls back to the default.
    let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or(default_port);
    let path = path.trim_end_matches('/');
    Some(format!("{scheme}://{user}{}:{port}/{path}", reachable(host)))
}

/// Host and port; an IPv6 address without brackets has no port.
fn split(host_port: &str) -> (&str, Option<&str>) {
    let bare_ipv6 = host_port.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    match host_port.rsplit_once(':') {
        Some((host, port)) if !bare_ipv6 && !host_port.ends_with(']') => (host, Some(port)),
        _ => (host_port, None),
    }
}

/// The host as it stands in a URL, loopback where it says "every address".
fn reachable(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) if bare.is_empty() => "127.0.0.1".to_owned(),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::base_url;

    #[test]
    fn every_form_that_ollama_accepts_becomes_an_address_to_ask() {
        for (given, asked) in [
            ("", "http://127.0.0.1:11434/"),
            ("1.2.3.4", "http://1.2.3.4:11434/"),
            ("1.2.3.4:1234", "http://1.2.3.4:1234/"),
            (":1234", "http://127.0.0.1:1234/"),
            ("0.0.0.0", "http://127.0.0.1:11434/"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080/"),
            ("http://0.0.0.0:11434", "http://127.0.0.1:11434/"),
            ("example.com", "http://example.com:11434/"),
            ("example.com:", "http://example.com:11434/"),
            ("example.com:1234/ollama/", "http://example.com:1234/ollama"),
            ("http://example.com", "http://example.com:80/"),
            ("https://example.com", "https://example.com:443/"),
            ("https://example.com:8443/a/b", "https://example.com:8443/a/b"),
            ("https://me:pw@example.com/x", "https://me:pw@example.com:443/x"),
            ("[::1]", "http://[::1]:11434/"),
            ("::1", "http://[::1]:11434/"),
            ("[::]:1234", "http://[::1]:1234/"),
            ("[fe80::1]:1234", "http://[fe80::1]:1234/"),
            ("1.2.3.4:66000", "http://1.2.3.4:11434/"),
            (":-1", "http://127.0.0.1:11434/"),
            ("\"1.2.3.4\"", "http://1.2.3.4:11434/"),
            ("  ' 1.2.3.4 '  ", "http://1.2.3.4:11434/"),
        ] {
            assert_eq!(base_url(given).as_deref(), Some(asked), "{given:?}");
        }
        assert_eq!(base_url("ftp://example.com"), None);
    }
}
