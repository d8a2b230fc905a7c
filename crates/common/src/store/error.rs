//! Why a store call failed.

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, did not answer in time, is loading, read-only, or refuses us. For a write: unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It refuses writes for want of memory or disk; nothing was applied.
    #[error("the store is full: {0}")]
    Full(String),
    /// A value has another type or shape than ours (somebody else wrote it).
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
}
