//! Logins: what is kept of each until its refresh tokens expire.

/// A login. Its tokens are kept only as digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRecord {
    /// Unix milliseconds.
    pub started_at: i64,
    /// The key that distinguishes a refresh token that was once issued from a made-up one.
    pub proof_key: Vec<u8>,
    /// The digest of the refresh token that works now.
    pub current: String,
    /// The digest of the one before it.
    pub previous: Option<String>,
    /// Why it has ended, if it has.
    pub ended: Option<EndReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    Logout,
    Reused,
}
