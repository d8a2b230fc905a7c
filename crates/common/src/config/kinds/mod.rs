//! The kinds of value that a setting can have: how each is read, how it is shown, and what is allowed.

mod choices;
mod places;

use std::{num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use config::ValueKind;
use secrecy::SecretString;

pub(super) use self::choices::{log_format, login, providers, registration};
pub(super) use self::places::{
    address, hosts, http_url, masked, networks, origins, own_service, store_url,
};

/// What is printed instead of a secret.
pub(in crate::config) const MASK: &str = "********";
/// Longer is a mistake, and would overflow when added to a point in time.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Why a value was not taken.
pub(in crate::config) enum Wrong {
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
pub(in crate::config) struct Kind<T> {
    /// What is allowed, in words.
    pub(in crate::config) allowed: String,
    /// Whether a wrong value may be quoted.
    pub(in crate::config) quotable: bool,
    pub(in crate::config) read: Read<T>,
    pub(in crate::config) show: Show<T>,
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
    pub(in crate::config) fn or_none(self) -> Kind<Option<T>> {
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

/// A name or the like: not empty, without white space around it.
pub(in crate::config) fn text() -> Kind<String> {
    Kind::of_text("a text", |text| Ok(text.trim().to_owned()), String::clone)
}

/// A text that is kept as it is, white space around it included.
pub(in crate::config) fn prose() -> Kind<String> {
    Kind::of_text("a text", |text| Ok(text.to_owned()), String::clone)
}

/// A folder.
pub(in crate::config) fn folder() -> Kind<PathBuf> {
    Kind::of_text(
        "the path of a folder",
        |text| Ok(text.into()),
        |path| path.display().to_string(),
    )
}

/// A text that is never shown.
pub(in crate::config) fn secret() -> Kind<SecretString> {
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
pub(in crate::config) fn duration() -> Kind<Duration> {
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
pub(in crate::config) fn positive_duration() -> Kind<Duration> {
    duration().and("it must be longer than 0", |duration| !duration.is_zero())
}

/// How long a token lives; tokens count in whole seconds.
pub(in crate::config) fn lifetime() -> Kind<Duration> {
    positive_duration().and("it must be at least 1s", |lifetime| lifetime.as_secs() > 0)
}

/// How long a turn's lease lasts: it is renewed every 250 ms at most, and one that ends before would end turns that run.
pub(in crate::config) fn lease() -> Kind<Duration> {
    positive_duration().and("it must be at least 500ms", |lease| {
        lease.as_millis() >= 500
    })
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
        .find(|(_, length)| ms > 0 && ms.is_multiple_of(*length))
    {
        Some((unit, length)) if duration.subsec_nanos().is_multiple_of(1_000_000) => {
            format!("{}{unit}", ms / length)
        }
        _ => humantime::format_duration(*duration).to_string(),
    }
}

/// A whole number within bounds.
pub(in crate::config) fn number<T>(least: u64, most: u64) -> Kind<T>
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
pub(in crate::config) const MOST: u64 = 1_000_000_000;

/// A count of at least 1.
pub(in crate::config) fn count<T>() -> Kind<T>
where
    T: TryFrom<u64> + Copy + 'static,
    u64: TryFrom<T>,
{
    number(1, MOST)
}

/// A count of at least 1 that is held as such.
pub(in crate::config) fn non_zero() -> Kind<NonZeroU32> {
    let inner = number::<u32>(1, MOST);
    let (read, show) = (inner.read, inner.show);
    Kind {
        allowed: inner.allowed,
        quotable: true,
        read: Box::new(move |value| NonZeroU32::new(read(value)?).ok_or(Wrong::NotAllowed)),
        show: Box::new(move |value| show(&value.get())),
    }
}

/// What is logged.
pub(in crate::config) fn log_filter() -> Kind<String> {
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
