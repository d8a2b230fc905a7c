//! The kinds of value that a setting can have: how each is read, how it is shown, and what is allowed.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use config::ValueKind;
use secrecy::SecretString;
use url::Url;

use super::{LogFormat, LoginMode, ProviderKind, Registration, StoreUrl};

/// What is printed instead of a secret.
pub(super) const MASK: &str = "********";
/// Longer is a mistake, and would overflow when added to a point in time.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Why a value was not taken.
pub(super) enum Wrong {
    /// It is not what is allowed.
    NotAllowed,
    /// It is not there.
    Unset,
    /// It is not what is allowed, for this reason.
    Because(&'static str),
}

type Read<T> = Box<dyn Fn(&ValueKind) -> Result<T, Wrong>>;
type Show<T> = Box<dyn Fn(&T) -> toml::Value>;

/// How a setting is read and shown.
pub(super) struct Kind<T> {
    /// What is allowed, in words.
    pub(super) allowed: String,
    /// Whether a wrong value may be quoted.
    pub(super) quotable: bool,
    pub(super) read: Read<T>,
    pub(super) show: Show<T>,
}

impl<T: 'static> Kind<T> {
    fn of_text(
        allowed: &str,
        read: impl Fn(&str) -> Result<T, Wrong> + 'static,
        show: fn(&T) -> String,
    ) -> Self {
        Self {
            allowed: allowed.to_owned(),
            quotable: true,
            read: Box::new(move |value| match value {
                ValueKind::String(text) if text.trim().is_empty() => Err(Wrong::Unset),
                ValueKind::String(text) => read(text),
                _ => Err(Wrong::NotAllowed),
            }),
            show: Box::new(move |value| show(value).into()),
        }
    }

    fn never_quoted(self) -> Self {
        Self {
            quotable: false,
            ..self
        }
    }

    fn and(self, wrong: &'static str, holds: fn(&T) -> bool) -> Self {
        let read = self.read;
        let read: Read<T> = Box::new(move |value| {
            let value = read(value)?;
            if holds(&value) {
                Ok(value)
            } else {
                Err(Wrong::Because(wrong))
            }
        });
        Self { read, ..self }
    }

    /// The same, or nothing: an empty text.
    pub(super) fn or_none(self) -> Kind<Option<T>> {
        let (read, show) = (self.read, self.show);
        Kind {
            allowed: format!("{}, or empty for none", self.allowed),
            quotable: self.quotable,
            read: Box::new(move |value| match read(value) {
                Ok(value) => Ok(Some(value)),
                Err(Wrong::Unset) => Ok(None),
                Err(wrong) => Err(wrong),
            }),
            show: Box::new(move |value| value.as_ref().map_or_else(|| "".into(), &show)),
        }
    }

    fn listed(self) -> Kind<Vec<T>> {
        let (read, show) = (self.read, self.show);
        Kind {
            allowed: format!("a list, each item {}", self.allowed),
            quotable: self.quotable,
            read: Box::new(move |value| match value {
                ValueKind::String(text) => {
                    let items = text
                        .split(',')
                        .map(str::trim)
                        .filter(|item| !item.is_empty());
                    items
                        .map(|item| read(&ValueKind::String(item.to_owned())))
                        .collect()
                }
                ValueKind::Array(items) => items.iter().map(|item| read(&item.kind)).collect(),
                _ => Err(Wrong::NotAllowed),
            }),
            show: Box::new(move |values| values.iter().map(&show).collect::<Vec<_>>().into()),
        }
    }
}

fn from_text<T: FromStr>(text: &str) -> Result<T, Wrong> {
    text.trim().parse().map_err(|_| Wrong::NotAllowed)
}

/// An IP address and a port to listen on.
pub(super) fn address() -> Kind<SocketAddr> {
    Kind::of_text(
        "an IP address and a port, such as 127.0.0.1:9001 or [::1]:9001",
        from_text,
        SocketAddr::to_string,
    )
}

/// Any text but an empty one.
pub(super) fn text() -> Kind<String> {
    Kind::of_text("a text", |text| Ok(text.to_owned()), String::clone)
}

/// A folder.
pub(super) fn folder() -> Kind<PathBuf> {
    Kind::of_text(
        "the path of a folder",
        |text| Ok(text.into()),
        |path| path.display().to_string(),
    )
}

/// A text that is never shown.
pub(super) fn secret() -> Kind<SecretString> {
    let read = |text: &str| {
        // It goes into a header.
        let fits = text.chars().all(|c| c.is_ascii_graphic());
        if fits {
            Ok(text.into())
        } else {
            Err(Wrong::Because(
                "it holds a space, a line break or another character that no key has",
            ))
        }
    };
    Kind::of_text("a key of visible ASCII characters", read, |_| {
        MASK.to_owned()
    })
    .never_quoted()
}

