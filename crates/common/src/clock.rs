//! The one place that reads the wall clock.

/// Milliseconds since the Unix epoch, by this machine's clock.
///
/// Use it for what a person reads (creation times) and for token lifetimes. What decides between instances
/// (leases, limits, expiry) goes by the store's clock: [`crate::store::Snapshot::now`].
#[expect(clippy::disallowed_methods, reason = "this is the clock's home")]
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Seconds since the Unix epoch, by this machine's clock.
pub fn now_s() -> i64 {
    now_ms().div_euclid(1000)
}

/// An RFC 3339 time in UTC with milliseconds, as every answer of the API shows it.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// The day of a time in UTC, as `YYYYMMDD`.
pub fn utc_day(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y%m%d").to_string())
}

/// The time until the next day begins in UTC.
pub fn until_utc_midnight() -> std::time::Duration {
    const DAY: i64 = 24 * 3600;
    std::time::Duration::from_secs(u64::try_from(DAY - now_s().rem_euclid(DAY)).unwrap_or_default())
}