/// A length of time, 0 included.
pub(super) fn duration() -> Kind<Duration> {
    let read = |text: &str| match humantime::parse_duration(text.trim()) {
        Ok(duration) if duration > LONGEST => Err(Wrong::Because("it is longer than 3650d")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(Wrong::NotAllowed),
    };
    Kind::of_text(
        "a duration with its unit, such as 250ms, 10s, 15m, 1h or 30d",
        read,
        show_duration,
    )
}

/// A length of time that is not 0.
pub(super) fn positive_duration() -> Kind<Duration> {
    duration().and("it must be longer than 0", |duration| !duration.is_zero())
}

fn show_duration(duration: &Duration) -> String {
    let ms = duration.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    match units
        .into_iter()
        .find(|(_, length)| ms > 0 && ms % length == 0)
    {
        Some((unit, length)) if duration.subsec_nanos().is_multiple_of(1_000_000) => {
            format!("{}{unit}", ms / length)
        }
        _ => humantime::format_duration(*duration).to_string(),
    }
}

/// A whole number within bounds.
pub(super) fn number<T>(least: u64, most: u64) -> Kind<T>
where
    T: TryFrom<u64> + Copy + 'static,
    u64: TryFrom<T>,
{
    let read = move |value: &ValueKind| {
        let number = match value {
            ValueKind::I64(number) => {
                <u64 as TryFrom<i64>>::try_from(*number).map_err(|_| Wrong::NotAllowed)?
            }
            ValueKind::U64(number) => *number,
            ValueKind::String(text) if text.trim().is_empty() => return Err(Wrong::Unset),
            ValueKind::String(text) => from_text(text)?,
            _ => return Err(Wrong::NotAllowed),
        };
        let number = Some(number).filter(|number| (least..=most).contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or(Wrong::NotAllowed)
    };
    let show = |value: &T| {
        u64::try_from(*value)
            .ok()
            .and_then(|n| i64::try_from(n).ok())
            .unwrap_or(i64::MAX)
            .into()
    };
    let allowed = format!("a whole number from {least} to {most}");
    Kind {
        allowed,
        quotable: true,
        read: Box::new(read),
        show: Box::new(show),
    }
}

/// Largest count: more is a mistake.
pub(super) const MOST: u64 = 1_000_000_000;

/// A count of at least 1.
pub(super) fn count<T>() -> Kind<T>
where
    T: TryFrom<u64> + Copy + 'static,
    u64: TryFrom<T>,
{
    number(1, MOST)
}

/// A count of at least 1 that is held as such.
pub(super) fn non_zero() -> Kind<NonZeroU32> {
    let inner = number::<u32>(1, MOST);
    let (read, show) = (inner.read, inner.show);
    Kind {
        allowed: inner.allowed,
        quotable: true,
        read: Box::new(move |value| NonZeroU32::new(read(value)?).ok_or(Wrong::NotAllowed)),
        show: Box::new(move |value| show(&value.get())),
    }
}

/// Where a server is: `http://` or `https://`, no query. A trailing slash is dropped.
pub(super) fn http_url() -> Kind<Url> {
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
        |url| masked(url),
    )
    .never_quoted()
}

/// Where one of our own services is: nobody is named in it.
pub(super) fn own_service() -> Kind<Url> {
    http_url().and(
        "it holds a user name or a password, which it must not",
        |url| url.username().is_empty() && url.password().is_none(),
    )
}

/// A URL as it may be printed: whoever is named in it and their password are hidden.
pub(super) fn masked(url: &Url) -> String {
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
pub(super) fn store_url() -> Kind<StoreUrl> {
    let allowed =
        "redis://host:port/database, rediss://…; for chatbot alone also embedded:DIR and memory:";
    Kind::of_text(
        allowed,
        |text| store(text.trim()),
        |url| match url {
            StoreUrl::Redis(url) => Url::parse(secrecy::ExposeSecret::expose_secret(url))
                .map_or_else(|_| MASK.to_owned(), |url| masked(&url)),
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

/// `open` or `password`.
pub(super) fn login() -> Kind<LoginMode> {
    one_of(&[("open", LoginMode::Open), ("password", LoginMode::Password)])
}

/// `open` or `closed`.
pub(super) fn registration() -> Kind<Registration> {
    one_of(&[
        ("open", Registration::Open),
        ("closed", Registration::Closed),
    ])
}

/// `text` or `json`.
pub(super) fn log_format() -> Kind<LogFormat> {
    one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

/// Model servers, each once, at least one.
pub(super) fn providers() -> Kind<Vec<ProviderKind>> {
    use ProviderKind::{Demo, HuggingFace, Ollama, OpenAi};
    one_of(&[
        ("ollama", Ollama),
        ("openai", OpenAi),
        ("huggingface", HuggingFace),
        ("demo", Demo),
    ])
    .listed()
    .and("it is empty", |providers| !providers.is_empty())
    .and("it names one twice", |providers| {
        providers
            .iter()
            .enumerate()
            .all(|(n, provider)| !providers.iter().take(n).any(|earlier| earlier == provider))
    })
}

fn one_of<T: Copy + PartialEq + 'static>(names: &'static [(&'static str, T)]) -> Kind<T> {
    let allowed = names
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let find = move |text: &str| {
        names
            .iter()
            .find(|(name, _)| *name == text.trim())
            .map(|(_, value)| *value)
    };
    Kind {
        allowed: format!("one of {allowed}"),
        quotable: true,
        read: Box::new(move |value| match value {
            ValueKind::String(text) if text.trim().is_empty() => Err(Wrong::Unset),
            ValueKind::String(text) => find(text).ok_or(Wrong::NotAllowed),
            _ => Err(Wrong::NotAllowed),
        }),
        show: Box::new(move |value| {
            names
                .iter()
                .find(|(_, known)| known == value)
                .map_or("", |(name, _)| *name)
                .into()
        }),
    }
}

/// Exact browser origins, in the form that browsers send.
pub(super) fn origins() -> Kind<Vec<String>> {
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
pub(super) fn hosts() -> Kind<Vec<String>> {
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
pub(super) fn networks() -> Kind<Vec<ipnet::IpNet>> {
    let read = |text: &str| match text.parse::<std::net::IpAddr>() {
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

/// What is logged.
pub(super) fn log_filter() -> Kind<String> {
    let read = |text: &str| match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::NotAllowed),
    };
    Kind::of_text(
        "a level (error, warn, info, debug, trace, off) or directives such as warn,chat=debug",
        read,
        String::clone,
    )
}
